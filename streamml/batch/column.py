"""What a column is: a declared type, and a numpy array that keeps to it.

A column is a plain ``numpy.ndarray``; a column with nulls is a ``numpy.ma.MaskedArray`` whose mask marks
them. Text, bytes and anything ragged are object arrays, never numpy ``U``/``S``, which drop trailing NULs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Columns = Mapping[str, Array]
Scalar = bool | int | float | str | bytes

_NUMPY: Final[dict[str, np.dtype[Any]]] = {
    "bool": np.dtype("?"),
    "i4": np.dtype("<i4"),
    "i8": np.dtype("<i8"),
    "f4": np.dtype("<f4"),
    "f8": np.dtype("<f8"),
    "timestamp": np.dtype("<M8[us]"),
    "text": np.dtype("O"),
    "bytes": np.dtype("O"),
    "object": np.dtype("O"),
}
# Kinds of numpy values that a default may be of.
_STANDS_IN: Final[dict[str, str]] = {
    "bool": "b",
    "i4": "biu",
    "i8": "biu",
    "f4": "biuf",
    "f8": "biuf",
    "timestamp": "M",
}
_SPELLING: Final = re.compile(r"(?P<kind>[a-z0-9]+?)(?:\[(?P<shape>\d+(?:,\s*\d+)*)\])?(?P<null>\?)?")


@dataclass(frozen=True, slots=True)
class ColumnType:
    """The declared type of one column.

    Args:
        kind: ``bool``, ``i4``, ``i8``, ``f4``, ``f8``, ``timestamp`` (microseconds, UTC), ``text``, ``bytes``
            or ``object``.
        shape: shape of one row's value; ``()`` is a scalar, ``(384,)`` a vector.
        nullable: whether a row may have no value.
        default: what stands in for a missing feature value; ``None`` where there is none.

    The spellings ``sm.f4``, ``sm.f4[384]``, ``sm.f4(default=0.5)``, ``"f4[384]"`` and ``"f4?"`` (nullable) build one.
    """

    kind: str
    shape: tuple[int, ...] = ()
    nullable: bool = False
    default: Scalar | None = None

    def __call__(self, *, default: Scalar | None = None, nullable: bool = False) -> ColumnType:
        return replace(self, default=default, nullable=nullable)

    def __getitem__(self, shape: int | tuple[int, ...]) -> ColumnType:
        return replace(self, shape=shape if isinstance(shape, tuple) else (shape,))

    @property
    def dtype(self) -> np.dtype[Any]:
        """The numpy type of the values, little-endian."""
        return _NUMPY[self.kind]

    @property
    def numeric(self) -> bool:
        return self.kind in ("bool", "i4", "i8", "f4", "f8")

    def __str__(self) -> str:
        shape = f"[{','.join(map(str, self.shape))}]" if self.shape else ""
        return f"{self.kind}{shape}{'?' if self.nullable else ''}"

    @staticmethod
    def parse(spelling: str | ColumnType) -> ColumnType:
        """Read a spelling such as ``"f4[22]"`` or ``"text?"``.

        Raises:
            ValueError: the spelling names no column type.
        """
        if isinstance(spelling, ColumnType):
            return spelling
        found = _SPELLING.fullmatch(spelling.strip())
        if found is None or found["kind"] not in _NUMPY:
            raise ValueError(
                f"{spelling!r} is no column type; write one of {', '.join(_NUMPY)}, as in 'f4[22]' or 'text?'."
            )
        shape = tuple(int(part) for part in found["shape"].split(",")) if found["shape"] else ()
        return ColumnType(found["kind"], shape, nullable=found["null"] is not None)


def column_types(columns: Mapping[str, str | ColumnType]) -> dict[str, ColumnType]:
    """Declared columns with each spelling read.

    Raises:
        ValueError: a spelling names no column type.
    """
    return {name: ColumnType.parse(declared) for name, declared in columns.items()}


boolean: Final = ColumnType("bool")
i4: Final = ColumnType("i4")
i8: Final = ColumnType("i8")
f4: Final = ColumnType("f4")
f8: Final = ColumnType("f8")
timestamp: Final = ColumnType("timestamp")
text: Final = ColumnType("text")


def object_array(values: Iterable[object], count: int) -> Array:
    """``count`` Python objects as an object array; nested sequences stay objects."""
    return np.fromiter(values, dtype=object, count=count)


def sealed(column: Array) -> Array:
    """The same column, made read-only."""
    column.setflags(write=False)
    return column


def concatenate(parts: list[Array]) -> Array:
    """Join columns of one type end to end, keeping nulls. Shape ``[sum(n_i), ...]``."""
    if len(parts) == 1:
        return parts[0]
    if any(isinstance(part, np.ma.MaskedArray) for part in parts):
        return np.ma.concatenate(parts)  # type: ignore[no-any-return, no-untyped-call]
    return np.concatenate(parts)


def no_unicode(column: Array) -> npt.NDArray[np.bool_]:
    """Rows whose text has a lone surrogate, for which there is no UTF-8; bool ``[n]``. Looks at each: for when a whole column failed."""
    return np.fromiter(map(_is_no_unicode, column.tolist()), np.bool_, count=len(column))


def _is_no_unicode(value: object) -> bool:
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return True
    return False


def problem_with(column: object, declared: ColumnType, rows: int) -> str | None:
    """Why ``column`` is not ``rows`` values of the ``declared`` type, or ``None``."""
    if not isinstance(column, np.ndarray):
        return f"is a {type(column).__name__}, not a numpy array"
    if column.shape[:1] != (rows,):
        return f"has {column.shape[0] if column.ndim else 'no'} rows instead of {rows}"
    if (declared.kind not in ("text", "bytes", "object") or declared.shape) and column.shape[1:] != declared.shape:
        return f"has row shape {column.shape[1:]} instead of {declared.shape}"
    if column.dtype.kind != declared.dtype.kind and not (column.dtype.kind in "iub" and declared.dtype.kind in "if"):
        return f"has type {column.dtype} instead of {declared.kind}"
    return None


def default_problem(declared: ColumnType) -> str | None:
    """Why the default of a column cannot stand in for a value of it, or ``None``."""
    try:
        default = np.asarray(declared.default, declared.dtype if declared.kind == "timestamp" else None)
        fits = (
            default.dtype.kind in _STANDS_IN.get(declared.kind, "")
            and np.broadcast_shapes(default.shape, declared.shape) == declared.shape
        )
    except (ValueError, TypeError, OverflowError):
        fits = False
    if not fits:
        return f"is no value of {declared}"
    with np.errstate(over="ignore"):
        kept = default.astype(declared.dtype)
    if declared.kind in ("i4", "i8"):
        return None if np.array_equal(kept, default) else f"does not fit into {declared.kind}"
    grew = declared.kind == "f4" and (np.isfinite(default) & ~np.isfinite(kept)).any()
    return f"does not fit into {declared.kind}" if grew else None


def conform(column: Array, declared: ColumnType) -> Array:
    """``column`` in the declared numpy type, read-only; no copy where it has it already."""
    return sealed(column.astype(declared.dtype, copy=False) if column.dtype != declared.dtype else column.view())
