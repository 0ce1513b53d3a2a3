"""Events, the records among them that are none, and what each event's prediction has to be."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from loadtests.baseline import load
from loadtests.baseline.topology import FIELDS
from loadtests.faults.topology import NOT_A_NUMBER, RAISES, TOO_LARGE

MODELS: Final = Path(load.__file__).parent / "models"
TOLERANCE: Final = 1e-5
Poison = Callable[[dict[str, Any]], bytes | None]


def _with(**changes: Any) -> Poison:
    return lambda event: json.dumps({**event, **changes}).encode()


def _text(change: Callable[[bytes], bytes]) -> Poison:
    return lambda event: change(json.dumps(event).encode())


POISON: Final[dict[str, Poison]] = {
    "empty": lambda event: b"",
    "tombstone": lambda event: None,
    "not_json": lambda event: b"\x00\x01 no JSON",
    "half": _text(lambda value: value[: len(value) // 2]),
    "not_utf8": _text(lambda value: value.replace(b'"country": "', b'"country": "\xff\xfe')),
    "missing_field": _text(lambda value: value.replace(b'"amount"', b'"amounts"')),
    "wrong_type": _with(merchant="far"),
    "null": _with(account=None),
    "nan": _with(amount=float("nan")),
    "huge_integer": _with(hour=2**70),
    "repeated_key": _text(lambda value: value.replace(b"{", b'{"account": 1, ', 1)),
    "two_records": _text(lambda value: value + b"," + value),
}
"""Records that are no events, by kind."""
BAD_ROWS: Final[dict[str, Poison]] = {
    "raises": _with(merchant=RAISES),
    "model_nan": _with(merchant=NOT_A_NUMBER),
    "out_of_memory": _with(merchant=TOO_LARGE),
}
"""Good events that the job cannot score."""
DROPPED: Final = ("tombstone",)
"""Kinds that end without a dead letter, on purpose."""


@dataclass(frozen=True)
class Stream:
    """Events, made by a seed.

    Args:
        right: the score that each has to get.
        defaulted: the score that each gets with the defaults of all features.
    """

    keys: list[bytes]
    values: list[bytes]
    accounts: npt.NDArray[np.int64]
    right: npt.NDArray[np.float32]
    defaulted: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.values)


def prepare(count: int, seed: int) -> Stream:
    """``count`` events, scored by numpy and ONNX Runtime alone."""
    keys, values = map(list, zip(*load.events(count, seed), strict=True))
    documents = [json.loads(value) for value in values]
    fields = np.array([[one[name] for name in FIELDS] for one in documents], np.float32)
    accounts = np.array([one["account"] for one in documents])
    stored = np.stack(list(load.feature_columns().values()), axis=1)
    return Stream(keys, values, accounts, _scores(fields, stored[accounts]), _scores(fields, 0 * stored[accounts]))


def _scores(fields: npt.NDArray[np.float32], features: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    from onnxruntime import InferenceSession

    session = InferenceSession(str(MODELS / "mlp" / "1" / "model.onnx"))
    scores: npt.NDArray[np.float32] = session.run(["score"], {"x": np.hstack([fields, features])})[0][:, 0]
    return scores
