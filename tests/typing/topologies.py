"""Three topologies of different kinds, as users write them; type-checked, checked and run by tests.

Tabular; detect, crop, recognise with any number of crops per image; two topics with nulls, text and vectors.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel

import streamml as sm


# Tabular: a feature lookup, a matrix, a score.
class Payment(BaseModel):
    id: str
    account: str
    amount: float
    at: datetime


class Fraud(BaseModel):
    id: str
    probability: float


accounts = sm.FeatureSet(
    "accounts", key="account", ttl="36h", columns={"mean": sm.f4(default=0.0), "recent": sm.f4[3](default=0.0)}
)


def payment_inputs(columns: dict[str, Any]) -> dict[str, Any]:
    """Amount, mean and three recent amounts; a negative amount is no payment."""
    parts = [columns["amount"][:, None], columns["accounts.mean"][:, None], columns["accounts.recent"]]
    x = np.concatenate(parts, axis=1).astype(np.float32)
    return {"x": x, **sm.failures(columns["amount"] < 0, "The amount is negative.")}


tabular = sm.Topology(
    "fraud",
    source=sm.Source("payments", schema=Payment, start="earliest", event_time="at"),
    steps=[
        sm.FeatureLookup(accounts),
        sm.Transform(payment_inputs, inputs=("amount", "accounts.mean", "accounts.recent"), outputs={"x": "f4[5]"}),
        sm.Onnx("fraud", outputs={"probability": sm.Output("probabilities", column=1)}),
    ],
    sink=sm.Sink("frauds", schema=Fraud, key="id"),
    dead_letters=sm.DeadLetterQueue("payments.dlq"),
)


# Images: find plates, cut them out, read each.
class Image(BaseModel):
    camera: str
    pixels: list[float]  # 8 x 8, row by row


class Plate(BaseModel):
    camera: str
    confidence: float
    text: str


def to_tensor(columns: dict[str, Any]) -> dict[str, Any]:
    """Pixels as one channel; an image of another size fails alone."""
    images = columns["pixels"].tolist()
    wrong = np.array([len(image) != 64 for image in images])
    whole = np.array([image if len(image) == 64 else [0.0] * 64 for image in images], np.float32)
    return {"image": whole.reshape(-1, 1, 8, 8), **sm.failures(wrong, "The image is not 8 x 8.")}


def crop(columns: dict[str, Any]) -> dict[str, Any]:
    """One row for each of up to four boxes that the detector is sure of."""
    confidence = columns["confidences"]
    image, box = np.nonzero(confidence > 0.5)
    corners = columns["boxes"][image, box].astype(int)
    crops = [columns["image"][i, :, y : y + 4, x : x + 4] for i, (y, x) in zip(image, corners, strict=True)]
    return {
        "crop": np.array(crops, np.float32).reshape(-1, 1, 4, 4),
        "confidence": confidence[image, box],
        sm.PARENT: image,
    }


def spell(columns: dict[str, Any]) -> dict[str, Any]:
    """Letters by their most likely class."""
    letters = columns["logits"].argmax(axis=2)
    texts = ["".join(chr(65 + letter) for letter in row) for row in letters.tolist()]
    return {"text": np.array(texts, object)}


vision = sm.Topology(
    "plates",
    source=sm.Source("images", schema=Image, start="latest", max_record_bytes=4_000_000),
    steps=[
        sm.Transform(to_tensor, inputs=("pixels",), outputs={"image": "f4[1,8,8]"}),
        sm.Onnx(
            "detector",
            outputs={"boxes": "boxes", "confidences": "confidences"},
            batching=sm.Batching(max_batch_size=16, latency_budget="200ms"),
        ),
        sm.Explode(crop, inputs=("image", "boxes", "confidences"), outputs={"crop": "f4[1,4,4]", "confidence": "f4"}),
        sm.Onnx("reader", inputs={"x": "crop"}, outputs={"logits": "logits"}),
        sm.Transform(spell, inputs=("logits",), outputs={"text": sm.text}),
    ],
    sink=sm.Sink("plates", schema=Plate, key="camera", headers=("traceparent",)),
    dead_letters=sm.DeadLetterQueue("images.dlq", max_ratio=0.2),
)


# Two topics with one contract: nulls, text, vectors; provenance in the value.
class Review(BaseModel):
    id: str
    title: str | None = None
    body: str
    stars: int | None = None
    embedding: list[float]


class Mood(BaseModel):
    id: str
    stars: int | None
    positive: float
    prediction_id: str
    model: str
    revision: int
    flags: str


def has_body(columns: dict[str, Any]) -> npt.NDArray[np.bool_]:
    """Reviews without a word are dropped on purpose."""
    return np.array([bool(body.strip()) for body in columns["body"].tolist()])


def review_inputs(columns: dict[str, Any]) -> dict[str, Any]:
    """Title before body where there is one; stars, 0 where there are none; a vector of eight."""
    title = np.ma.filled(columns["title"], "")
    text = np.array([f"{one} {other}".strip() for one, other in zip(title, columns["body"], strict=True)], object)
    vectors = [vector if len(vector) == 8 else [0.0] * 8 for vector in columns["embedding"].tolist()]
    return {"text": text, "given": np.ma.filled(columns["stars"], 0), "vector": np.array(vectors, np.float32)}


two_topics = sm.Topology(
    "moods",
    source=sm.Source("reviews.web", "reviews.app", schema=Review, start="earliest", on_tombstone="forward"),
    steps=[
        sm.Filter(has_body, inputs=("body",)),
        sm.Transform(
            review_inputs,
            inputs=("title", "body", "stars", "embedding"),
            outputs={"text": "text", "given": "i8", "vector": "f4[8]"},
        ),
        sm.Onnx("mood", outputs={"positive": "positive"}),
    ],
    sink=sm.Sink("moods", schema=Mood, key="id", provenance="fields", order="none"),
    dead_letters=sm.DeadLetterQueue("reviews.dlq"),
)

# -- predictions that apps look up: no topic of predictions


class Positive(BaseModel):
    id: str
    positive: float


looked_up = sm.Topology(
    "moods-by-review",
    source=two_topics.source,
    steps=two_topics.steps,
    sink=sm.RedisSink("moods", schema=Positive, key="id", ttl="24h"),
    dead_letters=two_topics.dead_letters,
)
