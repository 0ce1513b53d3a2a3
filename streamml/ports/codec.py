"""The contract of a codec: records to columns, and columns to records."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from streamml.batch.column import Array, Columns
from streamml.batch.frozen import frozen
from streamml.batch.microbatch import Int


@frozen
class Decoded:
    """Columns of the rows that decoded, and why the others did not.

    Args:
        kept: int64, ascending; indices into the input of the ``m`` rows that decoded.
        columns: arrays ``[m, ...]``.
        failed: (index into the input, reason without any value of the record), ascending.
    """

    kept: Int
    columns: Columns
    failed: Sequence[tuple[int, str]]


class Decoder(Protocol):
    """Turns record values into the columns of a contract, record by record: no record can change another's row."""

    def decode(self, values: Array) -> Decoded:
        """Decode object ``[n]`` of bytes."""
        ...


@frozen
class Encoded:
    """Record values object ``[n]`` of bytes; those at ``failed`` (index, reason) are ``None``."""

    values: Array
    failed: Sequence[tuple[int, str]]


class Encoder(Protocol):
    """Turns columns into record values."""

    def encode(self, columns: Columns, rows: int) -> Encoded:
        """Encode ``rows`` rows."""
        ...
