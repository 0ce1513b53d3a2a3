"""The record of a feature log gives back what was written, whatever the values."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from streamml.batch.column import Array, ColumnType, f4, f8
from streamml.batch.flags import FLAGS
from streamml.batch.microbatch import Origin
from streamml.batch.outcome import Kind, Outcomes
from streamml.engine.feature_log import LogConfig, LogSchema

_TYPES = st.builds(
    ColumnType,
    st.sampled_from(["bool", "i4", "i8", "f4", "f8", "timestamp"]),
    st.sampled_from([(), (1,), (3,), (2, 2)]),
)
_SCHEMAS = st.dictionaries(st.from_regex(r"[a-z]{1,5}\.[a-z]{1,5}", fullmatch=True), _TYPES, min_size=1, max_size=4)


def _values(declared: ColumnType, rows: int, data: st.DataObject) -> Array:
    """Any bits at all: NaN of every kind, infinities, times that are none."""
    shape = (rows, *declared.shape)
    if declared.kind == "bool":
        return data.draw(arrays.arrays(bool, shape))
    size = rows * int(np.prod(declared.shape, dtype=int)) * declared.dtype.itemsize
    return np.frombuffer(data.draw(st.binary(min_size=size, max_size=size)), declared.dtype).reshape(shape)


def _origin(offsets: list[int], texts: list[str], children: list[int] | None) -> Origin:
    rows = len(offsets)
    zeros = np.zeros(rows, np.int64)
    flags = np.array([FLAGS.code(text) for text in texts], np.int64)
    child = None if children is None else np.array(children, np.int64)
    last = None if children is None else np.ones(rows, bool)
    return Origin(zeros, np.arange(rows), np.array(offsets, np.int64), zeros, flags, child, last)


@given(st.data(), _SCHEMAS, st.integers(1, 6), st.booleans())
def test_a_record_gives_back_every_bit(
    data: st.DataObject, columns: dict[str, ColumnType], rows: int, exploded: bool
) -> None:
    offsets = sorted(data.draw(st.lists(st.integers(0, 2**63 - 1), min_size=rows, max_size=rows)))
    texts = data.draw(st.lists(st.sampled_from(["", "a@1", "a@2:missing,ü@3"]), min_size=rows, max_size=rows))
    children = data.draw(st.lists(st.integers(-1, 2**31 - 1), min_size=rows, max_size=rows)) if exploded else None
    written = {name: _values(declared, rows, data) for name, declared in columns.items()}
    schema = LogSchema(columns)

    read = schema.decode(schema.encode(_origin(offsets, texts, children), schema.pack(written, rows)))

    assert read.offset.tolist() == offsets
    assert (None if read.child is None else read.child.tolist()) == children
    assert [read.texts[place] for place in read.text.tolist()] == texts
    for name, column in written.items():
        assert read.columns[name].dtype == column.dtype
        assert read.columns[name].shape == column.shape
        assert read.columns[name].tobytes() == column.tobytes()


@given(st.data())
def test_a_damaged_record_is_an_error_and_nothing_else(data: st.DataObject) -> None:
    schema = LogSchema({"a.x": f4, "a.y": f8[2]})
    packed = schema.pack({"a.x": np.ones(3, "f4"), "a.y": np.ones((3, 2))}, 3)
    good = schema.encode(_origin([1, 2, 3], ["a@1", "a@1", "a@2"], [0, 1, 2]), packed)
    length = data.draw(st.integers(0, len(good) - 1))

    for bad in (good[:length], good + b"\0", b"\2" + good[1:]):
        with pytest.raises(ValueError, match="record"):
            schema.decode(bad)
    with pytest.raises(ValueError, match="other feature sets"):
        LogSchema({"a.x": f4}).decode(good)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 40)), min_size=1, max_size=6), st.data())
def test_blocks_are_cut_by_source_partition_and_size(stretches: list[tuple[int, int]], data: st.DataObject) -> None:
    """Rows come back in order, none is lost, and no record is larger than the topic takes."""
    schema = LogSchema({"a.x": f4[100]})
    slots = np.array([slot for slot, count in stretches for _ in range(count)])
    rows = len(slots)
    offsets = np.arange(rows)
    zeros = np.zeros(rows, np.int64)
    origin = Origin(slots, offsets, offsets, zeros, zeros)
    nothing = np.full(rows, None, object)
    packed = schema.pack({"a.x": np.repeat(offsets, 100).reshape(rows, 100).astype("f4")}, rows)
    whole = Outcomes(Kind.PREDICTION, origin, nothing, nothing, nothing, "", packed)
    cut = data.draw(st.integers(0, rows))
    blocks = [whole.take(slice(0, cut)), whole.take(slice(cut, None)), Outcomes(Kind.FILTERED, origin)]
    limit = 32 * 1024 + 10 * schema.row_bytes

    records = LogConfig("log", schema, limit).records(blocks, ["t/0/", "t/1/", "t/2/"], 1.5)

    assert records is not None
    assert set(records.timestamps) == {1500}
    found: dict[bytes, list[int]] = {}
    for key, value in zip(records.keys, records.values, strict=True):
        assert key is not None
        assert value is not None
        assert len(value) <= limit
        read = schema.decode(value)
        assert (read.columns["a.x"][:, 7] == read.offset).all()
        found.setdefault(key, []).extend(read.offset.tolist())
    assert found == {f"t/{slot}".encode(): offsets[slots == slot].tolist() for slot in sorted(set(slots.tolist()))}
