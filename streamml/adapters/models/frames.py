"""Columns over a socket: what a model's process is asked, and what it answers.

A frame is the length of its head (4 bytes, little-endian), the head (JSON), and the values of its columns one after the
other. Text is the lengths of its values in UTF-8 (4 bytes each), then the values. Nothing in it can run.
"""

from __future__ import annotations

import json
import math
import socket
import struct
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from streamml.batch.column import Array

Head = dict[str, Any]

_LENGTH: Final = struct.Struct("<I")


def send(channel: socket.socket, head: Head, columns: Mapping[str, Array] | None = None) -> None:
    """Send one frame; numbers, truth values and text of any shape.

    Raises:
        OSError: the other side is gone.
    """
    packed = {name: _packed(column) for name, column in (columns or {}).items()}
    described = [[name, *described] for name, (described, _) in packed.items()]
    text = json.dumps({**head, "columns": described}).encode()
    channel.sendall(_LENGTH.pack(len(text)) + text)
    for _, values in packed.values():
        channel.sendall(values)


def receive(channel: socket.socket) -> tuple[Head, dict[str, Array]]:
    """Wait for one frame.

    Raises:
        EOFError: the other side is gone.
        TimeoutError: as the socket's timeout says.
    """
    head: Head = json.loads(_exactly(channel, _LENGTH.unpack(_exactly(channel, _LENGTH.size))[0]))
    columns = {name: _unpacked(kind, shape, _exactly(channel, size)) for name, kind, shape, size in head.pop("columns")}
    return head, columns


def _packed(column: Array) -> tuple[list[Any], memoryview | bytes]:
    if column.dtype != object:
        values = np.ascontiguousarray(column)
        return [values.dtype.str, list(column.shape), values.nbytes], values.reshape(-1).view(np.uint8).data
    texts = [value.encode("utf-8", "surrogatepass") for value in column.ravel().tolist()]
    joined = b"".join([np.array([len(text) for text in texts], "<u4").tobytes(), *texts])
    return ["text", list(column.shape), len(joined)], joined


def _unpacked(kind: str, shape: list[int], payload: bytearray) -> Array:
    if kind != "text":
        return np.frombuffer(payload, np.dtype(kind)).reshape(shape)
    count = math.prod(shape)
    ends = 4 * count + np.cumsum(np.frombuffer(payload, "<u4", count), dtype=np.int64)
    starts = np.concatenate([[4 * count], ends[:-1]]) if count else ends
    texts = (
        payload[start:end].decode("utf-8", "surrogatepass")
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True)
    )
    return np.fromiter(texts, dtype=object, count=count).reshape(shape)


def _exactly(channel: socket.socket, size: int) -> bytearray:
    payload = bytearray(size)
    view, read = memoryview(payload), 0
    while read < size:
        try:
            came = channel.recv_into(view[read:])
        except ConnectionError:
            came = 0
        if not came:
            raise EOFError("the other side is gone")
        read += came
    return payload
