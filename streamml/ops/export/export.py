"""Exports a stretch, piece by piece, so that whoever is killed goes on at the piece that was not done."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

from streamml.adapters.kafka.admin import KafkaAdmin
from streamml.adapters.kafka.feature_log import RecordedOnKafka
from streamml.clock import SystemClock
from streamml.compose.recorded import feature_log_of, log_problems
from streamml.errors import ConfigError, FatalError
from streamml.ops.export.arrow import parquet_file, schema_of
from streamml.ops.export.joining import Labels, Part, join
from streamml.ops.export.manifest import Manifest, opened
from streamml.ops.export.staging import LABEL, Piece, Staging, event_columns, prediction_schema, wider
from streamml.ops.replay.replay import Span
from streamml.ops.replay.span import Asked, find_spans
from streamml.ports.source import TopicPartition
from streamml.schema.contract import Contract
from streamml.settings.settings import Settings
from streamml.topology.duration import seconds
from streamml.topology.topology import Topology

_EVENTS: Final = 50_000
_OTHERS: Final = 200_000
_MOST_WITHIN_S: Final = 100 * 365 * 86_400
Tell = Callable[[str, int, int], None]
"""Hears of progress: what is done, how many pieces of it, of how many."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be exported.

    Args:
        range: of the input.
        labels: topic of labels, whose records are keyed by ``label_key`` and have JSON objects for values; ``None``: none.
        label_key: field of the event or the prediction.
        within: how long after an event its label may come, as ``"6h"``.
        predictions: the highest revision of each, or only live ones.
    """

    range: Asked
    labels: str | None = None
    label_key: str | None = None
    within: str | None = None
    predictions: Literal["highest", "live"] = "highest"


@dataclass(frozen=True, slots=True)
class Exported:
    """What was exported.

    Args:
        rows: in all files: one for each prediction, and one for each event without any.
        events: that were decoded.
        left_out: records that could not be decoded, or had no value.
        predictions, features: that were read; of predictions each revision counts.
        labels: that were read.
        files: of the result.
        notes: what is missing, for people.
        again: whether it was finished before, so that nothing was done.
    """

    folder: str
    rows: int
    events: int
    left_out: int
    predictions: int
    features: int
    labels: int
    files: int
    notes: tuple[str, ...]
    again: bool


def export(topology: Topology, settings: Settings, request: Request, folder: Path, tell: Tell) -> Exported:
    """Write Parquet files under ``folder``, or go on with what an earlier process has left there.

    Raises:
        ConfigError: what was asked for cannot be; with every problem. Nothing was written, or nothing more.
        SourceUnavailable: the broker does not answer; the same call goes on.
        FatalError: the disk is full, or this client may not read a topic; the same call goes on.
    """
    _require_libraries()
    import duckdb

    _check(topology, request)
    asked = {**asdict(request), "topology": topology.name, "columns": _columns(topology)}
    # As a manifest gives it back.
    asked["range"]["partitions"] = list(request.range.partitions)
    with opened(folder, asked) as manifest:
        if manifest.finished:
            return _summary(manifest, (), again=True)
        work = _Export(topology, settings, request, manifest, tell)
        try:
            return work.run()
        except (OSError, duckdb.IOException, duckdb.OutOfMemoryException) as error:
            why = error.strerror if isinstance(error, OSError) and error.strerror else error
            raise FatalError(f"{folder} could not be written: {why}. Make room; the same command goes on.") from error


class _Export:
    def __init__(
        self, topology: Topology, settings: Settings, request: Request, manifest: Manifest, tell: Tell
    ) -> None:
        self._topology = topology
        self._settings = settings
        self._request = request
        self._manifest = manifest
        self._tell = tell
        self._staging = Staging(settings.consumer())
        self._admin = KafkaAdmin(settings.client())
        self._notes: list[str] = []

    def run(self) -> Exported:
        manifest = self._manifest
        if not manifest.spans:
            found = find_spans(
                self._topology.source, self._settings, self._request.range, int(SystemClock().now() * 1000)
            )
            manifest.spans, manifest.topic_ids = found.spans, dict(found.topic_ids)
        self._check_topics()
        manifest.save()
        self._events()
        self._features()
        self._predictions()
        self._labels()
        self._join()
        manifest.finished = True
        manifest.save()
        shutil.rmtree(manifest.work, ignore_errors=True)
        return _summary(manifest, tuple(self._notes), again=False)

    def _check_topics(self) -> None:
        named = [one for one in (self._topology.sink.topic, self._request.labels) if one]
        found = self._admin.topics([*self._manifest.topic_ids, *named])
        problems = [
            f"The topic {name!r} was deleted or made anew since the export began; export what is there into another folder."
            for name, topic_id in self._manifest.topic_ids.items()
            if name not in found or found[name].id != topic_id
        ]
        problems += [f"There is no topic {name!r} on {self._settings.brokers}." for name in named if name not in found]
        if problems:
            raise ConfigError(problems)

    def _pieces(self) -> Iterator[tuple[int, Span]]:
        """Spans in pieces, each with the number of its span."""
        for number, span in enumerate(self._manifest.spans):
            for first in range(span.start, span.end, _EVENTS):
                yield number, Span(span.topic, span.partition, first, min(first + _EVENTS, span.end))

    def _do(self, kind: str, pieces: list[tuple[Piece, Callable[[Piece], dict[str, Any]]]]) -> None:
        for done, (piece, make) in enumerate(pieces):
            self._tell(kind, done, len(pieces))
            if piece.path.stem not in self._manifest.done:
                self._manifest.finish(piece.path.stem, make(piece))
        self._tell(kind, len(pieces), len(pieces))

    def _piece(self, kind: str, where: TopicPartition, start: int, end: int) -> Piece:
        name = f"{kind}-{where.topic}-{where.partition}-{start}.parquet"
        return Piece(where, start, end, self._manifest.work / name)

    def _of_span(self, kind: str, span: Span) -> Piece:
        return self._piece(kind, TopicPartition(span.topic, span.partition), span.start, span.end)

    def _events(self) -> None:
        source = self._topology.source
        pieces = [self._of_span("events", span) for _, span in self._pieces()]
        self._do("events", [(piece, lambda one: self._staging.events(one, source)) for piece in pieces])

    def _features(self) -> None:
        if self._topology.feature_log is None:
            self._notes.append("The topology has no feature_log, so there are no feature columns.")
            return
        log = feature_log_of(self._topology, self._settings)
        stretches = {TopicPartition(one.topic, one.partition): (one.start, one.end) for one in self._manifest.spans}
        self._notes += log_problems(self._topology, self._settings, stretches, self._manifest.topic_ids)
        columns = self._topology.feature_columns
        with closing(RecordedOnKafka(log)) as recorded:

            def read(piece: Piece) -> dict[str, Any]:
                since = self._event_facts(piece)["first_ms"]
                return self._staging.features(piece, recorded, f"{self._prefix(piece.where)}/", columns, since or 0)

            self._do("features", [(self._of_span("features", span), read) for _, span in self._pieces()])

    def _event_facts(self, piece: Piece) -> dict[str, Any]:
        return self._manifest.done[piece.path.stem.replace("features", "events", 1)]

    def _prefix(self, where: TopicPartition) -> str:
        return f"{self._manifest.topic_ids[where.topic]}/{where.partition}"

    def _predictions(self) -> None:
        sink = self._topology.sink
        spans = {
            self._prefix(TopicPartition(span.topic, span.partition)): (number, span.start, span.end)
            for number, span in enumerate(self._manifest.spans)
        }
        with parquet_file(self._manifest.work / "predictions-none.parquet", prediction_schema(sink)):
            pass
        if sink.topic is None:
            self._notes.append("Predictions are in Redis alone, so the columns of predictions are empty.")
            return
        pieces = self._read_since("predictions", sink.topic)
        self._do("predictions", [(one, lambda one: self._staging.predictions(one, sink, spans)) for one in pieces])

    def _labels(self) -> None:
        request = self._request
        if request.labels is None or request.within is None:
            return
        with parquet_file(self._manifest.work / "labels-none.parquet", schema_of(LABEL)):
            pass
        last = max((one["last_ms"] or 0 for one in self._manifest.facts("events")), default=0)
        until = last + round(seconds(request.within) * 1000)
        pieces = self._read_since("labels", request.labels)
        self._do("labels", [(one, lambda one: self._staging.labels(one, until)) for one in pieces])

    def _read_since(self, kind: str, topic: str) -> list[Piece]:
        """Pieces of a topic from the time of the first event to what is there when this is asked for first."""
        bounds = self._manifest.bounds
        if topic not in bounds:
            firsts = [one["first_ms"] for one in self._manifest.facts("events") if one["first_ms"] is not None]
            partitions = self._admin.topics([topic])[topic].partitions
            bounds[topic] = self._staging.bounds(topic, partitions, min(firsts, default=0))
            self._manifest.save()
        return [
            self._piece(kind, TopicPartition(topic, int(number)), start, min(start + _OTHERS, high))
            for number, (low, high) in bounds[topic].items()
            for start in range(low, high, _OTHERS)
        ]

    def _join(self) -> None:
        pieces = [(self._part(number, span), span) for number, span in self._pieces()]
        for done, (part, span) in enumerate(pieces):
            self._tell("rows", done, len(pieces))
            name = f"rows-{span.topic}-{span.partition}-{span.start}"
            if name not in self._manifest.done:
                part.path.parent.mkdir(parents=True, exist_ok=True)
                live_only = self._request.predictions == "live"
                rows = join(part, self._manifest.work, live_only=live_only, labels=self._how_labelled())
                self._manifest.finish(name, {"rows": rows})
        self._tell("rows", len(pieces), len(pieces))

    def _part(self, number: int, span: Span) -> Part:
        folder = self._manifest.folder / f"topic={span.topic}" / f"partition={span.partition}"
        events = self._of_span("events", span)
        facts = self._manifest.done[events.path.stem]
        times = None if facts["first_ms"] is None else (facts["first_ms"], facts["last_ms"])
        features = None if self._topology.feature_log is None else self._of_span("features", span).path
        path = folder / f"{span.start:020}-{span.end:020}.parquet"
        return Part(number, span, events.path, features, path, times)

    def _how_labelled(self) -> Labels | None:
        request = self._request
        if request.labels is None or request.label_key is None or request.within is None:
            return None
        kinds: dict[str, str] = {}
        for one in self._manifest.facts("labels"):
            for name, kind in one["kinds"].items():
                kinds[name] = wider(kinds.get(name), kind)
        of_event = request.label_key in event_columns(self._topology.source)
        column = f"{'event' if of_event else 'prediction'}.{request.label_key}"
        return Labels(column, round(seconds(request.within) * 1000), kinds)


def _require_libraries() -> None:
    try:
        import duckdb  # noqa: F401
        import pyarrow  # noqa: F401
    except ImportError:
        raise ConfigError("An export needs pyarrow and DuckDB: pip install streamml[replay]") from None


def _check(topology: Topology, request: Request) -> None:
    problems: list[str] = []
    given = [one for one in (request.labels, request.label_key, request.within) if one is not None]
    if given and len(given) < 3:
        problems.append("Labels need all of --labels TOPIC, --label-key FIELD and --within DURATION.")
    fields = {*event_columns(topology.source), *Contract.of(topology.sink.schema).columns}
    if request.label_key is not None and request.label_key not in fields:
        problems.append(
            f"--label-key {request.label_key!r} is no field of an event or a prediction; there are {', '.join(sorted(fields))}."
        )
    try:
        if request.within is not None and seconds(request.within) > _MOST_WITHIN_S:
            problems.append(f"--within {request.within} is longer than a hundred years.")
    except ValueError as error:
        problems.append(f"--within: {error}")
    if problems:
        raise ConfigError(problems)


def _columns(topology: Topology) -> dict[str, str]:
    """Every column that comes from the topology, by which a later process knows that it is the same."""
    prediction = Contract.of(topology.sink.schema).columns
    logged = {} if topology.feature_log is None else topology.feature_columns
    named = {"event": event_columns(topology.source), "feature": logged, "prediction": prediction}
    return {f"{kind}.{name}": str(one) for kind, columns in named.items() for name, one in columns.items()}


def _summary(manifest: Manifest, notes: tuple[str, ...], *, again: bool) -> Exported:
    def total(kind: str, fact: str = "rows") -> int:
        return sum(one[fact] for one in manifest.facts(kind))

    return Exported(
        folder=str(manifest.folder),
        rows=total("rows"),
        events=total("events"),
        left_out=total("events", "left_out"),
        predictions=total("predictions"),
        features=total("features"),
        labels=total("labels"),
        files=len(manifest.facts("rows")),
        notes=notes,
        again=again,
    )
