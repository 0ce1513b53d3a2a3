"""A topology under faults, in virtual time: what `make chaos` does to real workers, done to one's own steps in a test.

Every event is sent to two drivers: to one nothing happens, which shows what should become of each event; the other one is
killed, cut off, and rebalanced. What both wrote is compared record by record. See docs/testing.md.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal
from zlib import crc32

from pydantic import BaseModel

from streamml.ports.model import Model
from streamml.ports.source import RawRecord
from streamml.settings.settings import WorkerSettings
from streamml.testing.driver import TopologyDriver
from streamml.testing.failing_model import FailingModel
from streamml.testing.models import StandIn, models_of
from streamml.testing.report import Report, compare
from streamml.testing.results import read_prediction
from streamml.topology.duration import seconds
from streamml.topology.topology import Topology

__all__ = [
    "run",
    "Report",
    "Kill",
    "SessionLost",
    "Rebalance",
    "BrokerDown",
    "FeaturesDown",
    "SlowModel",
    "OutOfMemory",
    "ModelRaises",
    "Poison",
    "RefusedRecords",
]

Event = BaseModel | Mapping[str, Any] | bytes | None
_TURN_S: Final = 0.01
_POISON: Final = (b"", b"not json", b'{"', b"[]", b'{"a":1,"a":2}', b'{"a":"\xff"}', b'{"a":NaN}', b"{},{}", b"1e999")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Now:
    """Strikes now and then: about every ``every``, for ``lasts``."""

    every: str | float = "3s"
    lasts: str | float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill(_Now):
    """kill −9 of the worker, started again at once."""

    every: str | float = "2s"


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionLost(_Now):
    """The group takes the worker for dead; the worker hears of it at its next poll, and joins again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebalance(_Now):
    """Another member joins and takes its share of the partitions, whose records wait until it leaves."""

    lasts: str | float = "1s"


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerDown(_Now):
    """The broker does not answer."""

    every: str | float = "5s"
    lasts: str | float = "1s"


@dataclass(frozen=True, slots=True, kw_only=True)
class FeaturesDown(_Now):
    """The feature store does not answer."""

    lasts: str | float = "1s"


@dataclass(frozen=True, slots=True)
class SlowModel:
    """Every batch takes a model this long."""

    takes: str | float = "50ms"


@dataclass(frozen=True, slots=True)
class OutOfMemory:
    """Models have no memory for more than this many rows at once."""

    above_rows: int = 16


@dataclass(frozen=True, slots=True)
class ModelRaises:
    """Models raise on every batch that holds one of this share of rows, always the same ones."""

    share: float = 0.01


@dataclass(frozen=True, slots=True)
class Poison:
    """Records that are no events, in this proportion to events."""

    share: float = 0.01


@dataclass(frozen=True, slots=True)
class RefusedRecords:
    """The broker refuses this share of predictions, always the same ones."""

    share: float = 0.01


Fault = (
    Kill
    | SessionLost
    | Rebalance
    | BrokerDown
    | FeaturesDown
    | SlowModel
    | OutOfMemory
    | ModelRaises
    | Poison
    | RefusedRecords
)


def run(
    topology: Topology,
    events: Iterable[Event],
    faults: Sequence[Fault],
    *,
    seed: int = 0,
    rate: float = 1000.0,
    guarantee: Literal["at_least_once", "exactly_once"] = "at_least_once",
    models: Mapping[str, Model | StandIn] | None = None,
    repository: str | Path = "models",
    partitions: int = 4,
    prepare: Callable[[TopologyDriver], object] = lambda driver: None,
) -> Report:
    """Send events at a steady rate while faults strike; then let everything end, and count.

    The same arguments give the same report. The topology's functions and models must give equal answers to equal rows.

    Args:
        events: what `TopologyDriver.send` takes.
        rate: events a second, in virtual time.
        models, repository, partitions: as for `TopologyDriver`.
        prepare: makes a driver ready, by loading features for example; called for both of them.

    Raises:
        ConfigError: topology or models are wrong.
        StreamMLError: a worker would have stopped with this error, as at too many dead letters.
    """
    scene = _Scene(topology, faults, seed, guarantee, models_of(topology, models or {}, Path(repository)), partitions)
    sends = scene.sends(list(events), rate)
    quiet, struck = scene.driver(calm=True), scene.driver(calm=False)
    for driver in (quiet, struck):
        prepare(driver)
    _play(quiet, sends, [])
    quiet.settle()
    strikes = scene.strikes(len(sends) and sends[-1].at_s)
    _play(struck, sends, strikes)
    stuck = _settled(struck)
    counted = Counter(type(strike.fault).__name__ for strike in strikes)
    return compare(topology, quiet, struck, exactly_once=guarantee == "exactly_once", strikes=counted, stuck=stuck)


@dataclass(frozen=True, slots=True)
class _Sent:
    at_s: float
    event: Event
    partition: int


@dataclass(frozen=True, slots=True)
class _Strike:
    at_s: float
    fault: _Now


@dataclass(frozen=True, slots=True)
class _Scene:
    """What two drivers have in common, and what chance decides."""

    topology: Topology
    faults: Sequence[Fault]
    seed: int
    guarantee: Literal["at_least_once", "exactly_once"]
    models: Mapping[str, Model]
    partitions: int

    def sends(self, events: Sequence[Event], rate: float) -> list[_Sent]:
        """Events and poison, each with its time and partition."""
        dice = random.Random(f"{self.seed}:sends")  # noqa: S311
        share = sum(fault.share for fault in self.faults if isinstance(fault, Poison))
        found: list[_Sent] = []
        for number, event in enumerate(events):
            poison = [dice.choice(_POISON)] if dice.random() < share else []
            found += [_Sent(number / rate, one, dice.randrange(self.partitions)) for one in (event, *poison)]
        return found

    def strikes(self, until_s: float) -> list[_Strike]:
        """When what strikes."""
        found: list[_Strike] = []
        for place, fault in enumerate(self.faults):
            if isinstance(fault, _Now):
                dice, every_s = random.Random(f"{self.seed}:{place}"), seconds(fault.every)  # noqa: S311
                at_s = dice.uniform(0.5, 1.0) * every_s
                while at_s < until_s:
                    found.append(_Strike(at_s, fault))
                    at_s += dice.uniform(0.5, 1.5) * every_s
        return sorted(found, key=lambda strike: strike.at_s)

    def driver(self, *, calm: bool) -> TopologyDriver:
        """Rows that are refused, by a model or the broker, are refused in both; slowness and want of memory are faults."""
        raises = sum(fault.share for fault in self.faults if isinstance(fault, ModelRaises))
        rows = [fault.above_rows for fault in self.faults if isinstance(fault, OutOfMemory) and not calm]
        slow = [seconds(fault.takes) for fault in self.faults if isinstance(fault, SlowModel) and not calm]
        driver = TopologyDriver(
            self.topology,
            models={
                name: FailingModel(model, self._chosen(raises), min(rows, default=None))
                for name, model in self.models.items()
            },
            partitions=self.partitions,
            service_time=dict.fromkeys(self.models, lambda rows: sum(slow)),
            settings=WorkerSettings(processing_guarantee=self.guarantee),
        )
        share = sum(fault.share for fault in self.faults if isinstance(fault, RefusedRecords))
        if share:
            driver.broker.refuse(partial(self._refusal_of, self._chosen(share)))
        return driver

    def _refusal_of(self, refused: Callable[[bytes], bool], topic: str, record: RawRecord) -> str | None:
        mine = topic == self.topology.destination and refused(read_prediction(record).id.encode())
        return "It is refused on purpose." if mine else None

    def _chosen(self, share: float) -> Callable[[bytes], bool]:
        return lambda text: crc32(text, self.seed & 0xFFFFFFFF) < share * 2**32


def _play(driver: TopologyDriver, sends: Sequence[_Sent], strikes: Sequence[_Strike]) -> None:
    """Let everything happen at its time, to a hundredth of a second."""
    start, queue, left, ends = driver.clock.now(), list(sends), list(strikes), list[tuple[float, Callable[[], None]]]()
    queue.reverse()
    left.reverse()
    turn = 0
    while queue or ends:
        now_s = turn * _TURN_S
        while queue and queue[-1].at_s <= now_s:
            sent = queue.pop()
            driver.send(sent.event, partition=sent.partition, timestamp=int((start + sent.at_s) * 1000))
        while left and left[-1].at_s <= now_s:
            fault = left.pop().fault
            ends.append((now_s + seconds(fault.lasts), _struck(driver, fault)))
        for end in [one for one in ends if one[0] <= now_s]:
            ends.remove(end)
            end[1]()
        turn += 1
        driver.advance(max(0.0, start + turn * _TURN_S - driver.clock.now()))


def _struck(driver: TopologyDriver, fault: _Now) -> Callable[[], None]:
    """Do the harm; returns what ends it."""
    reason = f"{type(fault).__name__}, on purpose."
    match fault:
        case Kill():
            driver.crash()
        case SessionLost():
            driver.lose_session()
        case Rebalance():
            return driver.second_member()
        case BrokerDown():
            driver.broker.fail(reason)
            return driver.broker.recover
        case FeaturesDown():
            driver.store.fail(reason)
            driver.latest_store.fail(reason)
            return partial(_recover, driver)
    return lambda: None


def _recover(driver: TopologyDriver) -> None:
    driver.store.recover()
    driver.latest_store.recover()


def _settled(driver: TopologyDriver) -> str | None:
    """Why not everything has ended; ``None`` where it has."""
    try:
        driver.settle()
    except TimeoutError as error:
        return str(error)
    return None
