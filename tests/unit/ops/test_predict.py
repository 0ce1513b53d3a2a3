"""Predictions in this process: features have their defaults, and batches their bounds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import BaseModel

import streamml as sm
from streamml.adapters.models.onnx import OnnxModel
from streamml.batch.column import Columns
from streamml.compose.locate import Located
from streamml.ops.predict import predict
from streamml.settings.settings import Settings
from tests.integration.scoring import model


class Payment(BaseModel):
    id: str
    account: str
    amount: float


class Score(BaseModel):
    id: str
    score: float


MEAN = sm.f4(default=0.5)


def topology(column: sm.ColumnType = MEAN, **policies: Any) -> sm.Topology:
    def to_matrix(columns: Columns) -> dict[str, Any]:
        return {"x": np.stack([columns["amount"], columns["accounts.mean"]], axis=1).astype("f4")}

    return sm.Topology(
        "payments",
        source=sm.Source("payments", schema=Payment, start="earliest"),
        steps=[
            sm.FeatureLookup(sm.FeatureSet("accounts", key="account", columns={"mean": column}, **policies)),
            sm.Transform(to_matrix, inputs=("amount", "accounts.mean"), outputs={"x": "f4[2]"}),
            sm.Onnx("adder", outputs={"score": "score"}, batching=sm.Batching(max_batch_size=100)),
        ],
        sink=sm.Sink("scores", schema=Score, key="id"),
        dead_letters=sm.DeadLetterQueue("payments.dlq"),
    )


def events(count: int) -> list[bytes]:
    return [
        json.dumps({"id": f"p{number}", "account": "a", "amount": float(number)}).encode() for number in range(count)
    ]


@pytest.mark.parametrize("policy", ["default", "dead_letter", "fail"])
def test_f3_more_rows_than_the_share_of_defaults_is_taken_over_are_all_scored_with_defaults(
    tmp_path: Path, policy: str
) -> None:
    model(tmp_path)
    rows = predict(Located(topology(if_missing=policy), tmp_path), Settings(), dict(enumerate(events(1500))))
    assert [row["prediction"] for row in rows] == [
        {"id": f"p{number}", "score": number + 0.5} for number in range(1500)
    ]
    assert {row["flags"] for row in rows} == {"accounts@none:missing"}


def test_no_batch_has_more_rows_than_the_model_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model(tmp_path)
    sizes: list[int] = []
    run = OnnxModel.run

    def counted(self: OnnxModel, inputs: Columns) -> Any:
        sizes.append(len(inputs["x"]))
        return run(self, inputs)

    monkeypatch.setattr(OnnxModel, "run", counted)
    assert len(predict(Located(topology(), tmp_path), Settings(), dict(enumerate(events(1250))))) == 1250
    assert max(sizes) == 100


def test_features_without_a_default_are_not_made_up(tmp_path: Path) -> None:
    model(tmp_path)
    declared = topology(sm.f4, if_missing="fail", if_stale="fail")
    rows = predict(Located(declared, tmp_path), Settings(), dict(enumerate(events(2))))
    assert {row["dead_letter"]["error"] for row in rows} == {"FeatureMissing"}
