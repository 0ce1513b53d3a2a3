"""A comparison as one HTML page: no script, and nothing that is loaded from elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from html import escape
from typing import Final

from streamml.errors import ConfigError
from streamml.ops.replay.comparison import QUANTILES, Comparison, Distribution, FieldChange

_STYLE: Final = """
:root { color-scheme: light; }
body { margin: 0 auto; max-width: 62rem; padding: 2.5rem 1.5rem 4rem; background: #fff; color: #1f2933;
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.6rem; margin: 0 0 .2rem; } h2 { font-size: 1.15rem; margin: 2.4rem 0 .6rem; }
h3 { font-size: 1rem; margin: 0; } h3 small, .quiet { color: #7b8794; font-weight: normal; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(7.6rem, 1fr)); gap: .6rem; margin: 1.4rem 0; }
.tile { border: 1px solid #e6e8eb; border-radius: 8px; padding: .6rem .7rem; font-size: .82rem; line-height: 1.35; }
.tile .quiet { display: block; }
.tile b { display: block; font-size: 1.2rem; font-weight: 600; font-variant-numeric: tabular-nums; }
.tile.changed b { color: #b5651d; } .tile.bad b { color: #b03a48; }
section { border-top: 1px solid #e6e8eb; padding: 1.1rem 0 .4rem; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(22rem, 1fr)); gap: 1rem; }
svg { width: 100%; height: auto; }
table { border-collapse: collapse; min-width: 26rem; margin: .6rem 0; font-size: .88rem; font-variant-numeric: tabular-nums; }
th { text-align: left; color: #7b8794; font-weight: 500; } td, th { padding: .25rem 1.1rem .25rem 0; border-bottom: 1px solid #f0f1f3; }
td.n, th.n { text-align: right; } code { font-size: .85em; overflow-wrap: anywhere; }
ul { padding-left: 1.2rem; }
@media print { section { break-inside: avoid; } }
"""
_TILES: Final = (
    ("same", "same", ""),
    ("changed", "changed", "changed"),
    ("missing", "missing", "bad"),
    ("extra", "extra", ""),
    ("dead_lettered", "newly dead-lettered", "bad"),
    ("recovered", "dead-lettered no longer", ""),
)


def page(found: Comparison, failed: Sequence[str] = ()) -> str:
    """The page's text.

    Args:
        failed: conditions that do not hold, in words.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401  the page is nothing without it
    except ImportError as error:
        raise ConfigError("The page needs matplotlib; install it by `pip install 'streamml[replay]'`.") from error
    title = f"Replay {found.run} of {found.topology}"
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="quiet">{_about(found)}</p>',
        *_list("Conditions that do not hold", failed),
        _tiles(found),
        *_list("Notes", found.notes),
        _by_hour(found),
        *_flips(found),
        "<h2>Fields</h2>",
        *(_field(found, one) for one in found.fields),
        *_keys(found),
        *_letters(found),
    ]
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
    return f'<!doctype html>\n<html lang="en"><head>{head}<style>{_STYLE}</style></head>\n<body>\n' + "\n".join(
        [*parts, "</body></html>\n"]
    )


def _about(found: Comparison) -> str:
    other = "the live predictions" if found.against == "live" else f"replay {found.against}"
    mine, theirs = found.topics
    return (
        f"After: <code>{escape(mine)}</code>. Before: {other}, <code>{escape(theirs)}</code>, the highest revision below "
        f"{found.run}. Numbers within {found.tolerance:g} are the same."
    )


def _tiles(found: Comparison) -> str:
    rows = found.counts.rows
    tiles = [f'<div class="tile"><b>{rows:,}</b>rows</div>']
    for name, label, style in _TILES:
        count = getattr(found.counts, name)
        share = f"{100 * count / rows:.2f} %" if rows else ""
        shown = style if count else ""
        tiles.append(f'<div class="tile {shown}"><b>{count:,}</b>{label}<span class="quiet">{share}</span></div>')
    return f'<div class="tiles">{"".join(tiles)}</div>'


def _list(title: str, sentences: Sequence[str]) -> list[str]:
    items = "".join(f"<li>{escape(one)}</li>" for one in sentences)
    return [f"<h2>{title}</h2><ul>{items}</ul>"] if sentences else []


def _by_hour(found: Comparison) -> str:
    from streamml.ops.replay.plots import hours

    plot = hours(found) if found.hours else '<p class="quiet">There are no rows.</p>'
    return f"<h2>By hour of source time (UTC)</h2>{plot}"


def _flips(found: Comparison) -> list[str]:
    if not found.flips:
        return []
    rows = [(one.field, f"{one.threshold:g}", one.up, one.down, one.up + one.down) for one in found.flips]
    return [
        "<h2>Rows that crossed a threshold</h2>",
        _table(("field", "threshold", "up", "down", "together"), rows, texts=1),
    ]


def _field(found: Comparison, field: FieldChange) -> str:
    from streamml.ops.replay.plots import histogram, means

    title = f"<h3>{escape(field.name)} <small>{field.changed:,} changed</small></h3>"
    if field.secret:
        return f'<section>{title}<p class="quiet">The field is secret; its values are not shown.</p></section>'
    parts = [title]
    if field.histogram is not None:
        plots = [histogram(field)] + ([means(found, field.name)] if len(found.hours) > 1 else [])
        parts += [f'<div class="plots">{"".join(plots)}</div>', _numbers(field), _movers(field)]
    if field.values:
        rows = [(_shown(one.value), one.before, one.after, f"{one.after - one.before:+,}") for one in field.values]
        parts.append(_table(("value", "before", "after", "difference"), rows, texts=1))
    if field.turns and field.values:
        turns = [(_shown(one.before), _shown(one.after), one.rows) for one in field.turns]
        parts.append(_table(("before", "after", "rows"), turns, texts=2))
    return f"<section>{''.join(parts)}</section>"


def _numbers(field: FieldChange) -> str:
    heads = ("", "values", "mean", "deviation", "least", *(f"p{100 * one:g}" for one in QUANTILES), "largest")
    sides = (("before", field.before), ("after", field.after))
    rows = [(name, *_cells(side)) for name, side in sides if side is not None]
    change = field.change
    told = ""
    if change is not None and change.rows:
        told = (
            f'<p class="quiet">Difference after − before over {change.rows:,} rows: mean {_number(change.mean)}, mean absolute '
            f"{_number(change.mean_absolute)}, 95 % within {_number(change.p95_absolute)}, largest {_number(change.largest_absolute)}.</p>"
        )
    return _table(heads, rows, texts=1) + told


def _cells(side: Distribution) -> list[str]:
    quantiles = side.quantiles or (None,) * len(QUANTILES)
    values = (side.mean, side.deviation, side.least, *quantiles, side.largest)
    return [f"{side.values:,}", *map(_number, values)]


def _movers(field: FieldChange) -> str:
    if not field.movers:
        return ""
    rows = [
        (
            f"<code>{escape(one.id)}</code>",
            _shown(one.key),
            _time(one.time_ms),
            *map(_number, (one.before, one.after, one.after - one.before)),
        )
        for one in field.movers
    ]
    return _table(("biggest movers", "key", "time", "before", "after", "difference"), rows, texts=3)


def _keys(found: Comparison) -> Iterable[str]:
    if found.keys_tell:
        yield f"<h2>By {escape(found.key)}: most rows that are not the same</h2>"
        rows = [(_shown(one.key), one.rows, one.changed, one.other) for one in found.keys]
        yield _table((escape(found.key), "rows", "changed", "missing, extra, dead letter"), rows, texts=1)


def _letters(found: Comparison) -> Iterable[str]:
    if found.letters:
        yield "<h2>Newly dead-lettered</h2>"
        yield _table(("step: error", "rows"), [(_shown(name), count) for name, count in found.letters.items()], texts=1)


def _table(heads: Sequence[str], rows: Iterable[Sequence[object]], *, texts: int) -> str:
    """Cells are HTML already; the first ``texts`` columns are text, the others numbers."""

    def line(tag: str, cells: Sequence[object]) -> str:
        shown = (f"{one:,}" if isinstance(one, int) else str(one) for one in cells)
        return "".join(
            f"<{tag}{'' if number < texts else ' class=n'}>{cell}</{tag}>" for number, cell in enumerate(shown)
        )

    body = "".join(f"<tr>{line('td', row)}</tr>" for row in rows)
    return f"<table><tr>{line('th', heads)}</tr>{body}</table>"


def _shown(text: str | None) -> str:
    return '<span class="quiet">none</span>' if text is None else escape(text)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:,.4g}"


def _time(ms: int) -> str:
    try:
        return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (OverflowError, ValueError, OSError):
        return f"{ms} ms"
