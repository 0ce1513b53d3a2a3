"""What became of every record of a topology under faults, next to what should have."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from streamml.adapters.memory.latest import MemoryLatest
from streamml.testing.driver import TopologyDriver
from streamml.testing.results import Prediction
from streamml.topology.topology import Topology

_LATE: Final = "late"
_REMARKS: Final = 10


@dataclass(frozen=True, slots=True)
class Report:
    """Counts of a run under faults.

    Args:
        exactly_once: the guarantee that the run had.
        produced: records in the input.
        predicted, dead_lettered: ids with a prediction, and with a dead letter; an exploded record has one id per child.
        filtered: records that were to end without a trace, and did.
        lost: ids that should have a prediction or a dead letter, and have neither.
        duplicated: predictions beyond the first of their id.
        wrong: predictions of another value than without faults, predictions and dead letters that should not be, and keys
            of which a `RedisSink` keeps another prediction. The
            value of a prediction is not judged where its flags say that features were missing that are there without faults.
        out_of_order: first predictions behind one of a later record of their partition.
        uncommitted: records that were not committed in the end.
        strikes: how often each fault struck.
        remarks: the first of what was lost, wrong or out of order, in words.
    """

    exactly_once: bool
    produced: int
    predicted: int
    dead_lettered: int
    filtered: int
    lost: int
    duplicated: int
    wrong: int
    out_of_order: int
    uncommitted: int
    strikes: Mapping[str, int] = field(default_factory=dict)
    remarks: Sequence[str] = ()

    def assert_nothing_lost(self) -> None:
        """Nothing lost, wrong, out of order or uncommitted, and with exactly-once nothing doubled.

        Raises:
            AssertionError: with the counts and the first records.
        """
        bad = self.lost + self.wrong + self.out_of_order + self.uncommitted + self.exactly_once * self.duplicated
        if bad:
            raise AssertionError("\n".join([str(self), *self.remarks]))


def compare(
    topology: Topology,
    quiet: TopologyDriver,
    struck: TopologyDriver,
    *,
    exactly_once: bool,
    strikes: Mapping[str, int],
    stuck: str | None,
) -> Report:
    """What ``struck`` wrote, next to what ``quiet`` did, which got the same records.

    Args:
        stuck: why the run did not come to its end.
    """
    due = {one.id: one for one in quiet.predictions()}
    due_letters = {one.id for one in quiet.dead_letters()}
    found, letters = struck.predictions(), {one.id for one in struck.dead_letters()}
    produced = sum(len(quiet.broker.records(topic)) for topic in topology.source.topics)
    predicted = {one.id for one in found}
    lost = sorted((due.keys() | due_letters) - predicted - letters)
    wrong = [one.id for one in found if not _right(one, due)] + sorted(letters - due_letters)
    older = _older(quiet.latest_store, struck.latest_store)
    swapped = _out_of_order(found) if topology.sink.order == "partition" else []
    return Report(
        exactly_once=exactly_once,
        produced=produced,
        predicted=len(predicted),
        dead_lettered=len(letters),
        filtered=produced - len({_record(id) for id in due.keys() | due_letters | predicted | letters}),
        lost=len(lost),
        duplicated=len(found) - len(predicted),
        wrong=len(wrong) + len(older),
        out_of_order=len(swapped),
        uncommitted=produced - sum(struck.commits().values()),
        strikes=strikes,
        remarks=[
            *([stuck] if stuck else []),
            *(f"{id} was lost." for id in lost[:_REMARKS]),
            *(f"{id} ended otherwise than without faults." for id in wrong[:_REMARKS]),
            *(f"{id} came behind a later record." for id in swapped[:_REMARKS]),
            *older[:_REMARKS],
        ],
    )


def _right(one: Prediction, due: Mapping[str, Prediction]) -> bool:
    if one.id not in due:
        return False
    expected = due[one.id]
    return _plain(one) != _plain(expected) or _same(_judged(one.value), _judged(expected.value))


def _older(quiet: MemoryLatest, struck: MemoryLatest) -> list[str]:
    """Keys of which Redis keeps another prediction than without faults, in words."""
    there = struck.all()
    return [
        f"Redis has {there[key].id if key in there else 'nothing'} under {key!r}, and not {due.id}."
        for key, due in quiet.all().items()
        if key not in there or there[key].id != due.id
    ]


def _plain(one: Prediction) -> set[str]:
    return set(one.flags) - {_LATE}


def _judged(value: Any) -> Any:
    """Flags in a prediction's fields say how late it was."""
    return {name: part for name, part in value.items() if name != "flags"} if isinstance(value, dict) else value


def _same(one: Any, other: Any) -> bool:
    """Equal, up to the rounding of batches of different sizes."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[name], other[name]) for name in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, float) and isinstance(other, (int, float)):
        return math.isclose(one, other, rel_tol=1e-4, abs_tol=1e-6)
    return bool(one == other)


def _record(id: str) -> str:
    return id.partition("#")[0]


def _out_of_order(found: Sequence[Prediction]) -> list[str]:
    latest: dict[str, int] = {}
    swapped: list[str] = []
    for id in dict.fromkeys(one.id for one in found):
        partition, offset = _record(id).rsplit("/", 1)
        if int(offset) < latest.get(partition, -1):
            swapped.append(id)
        latest[partition] = max(int(offset), latest.get(partition, -1))
    return swapped
