"""From the stream to a training set: inputs at training are the inputs that the model had, bit for bit."""

from __future__ import annotations

import json
import time
import uuid
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from confluent_kafka import Producer

import streamml as sm
from streamml.compose.locate import Located
from streamml.errors import ConfigError
from streamml.features import FeatureWriter
from streamml.ops.embedded.kafka import EmbeddedKafka
from streamml.ops.embedded.redis import EmbeddedRedis
from streamml.ops.export.export import Request, export
from streamml.ops.export.read import Rows, read_export
from streamml.ops.features import load_file
from streamml.ops.replay.span import Asked
from streamml.ops.run import RunOptions, StopSignal, run
from streamml.ops.topics import create_topics
from streamml.ports.feature_log import LoggedRows
from streamml.settings.settings import RedisSettings, Settings
from topologies.flight_delay import stream, train
from topologies.flight_delay.arrivals import Arrivals, recent_tables
from topologies.flight_delay.data import load_flights
from topologies.flight_delay.features import Table
from topologies.flight_delay.recorded import Recorded
from topologies.flight_delay.topology import FEATURE_SETS, model_inputs
from topologies.flight_delay.topology import topology as flight_delay

pytestmark = pytest.mark.integration
FLIGHTS = 600
HOUR_MS = 3_600_000


def recording(seen: dict[str, np.ndarray[Any, Any]]) -> sm.Transform:
    """The topology's own step, whose answers are kept."""
    step = flight_delay.steps[1]
    assert isinstance(step, sm.Transform)

    def inputs(columns: dict[str, Any]) -> dict[str, Any]:
        made = model_inputs(columns)
        seen.update(zip(columns["flight_id"].tolist(), made["x"].copy(), strict=True))
        return made

    return sm.Transform(inputs, inputs=(*step.inputs, "flight_id"), outputs=step.outputs, name="model_inputs")


def own(seen: dict[str, np.ndarray[Any, Any]], name: str) -> sm.Topology:
    """The topology under names of its own, with a feature log."""
    steps = (flight_delay.steps[0], recording(seen), *flight_delay.steps[2:])
    source = replace_topics(flight_delay.source, f"{name}.in")
    return replace(
        flight_delay,
        name=name,
        source=source,
        steps=steps,
        sink=flight_delay.sink.into(f"{name}.out"),
        dead_letters=replace(flight_delay.dead_letters, topic=f"{name}.dlq"),
        feature_log=sm.FeatureLog(f"{name}.features"),
    )


def replace_topics(source: sm.Source, topic: str) -> sm.Source:
    return sm.Source(topic, schema=source.schema, start=source.start, event_time=source.event_time)


def write(settings: Settings, topic: str, records: list[tuple[bytes, bytes, int]]) -> None:
    producer = Producer({"bootstrap.servers": settings.brokers, "partitioner": "murmur2_random"})
    for key, value, moment in records:
        producer.produce(topic, value, key, timestamp=moment)
    assert producer.flush(30) == 0


@pytest.fixture(scope="module")
def flights() -> stream.Stream:
    return stream.prepare(FLIGHTS)


def written_until(arrivals: Arrivals, moment: np.datetime64) -> dict[str, Table]:
    """What Redis holds of recent arrivals at a moment: the last value of each entity."""
    made = recent_tables(arrivals.take(arrivals.arrived_at <= moment))
    last = {}
    for name, table in made.items():
        (entity,) = table.key.values()
        rows = np.append(entity[1:] != entity[:-1], True)
        columns = {column: values[rows] for column, values in table.columns.items()}
        last[name] = Table(dict.fromkeys(table.key, entity[rows]), table.event_time[rows], columns)
    return last


def put(flights: stream.Stream, recent: dict[str, Table], folder: Path, url: str) -> None:
    sets = {one.name: one for one in FEATURE_SETS}
    for name, path in flights.write_features(folder):
        load_file(path, sets[name].schema, sets[name].key, url=url)
    for name, table in recent.items():
        with FeatureWriter(sets[name], url=url) as writer:
            writer.write({**table.key, "event_time": table.event_time, **table.columns})


def logged(part: Rows) -> LoggedRows:
    """An export's rows as the feature log has them."""
    texts, text = np.unique(part.table.column("feature_flags").to_pylist(), return_inverse=True)
    return LoggedRows(np.arange(len(part)), None, text, tuple(texts.tolist()), dict(part.columns))


def test_inputs_at_training_and_at_serving_are_equal(
    kafka: EmbeddedKafka, redis_server: EmbeddedRedis, tmp_path: Path, flights: stream.Stream
) -> None:
    """F5.4. The join of training treats recent arrivals as Redis does, too: what is newer than a departure, or too old, gives defaults."""
    seen: dict[str, np.ndarray[Any, Any]] = {}
    settings = Settings(brokers=kafka.bootstrap_servers, redis=RedisSettings(url=redis_server.url))
    topology = own(seen, f"flights-{uuid.uuid4().hex[:8]}")
    labelled = replace(topology, source=replace_topics(topology.source, f"{topology.name}.labels"))
    for one in (topology, labelled):
        create_topics(one, settings, 2, 1)
    chosen = load_flights().in_months(stream.MONTHS).take(np.arange(FLIGHTS))
    recent = written_until(flights.arrivals, chosen.departed_at[FLIGHTS // 2])
    put(flights, recent, tmp_path, redis_server.url)
    expected = stream.expected_probabilities(chosen, {**flights.tables, **recent})
    judge = Recorded(chosen, flights.tables, flights.arrivals)
    assert 0.1 < (expected != flights.expected).mean() < 0.9
    # Younger than what retention removes.
    start = int(time.time() * 1000) - 3 * HOUR_MS
    times = [start + place * 1000 for place in range(FLIGHTS)]
    write(settings, topology.source.topics[0], list(zip(flights.keys, flights.values, times, strict=True)))
    labels = [
        (id.encode(), json.dumps({"arrival_delay": flights.truth[id]}).encode(), moment + HOUR_MS)
        for id, moment in zip(flights.flight_ids, times, strict=True)
        if id in flights.truth
    ]
    write(settings, labelled.source.topics[0], labels)
    folder = Path("topologies/flight_delay").absolute()
    summary = run(Located(topology, folder), settings, RunOptions(until_caught_up=True, patience_s=30), StopSignal())
    assert (summary["predictions"], len(seen)) == (FLIGHTS, FLIGHTS)

    behind = datetime.fromtimestamp(times[-1] / 1000 + 1, UTC)
    asked = Asked("0", behind.isoformat())
    request = Request(asked, labelled.source.topics[0], "flight_id", "6h")
    done = export(topology, settings, request, tmp_path / "out", lambda *told: None)
    parts = list(read_export(tmp_path / "out", topology))

    assert (done.rows, done.features, done.notes) == (FLIGHTS, FLIGHTS, ())
    ids = [id for part in parts for id in part.columns["flight_id"].tolist()]
    inputs = np.concatenate([model_inputs(dict(part.columns))["x"] for part in parts])
    assert sorted(ids) == sorted(seen)
    assert inputs.tobytes() == np.stack([seen[id] for id in ids]).tobytes()
    predicted = {row["event.flight_id"]: row for part in parts for row in part.table.to_pylist()}
    for place, id in enumerate(flights.flight_ids):
        assert predicted[id]["prediction.late_probability"] == pytest.approx(expected[place], abs=1e-4)
        assert predicted[id]["label.arrival_delay"] == flights.truth.get(id)

    for part in parts:
        rows = [flights.flight_ids.index(id) for id in part.columns["flight_id"]]
        assert judge.expected(np.array(rows), logged(part)) == pytest.approx(expected[rows], abs=1e-4)

    x, delay = train.inputs_and_truth_of_export(tmp_path / "out")
    assert len(x) == len(flights.truth)
    assert sorted(map(bytes, x)) == sorted(bytes(seen[id]) for id in flights.truth)
    assert sorted(delay.tolist()) == sorted(np.array(list(flights.truth.values()), np.float32).tolist())


def test_a_folder_without_an_export_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no export"):
        train.inputs_and_truth_of_export(tmp_path)
