"""E3: what is written as a dead letter is read as it was."""

from __future__ import annotations

import pytest

from streamml.batch.outcome import Failure
from streamml.engine.dead_letters import DeadLetter, Letter, compose_letter, read_letter
from streamml.ports.source import Headers, RawRecord, TopicPartition


def written(value: bytes | None, headers: Headers, key: bytes | None = b"k") -> Letter:
    record = RawRecord(key, value, headers, 7)
    failure = Failure("decode", "DecodeError", "It is no event.", attempts=3)
    return compose_letter(failure, record, TopicPartition("in", 2), 5, "in/2/5", worker="w", now=1.0)


def read(letter: Letter) -> DeadLetter:
    found = read_letter(RawRecord(letter.key, letter.value, letter.headers, letter.timestamp))
    assert found is not None
    return found


@pytest.mark.parametrize("value", [None, b"", b"x"])
@pytest.mark.parametrize("key", [None, b"", b"k"])
def test_key_value_and_headers_come_back_byte_for_byte(value: bytes | None, key: bytes | None) -> None:
    """E3.1, E3.2."""
    headers: Headers = [
        ("trace", b"t"),
        ("trace", None),
        ("streamml.dlq.null", b"1"),
        ("streamml.dlq.error", b"forged"),
    ]
    found = read(written(value, headers, key))
    assert (found.key, found.value, found.timestamp) == (key, value, 7)
    assert found.headers == tuple(headers)
    assert (found.error, found.attempts) == ("DecodeError", 3)


def test_a_letter_of_a_record_without_a_value_has_one_because_compaction_would_delete_it() -> None:
    letter = written(None, [])
    assert letter.value == b""
    assert dict(letter.headers)["streamml.dlq.null"] == b"1"


def test_a_dead_letter_of_a_dead_letter_holds_it_whole() -> None:
    """E3.1."""
    inner = written(None, [("trace", b"t")])
    outer = read(written(inner.value, inner.headers))
    assert (outer.value, outer.headers) == (b"", tuple(inner.headers))


def test_what_is_no_letter_is_none() -> None:
    """E5.3."""
    assert read_letter(RawRecord(b"k", None, [], 7)) is None
    assert read_letter(RawRecord(b"k", b"x", [("streamml.dlq.version", b"2")], 7)) is None


@pytest.mark.parametrize(
    "told", [{"offset": b"-5"}, {"offset": b"9" * 25}, {"partition": b"9" * 12}, {"attempts": b"-1"}, {"offset": b"x"}]
)
def test_a_letter_of_a_place_that_no_record_can_have_is_none(told: dict[str, bytes]) -> None:
    """E5.3."""
    letter = written(b"v", [])
    headers: Headers = [(name, told.get(name.rpartition(".")[2], value)) for name, value in letter.headers]
    assert read_letter(RawRecord(letter.key, letter.value, letter.headers, 7)) is not None
    assert read_letter(RawRecord(letter.key, letter.value, headers, 7)) is None
