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
from loadtests.baseline.topology import FIELDS, RECENT
from loadtests.faults import fast
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
        fields: what each says to the model, ``[n, 6]``.
        stored: loaded features by account, ``[accounts, 16]``.
        session: the model.
    """

    keys: list[bytes]
    values: list[bytes]
    accounts: npt.NDArray[np.int64]
    fields: npt.NDArray[np.float32]
    stored: npt.NDArray[np.float32]
    session: Any

    def __len__(self) -> int:
        return len(self.values)

    def scores(
        self, numbers: npt.NDArray[np.int64], loaded: npt.NDArray[np.bool_], ticks: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.float32]:
        """What numpy and ONNX Runtime alone make of these events, ``[n]``.

        Args:
            loaded: whether each has its loaded features, and not their defaults.
            ticks: event times of their fast features, µs; 0 with the defaults.
        """
        accounts = self.accounts[numbers]
        slow = self.stored[accounts, : -len(RECENT)] * loaded[:, None]
        x = np.hstack([self.fields[numbers], slow, fast.values(accounts, ticks)])
        scores: npt.NDArray[np.float32] = self.session.run(["score"], {"x": x})[0][:, 0]
        return scores


def prepare(count: int, seed: int) -> Stream:
    """``count`` events."""
    from onnxruntime import InferenceSession, SessionOptions

    keys, values = map(list, zip(*load.events(count, seed), strict=True))
    documents = [json.loads(value) for value in values]
    fields = np.array([[one[name] for name in FIELDS] for one in documents], np.float32)
    accounts = np.array([one["account"] for one in documents])
    stored = np.stack(list(load.feature_columns().values()), axis=1)
    options = SessionOptions()
    # The judge shares the cores with those it judges: threads that wait for its next batch would take them.
    options.intra_op_num_threads = 1
    session = InferenceSession(str(MODELS / "mlp" / "1" / "model.onnx"), options)
    return Stream(keys, values, accounts, fields, stored, session)
