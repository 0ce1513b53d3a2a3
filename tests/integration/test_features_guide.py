"""docs/guide/features.md does what it says."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from streamml.ops.embedded.redis import EmbeddedRedis
from streamml.ops.feature_values import explain

pytestmark = pytest.mark.integration
PAGE = Path(__file__).parents[2] / "docs" / "guide" / "features.md"


@dataclass
class Row:
    """As a row of Spark gives itself."""

    values: dict[str, Any]

    def asDict(self) -> dict[str, Any]:
        return self.values


def test_the_page_writes_streaming_values(redis_server: EmbeddedRedis) -> None:
    page: Any = ModuleType("docs_guide_features")
    code = "\n".join(re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL))
    exec(compile(code, str(PAGE), "exec"), page.__dict__)
    now = datetime.now(UTC)
    arguments = (["JFK", "LAX"], [now, now], [3.5, 4.5], [12, 13])
    assert page.write_recent(*arguments, redis_server.url) == 0
    later = {"airport": "LAX", "event_time": now, "mean_delay": 5.5, "landings": 14}
    page.write_partition(iter([Row(later)]), redis_server.url)
    for airport, delay, writer in (("JFK", 3.5, "arrivals-app"), ("LAX", 5.5, "spark")):
        [found] = explain([page.recent], [airport], url=redis_server.url)
        assert found.state == "fresh"
        assert found.found is not None
        assert (found.found.columns or {})["mean_delay"] == delay
        assert found.found.writer == writer
