"""The least rights on Kafka and Redis that a topology's worker needs, and those of the tools around it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from streamml.adapters.redis.connection import Server
from streamml.adapters.redis.rights import KEEPING, LOADING, LOOKING_UP, READING, WATCHING, WRITING, least_rule
from streamml.compose.control import control_topic
from streamml.compose.group_topics import RIGHTS
from streamml.ops.replay.registry import replays_topic
from streamml.ops.replay.target import replay_prefix
from streamml.settings.settings import Settings
from streamml.topology.steps import FeatureLookup
from streamml.topology.topology import Topology

Resource = Literal["topic", "group", "cluster", "transactional-id"]


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
    pattern: Literal["literal", "prefixed"] = "literal"


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
    grant = _Grant(f"User:{name}")
    group = settings.group or topology.name
    inputs, letters = topology.source.topics, topology.dead_letters.topic
    outputs = [] if topology.sink.topic is None else [topology.sink.topic]
    control = control_topic(group)
    logs = [] if topology.feature_log is None else [topology.feature_log.topic]
    every = (*inputs, *outputs, letters, *logs)
    declared = [one for step in _lookups(topology) for one in step.sets]
    sets = list(dict.fromkeys(one.name for one in declared))
    kept = None if topology.redis_sink is None else topology.redis_sink.name
    server = Server(settings.redis.url, options=settings.redis.options) if sets or kept else None
    database = 0 if server is None else server.database
    cluster = cluster or (server is not None and len(server.named) > 1)
    near = any(one.near_cache is not None for one in declared)
    commands = (*(READING if sets else ()), *(WATCHING if near else ()), *(KEEPING if kept else ()))
    rule = least_rule(name, sets, commands, database=database, latest=kept, cluster=cluster) if commands else None
    found = [
        Rights(
            "worker",
            True,
            "run, check --connect. Kafka derives DESCRIBE from READ and WRITE; it is listed for those that do not.",
            (
                *grant(inputs, "READ", "DESCRIBE"),
                *grant([*outputs, letters, *logs], "WRITE", "DESCRIBE"),
                Right(grant.principal, "READ", "group", group),
            ),
            rule,
        ),
        Rights(
            "pause",
            False,
            "pause, resume, and workers that obey them and pause in a storm of dead letters; without it a storm ends a worker.",
            tuple(grant([control], *RIGHTS, "DESCRIBE")),
        ),
        Rights(
            "start checks",
            False,
            "whether dead letters fit into their topic, and how large a prediction may be; without it a worker warns.",
            tuple(grant(every, "DESCRIBE_CONFIGS")),
        ),
        Rights(
            "old brokers",
            False,
            "brokers before Kafka 2.8 only; later ones let whoever may write a topic do so idempotently.",
            (Right(grant.principal, "IDEMPOTENT_WRITE", "cluster", "kafka-cluster"),),
        ),
        Rights(
            "exactly once",
            False,
            'workers with processing_guarantee = "exactly_once", which write in transactions.',
            tuple(Right(grant.principal, one, "transactional-id", group, "prefixed") for one in ("WRITE", "DESCRIBE")),
        ),
        Rights(
            "offsets",
            False,
            "for people who look at the group's positions, or reset them.",
            (
                *grant(inputs, "READ", "DESCRIBE"),
                *(Right(grant.principal, one, "group", group) for one in ("READ", "DESCRIBE")),
            ),
        ),
        Rights(
            "replay",
            False,
            "for people who replay: topics of a replay's own, its group, and the record of all replays.",
            (
                *grant(inputs, "READ", "DESCRIBE"),
                *grant([replays_topic(group)], *RIGHTS, "DESCRIBE"),
                *(
                    Right(grant.principal, one, "topic", replay_prefix(topology), "prefixed")
                    for one in ("CREATE", "READ", "WRITE", "DESCRIBE", "DESCRIBE_CONFIGS")
                ),
                Right(grant.principal, "DESCRIBE", "group", group),
                *(Right(grant.principal, one, "group", f"{group}.replay.", "prefixed") for one in ("READ", "DESCRIBE")),
            ),
        ),
        Rights(
            "replay diff, publish",
            False,
            "besides those of replay: to read what is live, and to write corrections; exactly once, or with a RedisSink, the worker's "
            "rights for that too.",
            (
                *grant(outputs, "READ", "WRITE", "DESCRIBE", "DESCRIBE_CONFIGS"),
                *grant([letters], "READ", "DESCRIBE", "DESCRIBE_CONFIGS"),
            ),
        ),
        Rights("dlq", False, "for people who look at dead letters.", tuple(grant([letters], "READ", "DESCRIBE"))),
        Rights(
            "topics create",
            False,
            "once, by whoever sets up; workers make no topic but the control topic, where they may.",
            tuple(grant((*every, control, replays_topic(group)), "CREATE", "DESCRIBE")),
        ),
    ]
    if logs:
        why = "replay with features as they were, and export; both read the topics of the topology besides."
        found.append(Rights("feature log", False, why, tuple(grant(logs, "READ", "DESCRIBE"))))
    if sets:
        # A user of its own: the line begins with reset, and would take from the worker's user what that has.
        rule = least_rule(f"{name}-loader", sets, LOADING, database=database, cluster=cluster)
        found.append(Rights("features", False, "load, versions, show, rollback, prune.", (), rule))
    if streaming := list(dict.fromkeys(one.name for one in declared if one.kind == "streaming")):
        rule = least_rule(f"{name}-writer", streaming, WRITING, database=database, cluster=cluster)
        found.append(Rights("feature writer", False, "writers of streaming sets (streamml.features).", (), rule))
    if kept:
        rule = least_rule(f"{name}-reader", (), LOOKING_UP, database=database, latest=kept, cluster=cluster)
        found.append(Rights("latest reader", False, "readers of latest predictions (streamml.latest).", (), rule))
    return found


def _lookups(topology: Topology) -> Iterator[FeatureLookup]:
    return (step for step in topology.steps if isinstance(step, FeatureLookup))


@dataclass(frozen=True, slots=True)
class _Grant:
    principal: str

    def __call__(self, topics: Iterable[str], *operations: str) -> Iterator[Right]:
        return (Right(self.principal, one, "topic", topic) for topic in topics for one in operations)
