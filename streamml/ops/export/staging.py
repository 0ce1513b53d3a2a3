"""The parts of an export, each read from its topic into files that can be joined."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

from streamml.adapters.codecs.json import json_decoder
from streamml.adapters.kafka.client import headers_of
from streamml.adapters.kafka.feature_log import RecordedOnKafka
from streamml.adapters.kafka.stretch import StretchReader
from streamml.batch.column import Array, ColumnType, object_array
from streamml.engine.identity import HEADER, Provenance, read_header
from streamml.ops.export.arrow import arrow_column, parquet_file, schema_of
from streamml.ports.codec import Decoder
from streamml.ports.source import TopicPartition
from streamml.schema.contract import Contract
from streamml.topology.topology import RedisSink, Sink, Source

if TYPE_CHECKING:
    import pyarrow as pa

Facts = dict[str, Any]
_FEATURE_ROWS: Final = 4096
_INT64: Final = 2**63
_ANY_SIZE: Final = 2**40

EVENT: Final = {"offset": "int64", "time": "timestamp[us]"}
FEATURES: Final = {"offset": "int64", "child": "int64", "feature_flags": "string"}
PREDICTION: Final = {
    "span": "int64",
    "offset": "int64",
    "child": "int64",
    "id": "string",
    "model": "string",
    "revision": "int64",
    "flags": "string",
    "place": "int64",
}
LABEL: Final = {"key": "string", "time": "timestamp[us]", "place": "int64", "value": "string"}


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of one partition, read into one file."""

    where: TopicPartition
    start: int
    end: int
    path: Path


class Staging:
    """Reads pieces; all methods raise `SourceUnavailable` where the broker does not answer, and `OffsetOutOfRange` where
    retention was faster."""

    def __init__(self, client: Mapping[str, Any]) -> None:
        """
        Args:
            client: librdkafka properties of a consumer.
        """
        self._client = client

    def events(self, piece: Piece, source: Source) -> Facts:
        """Records that can be decoded, with their times; the others are counted. Secret fields are left out."""
        columns = event_columns(source)
        contract = Contract.of(source.schema)
        decoder = json_decoder(
            contract,
            columns=frozenset(columns),
            parsing=source.parsing,
            duplicate_keys=source.duplicate_keys,
            max_record_bytes=source.max_record_bytes,
        )
        schema = schema_of({**EVENT, **{f"event.{name}": kind for name, kind in columns.items()}})
        rows = records = 0
        ends: list[int] = []
        with parquet_file(piece.path, schema) as writer:
            for messages in self._polls(piece):
                records += len(messages)
                valued = [one for one in messages if one.value() is not None]
                decoded = decoder.decode(object_array((one.value() for one in valued), len(valued)))
                kept = [valued[place] for place in decoded.kept.tolist()]
                time = _times(kept)
                held = [arrow_column(decoded.columns[name], kind) for name, kind in columns.items()]
                writer.write_batch(_batch([_ints(one.offset() for one in kept), _moments(time), *held], schema))
                rows += len(kept)
                if len(time):
                    ends = _ends(np.concatenate([ends, time]).astype(np.int64))
        first, last = ends or (None, None)
        return {"rows": rows, "left_out": records - rows, "first_ms": first, "last_ms": last}

    def features(
        self, piece: Piece, recorded: RecordedOnKafka, prefix: str, columns: Mapping[str, ColumnType], since_ms: int
    ) -> Facts:
        """What the feature log has of the rows of a stretch."""
        schema = schema_of({**FEATURES, **{f"feature.{name}": kind for name, kind in columns.items()}})
        rows = 0
        with parquet_file(piece.path, schema) as writer:
            for first in range(piece.start, piece.end, _FEATURE_ROWS):
                logged = recorded.rows(prefix, first, min(first + _FEATURE_ROWS, piece.end) - 1, since_ms)
                flags = object_array((logged.texts[place] for place in logged.text.tolist()), len(logged))
                held = [arrow_column(logged.columns[name], kind) for name, kind in columns.items()]
                writer.write_batch(_batch([logged.offset, logged.children, flags, *held], schema))
                rows += len(logged)
        return {"rows": rows}

    def predictions(self, piece: Piece, sink: Sink | RedisSink, spans: Mapping[str, tuple[int, int, int]]) -> Facts:
        """Predictions of events in the export.

        Args:
            spans: number, first offset and the one behind the last of each span, by prefix of ids (``topic id/partition``).
        """
        columns = Contract.of(sink.schema).columns
        schema = prediction_schema(sink)
        decoder, rows = _prediction_decoder(sink), 0
        with parquet_file(piece.path, schema) as writer:
            for messages in self._polls(piece):
                ours = [found for one in messages if (found := _placed(one, sink, spans)) is not None]
                decoded = decoder.decode(object_array((one.value() for one, _, _ in ours), len(ours)))
                kept = [ours[place] for place in decoded.kept.tolist()]
                made = [one for _, one, _ in kept]
                places: Any = list(zip(*(place for _, _, place in kept), strict=True)) or [[], [], []]
                own: list[Any] = [*map(_ints, places), [one.id for one in made], [one.model for one in made]]
                own += [_ints(one.revision for one in made), [one.flags for one in made]]
                own.append(_ints(one.offset() for one, _, _ in kept))
                held = [arrow_column(decoded.columns[name], kind) for name, kind in columns.items()]
                writer.write_batch(_batch([*own, *held], schema))
                rows += len(kept)
        return {"rows": rows}

    def labels(self, piece: Piece, until_ms: int) -> Facts:
        """Labels up to a time (ms since 1970 UTC): records with a key, whose values are JSON objects; others are counted."""
        kinds: dict[str, str] = {}
        rows = unreadable = 0
        schema = schema_of(LABEL)
        with parquet_file(piece.path, schema) as writer:
            for messages in self._polls(piece):
                due = [one for one in messages if one.timestamp()[1] <= until_ms]
                read = [(one, document) for one in due if (document := _object(one)) is not None]
                for _, document in read:
                    for name, value in document.items():
                        if not (name and name.isprintable()):
                            continue  # No column can have it.
                        kinds[name] = wider(kinds.get(name), kind_of(value))
                kept = [one for one, _ in read]
                keys = [one.key().decode(errors="replace") for one in kept]
                values = [one.value().decode(errors="replace") for one in kept]
                batch = [keys, _moments(_times(kept)), _ints(one.offset() for one in kept), values]
                writer.write_batch(_batch(batch, schema))
                rows += len(kept)
                unreadable += len(due) - len(kept)
        return {"rows": rows, "left_out": unreadable, "kinds": kinds}

    def bounds(self, topic: str, partitions: int, since_ms: int) -> dict[str, tuple[int, int]]:
        """By partition, the first record of this time or later, and the end of what is there now."""
        found: dict[str, tuple[int, int]] = {}
        for number in range(partitions):
            with closing(StretchReader(self._client, TopicPartition(topic, number))) as reader:
                _, high = reader.bounds()
                first = reader.offset_at(since_ms)
            found[str(number)] = high if first is None else first, high
        return found

    def _polls(self, piece: Piece) -> Iterator[list[Any]]:
        with closing(StretchReader(self._client, piece.where)) as reader:
            reader.read(piece.start, piece.end)
            while messages := reader.poll():
                yield messages


def event_columns(source: Source) -> dict[str, ColumnType]:
    """Fields of an event that are exported."""
    return {name: kind for name, kind in Contract.of(source.schema).columns.items() if name not in source.secret}


def prediction_schema(sink: Sink | RedisSink) -> pa.Schema:
    """Columns of staged predictions."""
    columns = Contract.of(sink.schema).columns
    return schema_of({**PREDICTION, **{f"prediction.{name}": kind for name, kind in columns.items()}})


def kind_of(value: object) -> str:
    """What a label's field holds: ``bool``, ``int``, ``float`` or ``text``; a number beyond 64 bits is a float."""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int" if -_INT64 <= value < _INT64 else "float"
    return "null" if value is None else "float" if isinstance(value, float) else "text"


def wider(one: str | None, other: str) -> str:
    """What holds values of both kinds."""
    if one in (None, "null", other):
        return other
    if other == "null":
        return str(one)
    return "float" if {one, other} == {"int", "float"} else "text"


def _prediction_decoder(sink: Sink | RedisSink) -> Decoder:
    contract = Contract.of(sink.schema)
    return json_decoder(
        contract,
        columns=frozenset(contract.columns),
        parsing="pydantic" if contract.problems else "strict",
        duplicate_keys="last",
        max_record_bytes=_ANY_SIZE,
    )


def _placed(
    message: Any, sink: Sink | RedisSink, spans: Mapping[str, tuple[int, int, int]]
) -> tuple[Any, Provenance, tuple[int, int, int]] | None:
    """A prediction with what made it, and number of the span, offset and child of its event; ``None`` if it is none of ours."""
    try:
        made = _provenance(message, sink)
        prefix, _, place = made.id.rpartition("/")
        if message.value() is None or prefix not in spans:
            return None
        offset, _, child = place.partition("#")
        number, start, end = spans[prefix]
        if not (start <= int(offset) < end and 0 <= made.revision < _INT64 and -1 <= int(child or -1) < _INT64):
            return None
        return message, made, (number, int(offset), int(child or -1))
    except (ValueError, KeyError, TypeError, RecursionError, msgspec.ValidationError):
        return None  # Somebody else wrote it.


def _provenance(message: Any, sink: Sink | RedisSink) -> Provenance:
    if sink.provenance == "header":
        return read_header(dict(headers_of(message))[HEADER] or b"")
    value = json.loads(message.value())
    said = [value[name] for name in ("prediction_id", "model", "revision", "flags")]
    return msgspec.convert(said, Provenance)


def _object(message: Any) -> dict[str, Any] | None:
    try:
        # Stricter than Python's: what it takes, DuckDB can take apart.
        found = msgspec.json.decode(message.value() or b"")
        return found if isinstance(found, dict) and message.key() is not None else None
    except (ValueError, RecursionError):
        return None


def _times(messages: Sequence[Any]) -> Array:
    return np.fromiter((one.timestamp()[1] for one in messages), np.int64, len(messages))


def _ends(times: Array) -> list[int]:
    return [int(times.min()), int(times.max())]


def _moments(times_ms: Array) -> Array:
    return (times_ms * 1000).astype("M8[us]")


def _ints(values: Any) -> Array:
    return np.array(list(chain(values)), np.int64)


def _batch(columns: Sequence[Any], schema: pa.Schema) -> Any:
    import pyarrow as pa

    pairs = zip(columns, schema, strict=True)
    arrays = [one if isinstance(one, pa.Array) else pa.array(one, field.type) for one, field in pairs]
    return pa.record_batch(arrays, schema=schema)
