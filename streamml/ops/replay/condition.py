"""A condition on event columns, as ``--where`` takes it: ``carrier == "UA" and delay > 15``.

It is read as Python's syntax and made of a few known parts, each of which works on whole columns; nothing of it is ever run
as Python. A query engine would do the same behind a copy of every batch, and would have to be installed for it.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import reduce
from typing import Any, Final, NamedTuple

import numpy as np

from streamml.batch.column import Array, ColumnType
from streamml.errors import ConfigError

Value = Any
"""A column, or a number, text or time that stands for one; a `_Truth` of what is true or false."""
_Made = Callable[[Mapping[str, Array]], Value]

_COMPARED: Final[Mapping[type[ast.cmpop], Callable[[Any, Any], Any]]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_COMPUTED: Final[Mapping[type[ast.operator], Callable[[Any, Any], Any]]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Mod: operator.mod,
}
_KINDS: Final[Mapping[str, str]] = {
    "bool": "truth",
    "i4": "number",
    "i8": "number",
    "f4": "number",
    "f8": "number",
    "text": "text",
    "timestamp": "time",
}
_GRAMMAR: Final = (
    "It may have columns of the event, numbers, texts in quotes, True and False; == != < <= > >=, in (…), is None, is not "
    "None; and, or, not; + - * / %"
)


@dataclass(frozen=True, slots=True)
class Condition:
    """Which events are meant.

    Args:
        text: as it was written.
        columns: that it reads.
        function: columns to bool ``[n]``. As in SQL, a comparison with a value that is not there (a null, or NaN) is neither true
            nor false, so that ``not`` of it is not true either; only ``is None`` says something of it.
    """

    text: str
    columns: tuple[str, ...]
    function: Callable[[Mapping[str, Array]], Array]


class _Truth(NamedTuple):
    """Where something is true, and where it is false; elsewhere it is unknown."""

    yes: Any
    no: Any

    def __invert__(self) -> _Truth:
        return _Truth(self.no, self.yes)


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of an expression: what kind of value it has, and how it is made of columns."""

    kind: str
    made: _Made
    literal: Any = None


def condition(text: str, columns: Mapping[str, ColumnType]) -> Condition:
    """Read a condition.

    Args:
        columns: of the event.

    Raises:
        ConfigError: it is none, names no column of the event, or compares what cannot be compared.
    """
    try:
        tree = ast.parse(text.strip(), mode="eval")
        reader = _Reader(columns)
        part = reader.read(tree.body)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ConfigError(f"The condition {text!r} cannot be read: {error}. {_GRAMMAR}.") from error
    if part.kind != "truth":
        raise ConfigError(f"The condition {text!r} is a {part.kind} and not true or false. {_GRAMMAR}.")

    def function(values: Mapping[str, Array]) -> Array:
        rows = len(next(iter(values.values())))
        return np.broadcast_to(np.asarray(part.made(values).yes, bool), rows).copy()

    if not reader.read_columns:
        raise ConfigError(f"The condition {text!r} reads no column of the event; there are {', '.join(columns)}.")
    try:
        # What fails without a row, as 1 / 0, would fail with each.
        function({name: np.empty(0, columns[name].dtype) for name in reader.read_columns})
    except (ArithmeticError, RecursionError) as error:
        raise ConfigError(f"The condition {text!r} cannot be computed: {error}.") from error
    return Condition(text, tuple(sorted(reader.read_columns)), function)


class _Reader:
    """Makes parts of nodes; raises `ValueError` with what is wrong."""

    def __init__(self, columns: Mapping[str, ColumnType]) -> None:
        self._columns = columns
        self.read_columns: set[str] = set()

    def read(self, node: ast.expr) -> _Part:
        match node:
            case ast.BoolOp():
                return self._joined(node)
            case ast.UnaryOp(op=ast.Not()):
                one = self._of("truth", node.operand)
                return _Part("truth", lambda values: ~one.made(values))
            case ast.UnaryOp(op=ast.USub()):
                one = self._of("number", node.operand)
                return _Part("number", lambda values: -one.made(values))
            case ast.BinOp():
                return self._computed(node)
            case ast.Compare():
                return self._compared(node)
            case ast.Name():
                return self._column(node.id)
            case ast.Constant():
                return _constant(node.value)
        raise ValueError(f"{ast.unparse(node)!r} is not among what it may have")

    def _of(self, kind: str, node: ast.expr) -> _Part:
        part = self.read(node)
        if part.kind != kind:
            raise ValueError(f"{ast.unparse(node)!r} is a {part.kind} where a {kind} is wanted")
        return part

    def _joined(self, node: ast.BoolOp) -> _Part:
        parts = [self._of("truth", one) for one in node.values]
        join = _both if isinstance(node.op, ast.And) else _either
        return _Part("truth", lambda values: reduce(join, [one.made(values) for one in parts]))

    def _computed(self, node: ast.BinOp) -> _Part:
        compute = _COMPUTED.get(type(node.op))
        if compute is None:
            raise ValueError(f"{ast.unparse(node)!r} is not among what it may have")
        left, right = self._of("number", node.left), self._of("number", node.right)

        def made(values: Mapping[str, Array]) -> Value:
            with np.errstate(all="ignore"):
                return compute(left.made(values), right.made(values))

        return _Part("number", made)

    def _compared(self, node: ast.Compare) -> _Part:
        sides = [node.left, *node.comparators]
        pairs = [self._pair(op, sides[n], sides[n + 1]) for n, op in enumerate(node.ops)]
        return _Part("truth", lambda values: reduce(_both, [made(values) for made in pairs]))

    def _pair(self, op: ast.cmpop, left: ast.expr, right: ast.expr) -> _Made:
        if isinstance(op, (ast.Is, ast.IsNot)):
            return self._is_none(op, left, right)
        if isinstance(op, (ast.In, ast.NotIn)):
            return self._among(op, left, right)
        compare = _COMPARED[type(op)]
        one, other = _alike(self._side(left), self._side(right), left, right)
        return lambda values: _compared_where_there(compare, _plain(one.made(values)), _plain(other.made(values)))

    def _side(self, node: ast.expr) -> _Part:
        """A side of a comparison. It is computed for each neighbour, so comparisons in it would double the work at each depth."""
        match node:
            case ast.Compare() | ast.BoolOp() | ast.UnaryOp(op=ast.Not()):
                raise ValueError("what is true or false is joined by and, or, not, and not compared again")
        return self.read(node)

    def _is_none(self, op: ast.cmpop, left: ast.expr, right: ast.expr) -> _Made:
        if not (isinstance(right, ast.Constant) and right.value is None and isinstance(left, ast.Name)):
            raise ValueError("`is` stands between a column and None")
        self._column(left.id)
        name, wanted = left.id, isinstance(op, ast.Is)
        return lambda values: _known(np.ma.getmaskarray(values[name]) == wanted)

    def _among(self, op: ast.cmpop, left: ast.expr, right: ast.expr) -> _Made:
        if not isinstance(right, (ast.Tuple, ast.List, ast.Set)) or not right.elts:
            raise ValueError("behind `in` stands a list, as in carrier in ('UA', 'DL')")
        equal = [self._pair(ast.Eq(), left, item) for item in right.elts]
        if isinstance(op, ast.In):
            return lambda values: reduce(_either, [made(values) for made in equal])
        return lambda values: ~reduce(_either, [made(values) for made in equal])

    def _column(self, name: str) -> _Part:
        if name not in self._columns:
            raise ValueError(f"the event has no column {name!r}; it has {', '.join(self._columns)}")
        declared = self._columns[name]
        if declared.kind not in _KINDS or declared.shape:
            raise ValueError(f"the column {name!r} is {declared}, which cannot be compared")
        self.read_columns.add(name)
        if declared.kind == "bool":
            return _Part("truth", lambda values: _truth_of(values[name]))
        return _Part(_KINDS[declared.kind], lambda values: values[name])


def _constant(value: object) -> _Part:
    kind = {bool: "truth", int: "number", float: "number", str: "text"}.get(type(value))
    if kind is None:
        raise ValueError(f"{value!r} is not among what it may have")
    made = _known(np.asarray(value)) if kind == "truth" else value
    return _Part(kind, lambda values: made, literal=value)


def _alike(one: _Part, other: _Part, left: ast.expr, right: ast.expr) -> tuple[_Part, _Part]:
    """Both of one kind; a text beside a time is read as one."""
    if {one.kind, other.kind} == {"time", "text"}:
        return (_timed(one), _timed(other))
    if one.kind != other.kind:
        raise ValueError(f"{ast.unparse(left)} is a {one.kind} and {ast.unparse(right)} a {other.kind}")
    return one, other


def _timed(part: _Part) -> _Part:
    if part.kind == "time":
        return part
    try:
        time = datetime.fromisoformat(str(part.literal))
    except ValueError:
        time = None
    if part.literal is None or time is None or time.tzinfo is None:
        raise ValueError("a time is compared with a text like '2026-01-31T12:00:00Z', with its zone")
    stamp = np.datetime64(round(time.timestamp() * 1e6), "us")
    return _Part("time", lambda values: stamp)


def _known(truth: Array) -> _Truth:
    return _Truth(truth, ~truth)


def _both(one: _Truth, other: _Truth) -> _Truth:
    return _Truth(one.yes & other.yes, one.no | other.no)


def _either(one: _Truth, other: _Truth) -> _Truth:
    return _Truth(one.yes | other.yes, one.no & other.no)


def _truth_of(column: Array) -> _Truth:
    there, truth = ~np.ma.getmaskarray(column), np.ma.getdata(column)
    return _Truth(there & truth, there & ~truth)


def _plain(value: Value) -> Value:
    """What is true or false as a column, as it is compared."""
    return np.ma.masked_array(value.yes, ~(value.yes | value.no)) if isinstance(value, _Truth) else value


def _compared_where_there(compare: Callable[[Any, Any], Any], one: Value, other: Value) -> _Truth:
    there = ~(_missing(one) | _missing(other))
    sides = [np.ma.getdata(side) for side in (one, other)]
    if there.all():
        return _known(np.asarray(compare(*sides), bool))
    found = np.zeros(len(there), bool)
    found[there] = np.asarray(compare(*(side[there] if np.ndim(side) else side for side in sides)), bool)
    return _Truth(found, there & ~found)


def _missing(value: Value) -> Array:
    missing, plain = np.ma.getmaskarray(value), np.ma.getdata(value)
    return missing | np.isnan(plain) if plain.dtype.kind in "fM" else missing
