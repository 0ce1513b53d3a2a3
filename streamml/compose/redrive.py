"""A worker that scores dead letters again."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from streamml.adapters.kafka.admin import USUAL_MESSAGE_BYTES, KafkaAdmin
from streamml.adapters.synthetic.source import PreparedSource
from streamml.compose.assemble import Assembled, Ports, assemble
from streamml.compose.parts import Parts
from streamml.compose.stages import engine_config
from streamml.engine.assignment import SlotNames
from streamml.engine.pace import Pace
from streamml.errors import TopologyError
from streamml.ports.sink import Sink
from streamml.ports.source import RecordRun
from streamml.settings.settings import Settings
from streamml.stages.chosen import OnlyChosen
from streamml.telemetry.observer import Observer
from streamml.topology.topology import Topology


def compose_redrive(
    topology: Topology,
    parts: Parts,
    settings: Settings,
    runs: Sequence[RecordRun],
    chosen: Collection[str],
    topic_ids: Mapping[str, str],
    sink: Sink,
    worker: str,
    pace: Pace,
) -> Assembled:
    """A worker that scores these records, and ends nothing of them but what was chosen.

    Args:
        topology: as it is to score them; the dead-letter brake would only keep what failed before from being tried.
        runs: records of dead letters, at their original places.
        chosen: prediction ids.
        topic_ids: by topic, as the ids of the letters have them.

    Raises:
        TopologyError: the prediction topic is missing.
    """
    largest = USUAL_MESSAGE_BYTES if topology.sink.topic is None else _largest(topology.sink.topic, settings)
    names = SlotNames(dict(topic_ids))
    at_least_once = settings.worker.model_copy(update={"processing_guarantee": "at_least_once"})
    return assemble(
        topology,
        parts.models,
        settings,
        Ports(PreparedSource(runs), sink, parts.store),
        names,
        engine_config(topology, parts.models, at_least_once, worker),
        Observer(),
        max_prediction_bytes=largest,
        around=lambda operator: OnlyChosen(operator, chosen, names.prefixes),
        pace=pace,
    )


def _largest(topic: str, settings: Settings) -> int:
    topics = KafkaAdmin(settings.client()).topics([topic])
    if topic not in topics:
        raise TopologyError(f"There is no topic {topic!r}; `streamml topics create` makes it.")
    return topics[topic].max_message_bytes
