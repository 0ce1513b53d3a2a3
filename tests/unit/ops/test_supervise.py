"""The supervisor: who is started again, and who is not."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from streamml.engine.retry import Backoff
from streamml.errors import ConfigError, FatalError, Fenced, StreamMLError
from streamml.ops.supervise import Restarts, supervise

MOST = 2


@pytest.mark.parametrize(
    ("code", "starts", "error"), [(2, 1, ConfigError), (4, 1, Fenced), (3, MOST, FatalError), (0, MOST, FatalError)]
)
def test_d6_l3_a_crash_is_borne_for_a_while_and_a_mistake_or_a_fence_not_at_all(
    tmp_path: Path, code: int, starts: int, error: type[StreamMLError]
) -> None:
    """D6.3, L3.3, L3.4. A process that ends with 0 in the middle of its run has crashed, too."""
    (tmp_path / "ending.py").write_text(f"import os\n\nos._exit({code})\n")
    started: list[int] = []
    stop = threading.Event()
    restarts = Restarts(MOST, backoff=Backoff(0.0, 0.0))
    with pytest.raises(error) as raised:
        supervise(
            lambda number: ["run", str(tmp_path / "ending.py")],
            1,
            stop,
            restarts=restarts,
            started=lambda number, pid: started.append(number),
        )
    assert type(raised.value) is error
    assert raised.value.exit_code == (code or 3)
    assert started == [0] * starts
    assert stop.is_set()


def test_l3_five_crashes_in_a_minute_are_too_many() -> None:
    """L3.3."""
    assert (Restarts().most, Restarts().window_s) == (5, 60.0)
