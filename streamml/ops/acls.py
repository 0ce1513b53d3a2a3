"""The least rights on Kafka and Redis that a topology's worker needs, and those of the tools around it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from streamml.adapters.redis.connection import Server
from streamml.adapters.redis.rights import KEEPING, LOADING, LOOKING_UP, READING, WATCHING, WRITING, least_rule
from streamml.compose.control import control_topic
from streamml.compose.group_topics import RIGHTS
from streamml.ops.replay.registry import replays_topic
from streamml.ops.replay.target import replay_prefix
from streamml.settings.settings import Settings
from streamml.topology.features import FeatureSet
from streamml.topology.steps import FeatureLookup
from streamml.topology.topology import Topology

Resource = Literal["topic", "group", "cluster", "transactional-id"]
Pattern = Literal["literal", "prefixed"]


@dataclass(frozen=True, slots=True)
class Right:
    """One ACL of Kafka that allows something.

    Args:
        principal: whom, as the broker spells it.
        operation: what, as ``READ``.
        resource, name: on what.
        pattern: whether ``name`` is the whole name, or what names begin with.
    """

    principal: str
    operation: str
    resource: Resource
    name: str
    pattern: Pattern = "literal"


@dataclass(frozen=True, slots=True)
class Rights:
    """What one purpose needs.

    Args:
        purpose: what for.
        needed: whether a worker does not start without it.
        why: for people.
        kafka: the ACLs.
        redis: the line for ``redis-cli``; ``None``: Redis has no part in it.
    """

    purpose: str
    needed: bool
    why: str
    kafka: tuple[Right, ...] = ()
    redis: str | None = None


def least_rights(
    topology: Topology, settings: Settings, user: str | None = None, *, cluster: bool = False
) -> list[Rights]:
    """The worker's rights first, then those that are only for some.

    Args:
        user: on Kafka and Redis; ``None``: the user name of SASL, or the topology's name.
        cluster: whether Redis is a cluster; it is, too, where the settings name several hosts of it.

    Raises:
        ConfigError: the URL of Redis is none.
    """
    name = user or str(settings.kafka.get("sasl.username") or topology.name)
    kafka = _OnKafka.of(topology, settings, f"User:{name}")
    redis = _OnRedis.of(topology, settings, name, cluster)
    why = "run, check --connect. Kafka derives DESCRIBE from READ and WRITE; it is listed for those that do not."
    worker = Rights("worker", True, why, kafka.worker(), redis.worker())
    return [worker, *kafka.some_workers(), *kafka.replays(), *kafka.people(), *redis.others()]


@dataclass(frozen=True, slots=True)
class _OnKafka:
    """What rights on Kafka are about.

    Args:
        logs: the topic of the feature log, if there is one.
        replays_prefix: what names of topics of replays begin with.
    """

    principal: str
    group: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    letters: str
    logs: tuple[str, ...]
    replays_prefix: str

    @staticmethod
    def of(topology: Topology, settings: Settings, principal: str) -> _OnKafka:
        return _OnKafka(
            principal,
            settings.group or topology.name,
            topology.source.topics,
            () if topology.sink.topic is None else (topology.sink.topic,),
            topology.dead_letters.topic,
            () if topology.feature_log is None else (topology.feature_log.topic,),
            replay_prefix(topology),
        )

    def worker(self) -> tuple[Right, ...]:
        """What none starts without."""
        return (
            *self._topics(self.inputs, "READ", "DESCRIBE"),
            *self._topics([*self.outputs, self.letters, *self.logs], "WRITE", "DESCRIBE"),
            *self._on("group", self.group, "READ"),
        )

    def some_workers(self) -> list[Rights]:
        """What some workers need besides."""
        return [
            Rights(
                "pause",
                False,
                "pause, resume, and workers that obey them and pause in a storm of dead letters; without it a storm ends a worker.",
                self._topics([control_topic(self.group)], *RIGHTS, "DESCRIBE"),
            ),
            Rights(
                "start checks",
                False,
                "whether dead letters fit into their topic, and how large a prediction may be; without it a worker warns.",
                self._topics(self._all, "DESCRIBE_CONFIGS"),
            ),
            Rights(
                "old brokers",
                False,
                "brokers before Kafka 2.8 only; later ones let whoever may write a topic do so idempotently.",
                self._on("cluster", "kafka-cluster", "IDEMPOTENT_WRITE"),
            ),
            Rights(
                "exactly once",
                False,
                'workers with processing_guarantee = "exactly_once", which write in transactions.',
                self._on("transactional-id", self.group, "WRITE", "DESCRIBE", pattern="prefixed"),
            ),
            Rights(
                "offsets",
                False,
                "for people who look at the group's positions, or reset them.",
                (*self._topics(self.inputs, "READ", "DESCRIBE"), *self._on("group", self.group, "READ", "DESCRIBE")),
            ),
        ]

    def replays(self) -> list[Rights]:
        """What people who replay need."""
        whole = ("CREATE", "READ", "WRITE", "DESCRIBE", "DESCRIBE_CONFIGS")
        return [
            Rights(
                "replay",
                False,
                "for people who replay: topics of a replay's own, its group, and the record of all replays.",
                (
                    *self._topics(self.inputs, "READ", "DESCRIBE"),
                    *self._topics([replays_topic(self.group)], *RIGHTS, "DESCRIBE"),
                    *self._on("topic", self.replays_prefix, *whole, pattern="prefixed"),
                    *self._on("group", self.group, "DESCRIBE"),
                    *self._on("group", f"{self.group}.replay.", "READ", "DESCRIBE", pattern="prefixed"),
                ),
            ),
            Rights(
                "replay diff, publish",
                False,
                "besides those of replay: to read what is live, and to write corrections; exactly once, or with a RedisSink, the "
                "worker's rights for that too.",
                (
                    *self._topics(self.outputs, "READ", "WRITE", "DESCRIBE", "DESCRIBE_CONFIGS"),
                    *self._topics([self.letters], "READ", "DESCRIBE", "DESCRIBE_CONFIGS"),
                ),
            ),
        ]

    def people(self) -> list[Rights]:
        """What people need who look, and who set up."""
        made = (*self._all, control_topic(self.group), replays_topic(self.group))
        found = [
            Rights(
                "dlq", False, "for people who look at dead letters.", self._topics([self.letters], "READ", "DESCRIBE")
            ),
            Rights(
                "topics create",
                False,
                "once, by whoever sets up; workers make no topic but the control topic, where they may.",
                self._topics(made, "CREATE", "DESCRIBE"),
            ),
        ]
        if self.logs:
            why = "replay with features as they were, and export; both read the topics of the topology besides."
            found.append(Rights("feature log", False, why, self._topics(self.logs, "READ", "DESCRIBE")))
        return found

    @property
    def _all(self) -> tuple[str, ...]:
        return (*self.inputs, *self.outputs, self.letters, *self.logs)

    def _topics(self, topics: Iterable[str], *operations: str) -> tuple[Right, ...]:
        return tuple(right for topic in topics for right in self._on("topic", topic, *operations))

    def _on(self, resource: Resource, name: str, *operations: str, pattern: Pattern = "literal") -> tuple[Right, ...]:
        return tuple(Right(self.principal, one, resource, name, pattern) for one in operations)


@dataclass(frozen=True, slots=True)
class _OnRedis:
    """What rights on Redis are about.

    Args:
        user: the worker's.
        sets: all feature sets of all lookups.
        latest: name of the latest predictions; ``None``: none are kept.
        database: number in the URL.
    """

    user: str
    sets: tuple[FeatureSet, ...]
    latest: str | None
    database: int
    cluster: bool

    @staticmethod
    def of(topology: Topology, settings: Settings, user: str, cluster: bool) -> _OnRedis:
        sets = tuple(one for step in topology.steps if isinstance(step, FeatureLookup) for one in step.sets)
        latest = None if topology.redis_sink is None else topology.redis_sink.name
        if not sets and latest is None:
            return _OnRedis(user, sets, latest, 0, cluster)
        server = Server(settings.redis.url, options=settings.redis.options)
        return _OnRedis(user, sets, latest, server.database, cluster or len(server.named) > 1)

    def worker(self) -> str | None:
        """The worker's rule, if it needs Redis."""
        watching = any(one.near_cache is not None for one in self.sets)
        commands = (
            *(READING if self.sets else ()),
            *(WATCHING if watching else ()),
            *(KEEPING if self.latest is not None else ()),
        )
        return self._rule("", self.sets, commands, self.latest) if commands else None

    def others(self) -> list[Rights]:
        """Users of their own: a rule begins with reset, and would take from the worker's user what that has."""
        found = []
        if self.sets:
            rule = self._rule("-loader", self.sets, LOADING)
            found.append(Rights("features", False, "load, versions, show, rollback, prune.", (), rule))
        if streaming := [one for one in self.sets if one.kind == "streaming"]:
            rule = self._rule("-writer", streaming, WRITING)
            found.append(Rights("feature writer", False, "writers of streaming sets (streamml.features).", (), rule))
        if self.latest is not None:
            rule = self._rule("-reader", (), LOOKING_UP, self.latest)
            found.append(Rights("latest reader", False, "readers of latest predictions (streamml.latest).", (), rule))
        return found

    def _rule(self, suffix: str, sets: Iterable[FeatureSet], commands: Sequence[str], latest: str | None = None) -> str:
        names = dict.fromkeys(one.name for one in sets)
        user = f"{self.user}{suffix}"
        return least_rule(user, names, commands, database=self.database, latest=latest, cluster=self.cluster)
