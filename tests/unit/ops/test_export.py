"""Parts of an export put together, and columns to files and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamml.batch.column import ColumnType
from streamml.errors import ConfigError
from streamml.ops.export.arrow import arrow_column, parquet_file, schema_of
from streamml.ops.export.joining import Part, join
from streamml.ops.export.manifest import opened
from streamml.ops.export.read import _column
from streamml.ops.export.staging import EVENT, FEATURES, PREDICTION, kind_of, wider
from streamml.ops.replay.replay import Span

pa = pytest.importorskip("pyarrow")
MOMENT = np.datetime64("2026-01-01", "us")


def staged(path: Path, columns: dict[str, Any], rows: list[tuple[Any, ...]]) -> Path:
    schema = schema_of(columns)
    with parquet_file(path, schema) as writer:
        arrays = [
            pa.array(list(values), field.type) for values, field in zip(zip(*rows, strict=True), schema, strict=True)
        ]
        writer.write_batch(pa.record_batch(arrays, schema=schema))
    return path


def joined(folder: Path, span: Span, **options: Any) -> list[tuple[Any, ...]]:
    import pyarrow.parquet as pq

    part = Part(1, span, folder / "events.parquet", folder / "features.parquet", folder / "rows.parquet", None)
    count = join(part, folder, live_only=options.get("live_only", False), labels=None)
    rows = pq.read_table(folder / "rows.parquet").to_pylist()
    assert len(rows) == count
    return [(row["offset"], row["child"], row["revision"], row["prediction.score"], row["feature.a.x"]) for row in rows]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three events: one exploded, one without a prediction, one of which only the features are there."""
    staged(tmp_path / "events.parquet", EVENT, [(5, MOMENT), (6, MOMENT), (7, MOMENT)])
    features = {**FEATURES, "feature.a.x": "double"}
    staged(tmp_path / "features.parquet", features, [(5, 0, "a@1", 0.5), (5, 2, "a@1", 2.5), (7, -1, "a@1", 7.5)])
    predictions = {**PREDICTION, "prediction.score": "double"}
    rows = [
        # span, offset, child, id, model, revision, flags, place, score
        (1, 5, 0, "t/0/5#0", "m@1", 0, "", 10, 1.0),
        (1, 5, 0, "t/0/5#0", "m@1", 0, "", 11, 1.1),
        (1, 5, 1, "t/0/5#1", "m@1", 0, "", 12, 2.0),
        (1, 5, 1, "t/0/5#1", "m@2", 3, "", 14, 2.3),
        (0, 5, 1, "s/0/5#1", "m@2", 9, "", 15, 9.9),
        (1, 8, -1, "t/0/8", "m@2", 9, "", 16, 9.9),
    ]
    staged(tmp_path / "predictions-t-0-0.parquet", predictions, rows[:3])
    staged(tmp_path / "predictions-t-1-0.parquet", predictions, rows[3:])
    return tmp_path


def test_children_revisions_and_repetitions_are_told_apart(folder: Path) -> None:
    assert joined(folder, Span("t", 0, 5, 8)) == [
        (5, 0, 0, 1.0, 0.5),
        (5, 1, 3, 2.3, None),
        (5, 2, None, None, 2.5),
        (6, None, None, None, None),
        (7, None, None, None, 7.5),
    ]


def test_live_predictions_are_those_of_revision_0(folder: Path) -> None:
    assert joined(folder, Span("t", 0, 5, 8), live_only=True)[1] == (5, 1, 0, 2.0, None)


_TYPES = st.builds(
    ColumnType,
    st.sampled_from(["bool", "i4", "i8", "f4", "f8", "timestamp", "text", "bytes"]),
    st.just(()),
    st.booleans(),
) | st.builds(ColumnType, st.sampled_from(["i8", "f4", "f8"]), st.sampled_from([(1,), (3,), (2, 2)]), st.booleans())


@given(st.data(), _TYPES, st.integers(0, 5))
def test_a_column_comes_back_from_a_file_as_it_was(data: st.DataObject, kind: ColumnType, rows: int) -> None:
    shape = (rows, *kind.shape)
    if kind.dtype == object:
        one: Any = st.text() if kind.kind == "text" else st.binary()
        values = np.fromiter((data.draw(one) for _ in range(rows)), object, rows)
    elif kind.kind == "bool":
        values = np.array([data.draw(st.booleans()) for _ in range(rows)], bool)
    else:
        size = int(np.prod(shape)) * kind.dtype.itemsize
        values = np.frombuffer(data.draw(st.binary(min_size=size, max_size=size)), kind.dtype).reshape(shape)
    nulls = np.array([data.draw(st.booleans()) for _ in range(rows)], bool) if kind.nullable else np.zeros(rows, bool)
    mask = np.broadcast_to(nulls.reshape(-1, *(1 for _ in kind.shape)), shape).copy()
    column = np.ma.MaskedArray(values, mask=mask) if kind.nullable else values

    again = _column(pa.chunked_array([arrow_column(column, kind)]), kind)

    assert again.shape == column.shape
    assert np.ma.getmaskarray(again).tolist() == mask.tolist()
    before, after = np.ma.getdata(column)[~nulls], np.ma.getdata(again)[~nulls]
    assert before.tolist() == after.tolist() if kind.dtype == object else before.tobytes() == after.tobytes()


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([True, None], "bool"),
        ([1, 2], "int"),
        ([1, 2.5, None], "float"),
        ([2**70], "float"),
        ([1, True], "text"),
        (["a", 1], "text"),
        ([{}, None], "text"),
        ([None], "null"),
    ],
)
def test_a_labels_field_has_the_type_that_holds_all_of_it(values: list[Any], kind: str) -> None:
    found: str | None = None
    for value in values:
        found = wider(found, kind_of(value))
    assert found == kind


def test_two_processes_do_not_export_into_one_folder(tmp_path: Path) -> None:
    with opened(tmp_path, {}), pytest.raises(ConfigError, match="Another process"), opened(tmp_path, {}):
        pass


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"version": 99}', json.dumps({"version": 1, "asked": {}})])
def test_a_manifest_that_is_none_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "_manifest.json").write_text(text)
    with pytest.raises(ConfigError, match="manifest"), opened(tmp_path, {}):
        pass
