"""The faults, and when they strike. A schedule follows from its seed alone."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Any, Final, Literal

from loadtests.baseline.load import ACCOUNTS
from loadtests.faults.stream import BAD_ROWS, POISON
from loadtests.faults.world import World
from streamml.adapters.redis.catalogue import unpack_pointer
from streamml.adapters.redis.connection import Server, pack
from streamml.adapters.redis.keys import entity_keys, entity_prefix, pointer_key
from streamml.adapters.redis.nodes import Nodes

MOST_PARTITIONS: Final = 8
_POPULAR: Final = 300
_AT_FULL_PACE: Final = 3


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that goes wrong.

    Args:
        does: in words.
        every_s: bounds of the time from one strike to the next; ``None``: from the beginning to the end.
        strike: does the harm, and ends it; leaves early when the run is over.
        redis: which Redis it needs, if any.
    """

    name: str
    does: str
    every_s: tuple[float, float] | None
    strike: Callable[[World, random.Random], None]
    redis: Literal["alone", "clustered", "any"] = "any"

    def fits(self, *, cluster: bool) -> bool:
        """Whether it can strike a run with such a Redis."""
        return self.redis in ("any", "clustered" if cluster else "alone")


@dataclass(frozen=True, slots=True)
class Strike:
    """One entry of a schedule.

    Args:
        seed: of what the strike leaves to chance.
    """

    at_s: float
    fault: Fault
    seed: int


def schedule(faults: Sequence[Fault], seconds: float, seed: int) -> list[Strike]:
    """When what strikes. In company each fault comes more rarely, so that there is time to do something in between."""
    pace = max(1.0, sum(fault.every_s is not None for fault in faults) / _AT_FULL_PACE)
    strikes: list[Strike] = []
    for fault in faults:
        dice = random.Random(f"{seed}:{fault.name}")
        at_s = 0.0 if fault.every_s is None else 1.0 + pace * dice.uniform(0.0, fault.every_s[0])
        while at_s < seconds:
            strikes.append(Strike(round(at_s, 3), fault, dice.getrandbits(32)))
            at_s = seconds if fault.every_s is None else at_s + pace * dice.uniform(*fault.every_s)
    return sorted(strikes, key=lambda strike: strike.at_s)


def kill(world: World, dice: random.Random) -> None:
    dice.choice(world.crew.slots).send(signal.SIGKILL)


def sigterm(world: World, dice: random.Random) -> None:
    """Once: they drain and leave. Again: they end at once."""
    for _ in range(dice.randint(1, 3)):
        for slot in world.crew.slots:
            slot.send(signal.SIGTERM)
        world.over.wait(dice.uniform(0.0, 0.5))


def zombie(world: World, dice: random.Random) -> None:
    """Stopped for longer than its session, so that its partitions are somebody else's when it wakes."""
    slot = dice.choice(world.crew.slots)
    slot.send(signal.SIGSTOP)
    world.over.wait(world.shape.session_s + dice.uniform(1.0, 4.0))
    slot.send(signal.SIGCONT)


def broker(world: World, dice: random.Random) -> None:
    with world.broker_lock:
        world.kafka.kill()
        world.over.wait(dice.uniform(0.0, 3.0))
        world.kafka.start()


def redis(world: World, dice: random.Random) -> None:
    with world.redis_lock:
        world.redis.kill()
        world.over.wait(dice.uniform(0.0, 3.0))
        world.redis.start()


def redis_node(world: World, dice: random.Random) -> None:
    """One master at a time: its replica takes over, and it comes back, empty, as a replica."""
    cluster = world.cluster
    with world.redis_lock:
        victim = dice.choice([node for node in cluster.nodes if node.is_master])
        world.judge.may_lose(world.accounts_of(victim))
        cluster.lose(victim)
        world.over.wait(dice.uniform(0.0, 3.0))
        cluster.bring_back(victim)


def writer(world: World, dice: random.Random) -> None:
    """It is started again at once, and killed again for up to 10 s, so that values become stale."""
    end = time.monotonic() + dice.uniform(0.0, 10.0)
    world.writer.send(signal.SIGKILL)
    while time.monotonic() < end and not world.over.wait(0.2):
        world.writer.send(signal.SIGKILL)


def redis_slow(world: World, dice: random.Random) -> None:
    """Late replies, often later than a worker waits, or one that ends in its middle."""
    if dice.random() < 0.3:
        world.proxy.cut()
        return
    world.proxy.delay_s = dice.choice((0.05, 0.3, 0.9, 1.5))
    world.over.wait(dice.uniform(1.0, 3.0))
    world.proxy.delay_s = 0.0


def redis_wrong(world: World, dice: random.Random) -> None:
    """Values of the wrong length, format or schema under the keys of popular accounts, for a while."""
    accounts = dice.sample(range(_POPULAR), 40) + dice.sample(range(ACCOUNTS), 40)
    with world.redis_lock, closing(Nodes(Server(world.redis_url))) as nodes:
        version = unpack_pointer(nodes.call(pointer_key("account"), "GET", pointer_key("account"))).version
        keys = entity_keys(entity_prefix("account", version), [(b"%d" % account,) for account in accounts])
        right: list[Any] = list(nodes.mget(keys))
        world.judge.spoil(accounts)
        _put(nodes, keys, [_spoilt(value, dice) for value in right])
        world.over.wait(dice.uniform(1.0, 4.0))
        _put(nodes, keys, right)
        if world.shape.cluster:
            world.cluster.copied()
        world.judge.mend(accounts)


def _put(nodes: Nodes, keys: list[bytes], values: list[bytes]) -> None:
    nodes.exchange(keys, [pack("SET", key, value) for key, value in zip(keys, values, strict=True)])


def _spoilt(value: bytes, dice: random.Random) -> bytes:
    return dice.choice(
        (
            b"",
            value[:1],
            value[:-1],
            value + b"\0",
            value[:40],
            b"XXXX" + value[4:],
            value[:4] + b"\0\0\0\0" + value[8:],
        )
    )


def poison(world: World, dice: random.Random) -> None:
    world.feeder.kinds += tuple(POISON)


def bad_rows(world: World, dice: random.Random) -> None:
    world.feeder.kinds += tuple(BAD_ROWS)


def hang(world: World, dice: random.Random) -> None:
    world.hang_file.touch()
    world.over.wait(dice.uniform(1.0, 6.0))
    world.hang_file.unlink()


def clock(world: World, dice: random.Random) -> None:
    """The workers' clocks jump, and those of the producers by something else; later they jump back."""
    world.clock_file.write_text(str(dice.choice((-86_400, -600, 600, 86_400))))
    # Kafka takes no record from more than an hour ahead.
    world.feeder.ahead_s = dice.choice((-86_400, -600, 600, 3000))
    world.over.wait(dice.uniform(2.0, 5.0))
    world.feeder.ahead_s = 0
    world.clock_file.unlink()


def churn(world: World, dice: random.Random) -> None:
    """One more worker, or one less; never fewer than the run began with."""
    slots = world.crew.slots
    if len(slots) > world.shape.workers:
        world.crew.dismiss(dice.choice(slots))
    else:
        world.crew.hire()


def partitions(world: World, dice: random.Random) -> None:
    from confluent_kafka.admin import AdminClient, NewPartitions  # type: ignore[attr-defined]

    from streamml.adapters.kafka.client import opened

    topic = world.topology.source.topics[0]
    with world.broker_lock:
        client = opened(AdminClient, world.client)
        count = len(client.list_topics(topic, timeout=10).topics[topic].partitions)
        if count < MOST_PARTITIONS:
            client.create_partitions([NewPartitions(topic, count + 1)])[topic].result(10)
            world.judge.follow(topic, [count])


def disk_full(world: World, dice: random.Random) -> None:
    """No room under the broker for a while; Kafka ends itself then, and is started again when there is room."""
    if world.disk is None:
        return
    with world.broker_lock:
        filler = world.disk / "filler"
        with suppress(OSError), filler.open("wb", buffering=0) as file:
            while file.write(bytes(1 << 20)):
                pass
        world.over.wait(dice.uniform(3.0, 6.0))
        filler.unlink()
        world.kafka.kill()
        world.kafka.start()


FAULTS: Final = {
    fault.name: fault
    for fault in (
        Fault("kill", "kill −9 of a worker", (1.0, 3.0), kill),
        Fault("sigterm", "SIGTERM to all workers, up to three times within a second", (6.0, 10.0), sigterm),
        Fault("zombie", "SIGSTOP of a worker for longer than its session, then SIGCONT", (14.0, 18.0), zombie),
        Fault("broker", "kill −9 of the broker, started again after up to 3 s", (12.0, 20.0), broker),
        Fault("redis", "kill −9 of Redis, started again after up to 3 s", (8.0, 14.0), redis, "alone"),
        Fault(
            "redis_node",
            "kill −9 of a master of the cluster, which comes back as a replica",
            (12.0, 18.0),
            redis_node,
            "clustered",
        ),
        Fault("writer", "kill −9 of the writer of fast features, again and again for up to 10 s", (14.0, 22.0), writer),
        Fault("redis_slow", "replies of Redis come late or end in the middle", (5.0, 9.0), redis_slow, "alone"),
        Fault("redis_wrong", "values of wrong length, format or schema under 80 keys", (5.0, 9.0), redis_wrong),
        Fault("poison", f"one record in a hundred of each of {len(POISON)} kinds that are no events", None, poison),
        Fault(
            "bad_rows",
            "one event in a hundred makes the job's function raise, one the model answer NaN, one needs more memory than there is",
            None,
            bad_rows,
        ),
        Fault("hang", "the job's function does not come back for 1 to 6 s", (9.0, 14.0), hang),
        Fault("clock", "the workers' and the producer's clocks jump by minutes or a day, and back", (8.0, 12.0), clock),
        Fault("churn", "a worker more, then a worker less", (2.0, 2.0), churn),
        Fault(
            "partitions", f"the input topic gets a partition more, up to {MOST_PARTITIONS}", (12.0, 20.0), partitions
        ),
        Fault("disk_full", "no room under the broker's folder for 3 to 6 s", (25.0, 35.0), disk_full),
    )
}
