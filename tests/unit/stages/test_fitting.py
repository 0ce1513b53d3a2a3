"""M5: how many rows fit is learned from what did not, and forgotten slowly."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streamml.stages.fitting import FittingRows


def score(fitting: FittingRows, rows: int, room: int) -> list[int]:
    """Sizes of the calls of a batch on a model that has room for ``room`` rows; what does not fit is halved."""
    calls, fitted, too_large = [], [], []
    waiting = [len(part) for part in fitting.cut(rows)]
    while waiting:
        size = waiting.pop(0)
        calls.append(size)
        if size <= room:
            fitted.append(size)
        else:
            too_large.append(size)
            waiting[:0] = [size // 2, size - size // 2]
    fitting.learn(fitted, too_large)
    return calls


def test_m5_later_batches_come_in_parts_that_fit() -> None:
    """M5.2."""
    fitting = FittingRows()
    assert score(fitting, 64, room=20) == [64, 32, 16, 16, 32, 16, 16]
    assert score(fitting, 64, room=20) == [16, 16, 16, 16]
    assert fitting.too_large == 3


def test_m5_it_grows_back_when_there_is_room_again() -> None:
    """M5.2."""
    fitting = FittingRows()
    score(fitting, 4096, room=1)
    assert fitting.most == 1
    batches = 0
    while fitting.most is not None:
        score(fitting, 4096, room=10_000)
        batches += 1
    assert score(fitting, 4096, room=10_000) == [4096]
    assert batches <= 60


def test_m5_what_stays_too_large_is_tried_ever_less() -> None:
    """M5.2."""
    fitting = FittingRows()
    calls = [size for _ in range(2_000) for size in score(fitting, 64, room=16)]
    assert sum(size > 16 for size in calls) < len(calls) / 100


@given(st.integers(1, 300), st.lists(st.integers(1, 300), max_size=40))
def test_m5_each_row_is_in_one_part_in_order(rows: int, rooms: list[int]) -> None:
    """M5.1."""
    fitting = FittingRows()
    for room in rooms:
        parts = fitting.cut(rows)
        assert [row for part in parts for row in part] == list(range(rows))
        assert fitting.most is None or max(map(len, parts)) <= fitting.most
        score(fitting, rows, room)
