"""Dead letters as people may see them."""

from __future__ import annotations

from dataclasses import replace

import pytest

import streamml as sm
from streamml.engine.dead_letters import DeadLetter
from streamml.ops.dead_letters import HIDDEN, redacted
from tests.testing.shop import Payment, payments

LETTER = DeadLetter("id", "t", 0, 1, "decode", "E", "m", "", 1, "w", 1, 1, b"ann", None, (("h", b"ann"), ("n", None)))
GUARDED = replace(payments(), source=sm.Source("payments", schema=Payment, start="earliest", secret=("account",)))


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, None),
        (b"", HIDDEN.encode()),
        (b"[1]", HIDDEN.encode()),
        (b"\xff ann", HIDDEN.encode()),
        (b'{"account": "ann", "amount": 1}', b'{"account": "\\u2022\\u2022\\u2022", "amount": 1}'),
    ],
)
def test_e5_nothing_secret_of_a_record_is_shown_tombstones_too(value: bytes | None, shown: bytes | None) -> None:
    """E5.2."""
    seen = redacted(replace(LETTER, value=value), GUARDED)
    assert (seen.value, seen.key, seen.headers) == (shown, HIDDEN.encode(), (("h", HIDDEN.encode()), ("n", None)))
    assert redacted(replace(LETTER, value=value), payments()) == replace(LETTER, value=value)
