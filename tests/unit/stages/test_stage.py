"""What a stage says of the rows that go on."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from pydantic import BaseModel

import streamml as sm
from streamml.adapters.memory.feature_store import MemoryFeatureStore
from streamml.batch.column import Columns, object_array
from streamml.batch.microbatch import VALUE, MicroBatch, Origin
from streamml.compose.stages import build_stages
from streamml.ports.feature_store import FeatureSchema

ROWS = 10


class Event(BaseModel):
    id: str
    text: str


class Prediction(BaseModel):
    id: str
    text: str
    prior: float


def shout(columns: Columns) -> dict[str, Any]:
    texts = [text.upper() for text in columns["text"].tolist()]
    return {"text": object_array(texts, len(texts))}


def test_b2_what_a_record_holds_is_counted_once_and_what_a_step_makes_is_counted_too() -> None:
    words = sm.FeatureSet("words", key="id", columns={"prior": sm.f8(default=0.5)})
    others = sm.FeatureSet("others", key="id", columns={"x": sm.f8(default=0.5)})
    topology = sm.Topology(
        "texts",
        source=sm.Source("texts", schema=Event, start="earliest"),
        steps=[
            sm.Transform(shout, inputs=("text",), outputs={"text": "text"}),
            sm.FeatureLookup(words),
            sm.FeatureLookup(others),
            sm.Transform(
                lambda columns: {"prior": columns["words.prior"]}, inputs=("words.prior",), outputs={"prior": "f8"}
            ),
        ],
        sink=sm.Sink("scores", schema=Prediction, key="id"),
        dead_letters=sm.DeadLetterQueue("texts.dlq"),
    )
    store = MemoryFeatureStore()
    store.load(FeatureSchema("words", (("prior", sm.f8(default=0.5)),)), {"i": {"prior": 1.0}}, 0)
    first = build_stages(topology, {}, store, ["texts/0/"])[0]

    result = first.run(records(b'{"id": "i", "text": "a text of some length"}'), 0.0)

    assert result.batch.columns.keys() == {"id", "text", "words.prior"}
    pointers, made = 2 * 8 * ROWS, sys.getsizeof("A TEXT OF SOME LENGTH") * ROWS
    assert result.size_bytes == pointers + made + 8 * ROWS


def records(value: bytes) -> MicroBatch:
    numbers, zeros = np.arange(ROWS), np.zeros(ROWS, np.int64)
    origin = Origin(slot=zeros, ordinal=numbers, offset=numbers, timestamp=zeros, flags=zeros)
    return MicroBatch(origin, {VALUE: object_array([value] * ROWS, ROWS)})
