"""Reads the two things that must be known about an ONNX file before any runtime opens it.

Is it an ONNX file at all, and which other files does it pull in? This walks the protobuf wire format along the few
fields that can lead to a tensor, so it needs neither ``onnx`` nor ``onnxruntime``, and it executes nothing. The numbers
of the fields are those of https://github.com/onnx/onnx/blob/main/onnx/onnx.proto.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_FIELDS: Final[dict[str, dict[int, str]]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
}
_KEY, _VALUE = 1, 2
_VARINT, _EIGHT_BYTES, _BYTES, _FOUR_BYTES = 0, 1, 2, 5


def external_files(path: Path) -> frozenset[str]:
    """Locations of the files outside ``path`` that hold values of the model, exactly as they are written in it.

    Raises:
        ValueError: the file is not an ONNX model.
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        if path.stat().st_size == 0:
            raise ValueError("it is empty")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return _external_files(content)


def _external_files(content: mmap.mmap) -> frozenset[str]:
    found: set[str] = set()
    graphs = 0
    todo = [("model", 0, len(content))]
    while todo:
        message, start, end = todo.pop()
        if message == "entry":
            found.update(_location(content, start, end))
            continue
        graphs += message == "graph"
        inner = _FIELDS[message]
        spans = _spans(content, start, end)
        todo.extend((inner[field], first, last) for field, first, last in spans if field in inner)
    if not graphs:
        raise ValueError("it holds no graph")
    return frozenset(found)


def _location(content: mmap.mmap, start: int, end: int) -> Iterator[str]:
    entry = {field: content[first:last] for field, first, last in _spans(content, start, end)}
    if entry.get(_KEY) == b"location":
        yield entry.get(_VALUE, b"").decode()


def _spans(content: mmap.mmap, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Field number, start and end of every length-delimited field of one message."""
    while at < end:
        tag, at = _varint(content, at, end)
        field, wire = tag >> 3, tag & 7
        if wire == _BYTES:
            size, at = _varint(content, at, end)
            if size > end - at:
                raise ValueError("a field is longer than the file")
            yield field, at, at + size
            at += size
        elif wire == _VARINT:
            _, at = _varint(content, at, end)
        elif wire in (_EIGHT_BYTES, _FOUR_BYTES):
            at += 8 if wire == _EIGHT_BYTES else 4
        else:
            raise ValueError("it is not in the protobuf format")
    if at != end:
        raise ValueError("a field is longer than the file")


def _varint(content: mmap.mmap, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end and shift < 70:
        byte = content[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
    raise ValueError("it is not in the protobuf format")
