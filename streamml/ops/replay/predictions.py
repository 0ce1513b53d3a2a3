"""Predictions and dead letters of a topic as Arrow tables: what a comparison works on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import msgspec

from streamml.adapters.kafka.chunks import Chunk
from streamml.engine.dead_letters import PREFIX
from streamml.engine.identity import HEADER
from streamml.ports.source import Headers
from streamml.schema.contract import Contract
from streamml.schema.field import Value
from streamml.topology.topology import Topology

if TYPE_CHECKING:
    import pyarrow as pa

Kind = Literal["number", "whole", "truth", "text", "vector", "other"]

_PROVENANCE: Final = ("prediction_id", "model", "revision", "flags")
_INT64: Final = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_KINDS: Final[dict[str, Kind]] = {"float": "number", "int": "whole", "bool": "truth"}
_PARSED: Final[dict[Kind, Any]] = {
    "number": float | None,
    "whole": _INT64 | None,
    "truth": bool | None,
    "text": str | None,
    "vector": list[float] | None,
    # Whatever it is, it is compared as it is written.
    "other": msgspec.Raw,
}
NO_CHILD: Final = -1


@dataclass(frozen=True, slots=True)
class OutputField:
    """A field of predictions, as it is compared.

    Args:
        name: of the contract.
        column: where a table has it: ``f0``, ``f1`` and so on.
        kind: how it is read; ``other`` is compared as it is written.
        secret: whether its values are not to be shown.
    """

    name: str
    column: str
    kind: Kind
    secret: bool


def output_fields(topology: Topology) -> tuple[OutputField, ...]:
    """What a topology's predictions say, but for what made them."""
    own = _PROVENANCE if topology.sink.provenance == "fields" else ()
    named = [field for field in Contract.of(topology.sink.schema).fields if field.name not in own]
    return tuple(
        OutputField(field.name, f"f{number}", _kind(field.value), field.name in topology.source.secret)
        for number, field in enumerate(named)
    )


def _kind(value: Value) -> Kind:
    if value.kind == "list" and value.items[0].kind in ("int", "float") and not value.items[0].nullable:
        return "vector"
    if value.kind == "choice":
        return "text" if isinstance(value.choices[0], str) else "whole"
    return _KINDS.get(value.kind, "text" if value.kind in ("str", "bytes", "datetime") else "other")


class PredictionReader:
    """Makes a table of a chunk of a prediction topic.

    Columns: ``mark`` (text of the provenance header, or null), ``said_id``, ``said_revision`` (the same out of the value, where it
    is there), ``key``, ``ts`` (ms), ``at_partition``, ``at_offset``, ``odd``, and `OutputField.column` of each field. ``odd`` is
    null for an ordinary record; for one that cannot be read it is the value, and empty for a tombstone.
    """

    def __init__(self, topology: Topology) -> None:
        self.fields = output_fields(topology)
        self._in_value = topology.sink.provenance == "fields"
        alias = {field.name: field.alias for field in Contract.of(topology.sink.schema).fields}
        parts: list[Any] = [
            (one.column, _PARSED[one.kind], msgspec.field(default=_absent(one), name=alias[one.name]))
            for one in self.fields
        ]
        said: list[Any] = []
        if self._in_value:
            said.append(("said_id", str, msgspec.field(name=alias["prediction_id"])))
            said.append(("said_revision", _INT64, msgspec.field(name=alias["revision"])))
        self._record = msgspec.defstruct("Prediction", [*said, *parts], gc=False)
        self._decode: Callable[[bytes], Any] = msgspec.json.Decoder(self._record).decode

    def table(self, chunk: Chunk) -> pa.Table:
        """``n`` rows, those of ``chunk``."""
        import pyarrow as pa

        rows, odd = self._rows(chunk.values())
        columns = list(zip(*map(msgspec.structs.astuple, rows), strict=True)) or [()] * len(
            self._record.__struct_fields__
        )
        parsed = dict(zip(self._record.__struct_fields__, columns, strict=True))
        arrays: dict[str, Any] = {
            "mark": text_array(map(mark_of, chunk.headers())),
            "said_id": _text_column(parsed["said_id"]) if self._in_value else pa.nulls(len(chunk), pa.string()),
            "said_revision": pa.array(parsed.get("said_revision", [None] * len(chunk)), pa.int64()),
            "key": pa.array(chunk.keys(), pa.binary()),
            "ts": chunk.timestamps(),
            "at_partition": chunk.partitions(),
            "at_offset": chunk.offsets(),
            "odd": pa.array(odd, pa.binary()),
        }
        for one in self.fields:
            arrays[one.column] = _array(one.kind, parsed[one.column])
        return pa.table(arrays)

    def _rows(self, values: Sequence[bytes | None]) -> tuple[list[Any], list[bytes | None]]:
        try:
            return list(map(self._decode, values)), [None] * len(values)  # type: ignore[arg-type]
        except (msgspec.DecodeError, TypeError, UnicodeError, RecursionError):
            rows = [self._row(value) for value in values]
            return [row for row, _ in rows], [odd for _, odd in rows]

    def _row(self, value: bytes | None) -> tuple[Any, bytes | None]:
        try:
            return (self._nothing(), b"") if value is None else (self._decode(value), None)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return self._nothing(), value

    def _nothing(self) -> Any:
        return self._record(said_id="", said_revision=0) if self._in_value else self._record()


def letter_table(chunk: Chunk) -> pa.Table:
    """Dead letters: ``id``, ``ts``, ``there`` (false: a tombstone took it back), ``step``, ``error``, ``at_offset``."""
    import pyarrow as pa

    headers = [dict(one) for one in chunk.headers()]
    told = [(one.get(f"{PREFIX}step"), one.get(f"{PREFIX}error")) for one in headers]
    there = [
        value is not None and one.get(f"{PREFIX}version") is not None
        for value, one in zip(chunk.values(), headers, strict=True)
    ]
    return pa.table(
        {
            "id": text_array(chunk.keys()),
            "ts": chunk.timestamps(),
            "there": pa.array(there, pa.bool_()),
            "step": text_array(step for step, _ in told),
            "error": text_array(error for _, error in told),
            "at_offset": chunk.offsets(),
        }
    )


def mark_of(headers: Headers) -> bytes | None:
    """The value of the provenance header, which the sink writes last; ``None``: it has none."""
    if headers and headers[-1][0] == HEADER:
        return headers[-1][1]
    return dict(headers).get(HEADER)


def text_array(values: Iterable[bytes | None]) -> Any:
    """An Arrow array of text; what is no UTF-8 gets the usual replacement."""
    import pyarrow as pa

    found = list(values)
    try:
        return pa.array(found, pa.string())
    except pa.ArrowInvalid:
        return pa.array([one if one is None else one.decode(errors="replace") for one in found], pa.string())


def _array(kind: Kind, values: Sequence[Any]) -> Any:
    import pyarrow as pa

    if kind == "text":
        return _text_column(values)
    if kind == "other":
        return text_array(map(_written, values))
    types = {
        "number": pa.float64(),
        "whole": pa.int64(),
        "truth": pa.bool_(),
        "vector": pa.list_(pa.float64()),
    }
    return pa.array(values, types[kind])


def _absent(field: OutputField) -> Any:
    return msgspec.Raw() if field.kind == "other" else None


def _text_column(values: Sequence[str | None]) -> Any:
    import pyarrow as pa

    try:
        return pa.array(values, pa.string())
    except UnicodeEncodeError:
        # JSON may spell half of a character, which text of Arrow cannot hold.
        return text_array(None if one is None else one.encode(errors="backslashreplace") for one in values)


def _written(value: msgspec.Raw) -> bytes | None:
    return bytes(value) or None
