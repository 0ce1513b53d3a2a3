"""Events, features, predictions and labels put together, file by file, by DuckDB: it holds no more than it may, and spills the rest."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from streamml.ops.replay.replay import Span

_MEMORY: Final = "512MB"
_ROW_GROUP: Final = 20_000
_PREDICTIONS: Final = """
    CREATE VIEW predictions AS SELECT * EXCLUDE (span, place) FROM staged
    QUALIFY row_number() OVER (PARTITION BY "offset", child ORDER BY revision DESC, place) = 1
"""
"""Of equal revisions the first counts: the others are repetitions after a crash."""
_SCORED: Final = """CREATE VIEW scored AS SELECT * FROM predictions FULL JOIN features USING ("offset", child)"""
_SCORED_ALONE: Final = "CREATE VIEW scored AS SELECT * FROM predictions"
_JOINED: Final = """
    CREATE VIEW joined AS SELECT events.*, scored.* EXCLUDE ("offset")
    FROM events LEFT JOIN scored ON events."offset" = scored."offset"
"""
_LABELLED: Final = """
    CREATE VIEW labelled AS SELECT keyed.* EXCLUDE (label_key, label_until), labels.time AS label_time, labels.value AS label_value
    FROM keyed LEFT JOIN labels
        ON labels.key = keyed.label_key AND labels.time >= keyed.time AND labels.time <= keyed.label_until
    QUALIFY row_number() OVER (PARTITION BY keyed."offset", keyed.child ORDER BY labels.time DESC, labels.place DESC) = 1
"""
_KINDS: Final = {"bool": "BOOLEAN", "int": "BIGINT", "float": "DOUBLE", "text": "VARCHAR", "null": "VARCHAR"}


@dataclass(frozen=True, slots=True)
class Labels:
    """How labels are joined.

    Args:
        column: of the event or prediction, whose text is the label's key.
        within_ms: how long after the event's record the label's may come.
        kinds: what each field of a label holds, see `streamml.ops.export.staging.kind_of`.
    """

    column: str
    within_ms: int
    kinds: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Part:
    """One file of the result.

    Args:
        number: of the span.
        span: what it is about, or a piece of it.
        events, features: staged files of just that; ``features`` is ``None`` without a feature log.
        path: of the file.
        times_ms: of the first and the last event's record; ``None``: there is no event.
    """

    number: int
    span: Span
    events: Path
    features: Path | None
    path: Path
    times_ms: tuple[int, int] | None


def join(part: Part, work: Path, *, live_only: bool, labels: Labels | None) -> int:
    """Write the part; returns the number of its rows.

    Args:
        work: folder with the staged files.
        live_only: take predictions of revision 0 only; otherwise the highest.
    """
    import duckdb
    import pyarrow.parquet as pq

    partial = part.path.with_name(f"_{part.path.name}.partial")
    with closing(duckdb.connect(config={"memory_limit": _MEMORY, "temp_directory": str(work / "spill")})) as database:
        _join_predictions(database, part, work, live_only=live_only)
        fields = _join_labels(database, part, work, labels) if labels is not None else ["* EXCLUDE (child)"]
        rows = database.view("joined" if labels is None else "labelled")
        ordered = rows.project(", ".join([*fields, "nullif(child, -1) AS child"])).order('"offset", child')
        ordered.write_parquet(str(partial), compression="zstd", row_group_size=_ROW_GROUP)
    count = int(pq.read_metadata(partial).num_rows)
    partial.replace(part.path)
    return count


def _join_predictions(database: Any, part: Part, work: Path, *, live_only: bool) -> None:
    span = part.span
    ours = f'span = {part.number} AND "offset" >= {span.start} AND "offset" < {span.end}'
    staged = database.read_parquet(_files(work, "predictions"))
    staged.filter(f"{ours} AND revision = 0" if live_only else ours).create_view("staged")
    database.read_parquet([str(part.events)]).create_view("events")
    database.execute(_PREDICTIONS)
    if part.features is not None:
        database.read_parquet([str(part.features)]).create_view("features")
    database.execute(_SCORED if part.features is not None else _SCORED_ALONE)
    database.execute(_JOINED)


def _join_labels(database: Any, part: Part, work: Path, labels: Labels) -> list[str]:
    """Join them; returns what to write."""
    first_ms, last_ms = part.times_ms or (0, 0)
    until = f"make_timestamp({(last_ms + labels.within_ms) * 1000})"
    staged = database.read_parquet(_files(work, "labels"))
    staged.filter(f"time >= make_timestamp({first_ms * 1000}) AND time <= {until}").create_view("labels")
    key = f"CAST({_name(labels.column)} AS VARCHAR) AS label_key"
    keyed = database.view("joined").project(f"*, {key}, time + to_milliseconds({labels.within_ms}) AS label_until")
    keyed.create_view("keyed")
    database.execute(_LABELLED)
    return ["* EXCLUDE (child, label_value)", *(_field(*one) for one in sorted(labels.kinds.items()))]


def _files(work: Path, kind: str) -> list[str]:
    return sorted(str(one) for one in work.glob(f"{kind}-*.parquet"))


def _field(name: str, kind: str) -> str:
    # A JSON pointer: it can name any field.
    path = "'/" + name.replace("~", "~0").replace("/", "~1").replace("'", "''") + "'"
    return f"TRY_CAST(json_extract_string(label_value, {path}) AS {_KINDS[kind]}) AS {_name(f'label.{name}')}"


def _name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
