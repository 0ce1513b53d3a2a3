"""Every problem of a topology is a sentence, and all come at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any

import numpy as np
import pytest
from pydantic import BaseModel

import streamml as sm
from streamml.batch.column import Columns
from streamml.ports.model import Signature, Tensor
from streamml.topology.check import problems
from streamml.topology.plan import plan


class Event(BaseModel):
    id: str
    account: int
    amount: float
    at: datetime
    note: str | None = None


class Prediction(BaseModel):
    id: str
    score: float


SETS = sm.FeatureSet("accounts", key="account", columns={"mean": sm.f4(default=0.0)}, ttl="36h")
SIGNATURE = Signature({"x": Tensor("float32", (2,))}, {"score": Tensor("float32", (1,)), "p": Tensor("float32", (3,))})


def build(columns: Columns) -> dict[str, Any]:
    return {"x": np.stack([columns["amount"], columns["accounts.mean"]], axis=1).astype("f4")}


def topology(**changes: Any) -> sm.Topology:
    declared: dict[str, Any] = {
        "source": sm.Source("events", schema=Event, start="earliest", event_time="at"),
        "steps": [
            sm.FeatureLookup(SETS),
            sm.Transform(build, inputs=("amount", "accounts.mean"), outputs={"x": "f4[2]"}),
            sm.Onnx("scorer", outputs={"score": "score"}, batching=sm.Batching(max_batch_size=256)),
        ],
        "sink": sm.Sink("scores", schema=Prediction, key="id"),
        "dead_letters": sm.DeadLetterQueue("events.dlq"),
    }
    return sm.Topology(changes.pop("name", "scoring"), **{**declared, **changes})


def found(**changes: Any) -> list[str]:
    return problems(topology(**changes), {"scorer": SIGNATURE})


def with_set(**changes: Any) -> dict[str, Any]:
    declared = {"key": "account", "columns": {"mean": sm.f4(default=0.0)}, **changes}
    steps = list(topology().steps)
    steps[0] = sm.FeatureLookup(sm.FeatureSet("accounts", **declared))
    return {"steps": steps}


def replaced_name(name: str) -> sm.FeatureSet:
    return sm.FeatureSet(name, key="account", columns=SETS.columns, ttl="36h")


def with_model(**changes: Any) -> dict[str, Any]:
    declared: dict[str, Any] = {"outputs": {"score": "score"}, **changes}
    return {"steps": [*topology().steps[:2], sm.Onnx("scorer", **declared)]}


def keep(columns: Columns) -> Any:
    return columns["amount"] > 0


def with_headers(*names: Any) -> dict[str, Any]:
    return {"sink": sm.Sink("scores", schema=Prediction, key="id", headers=names)}


class OnlyText(BaseModel):
    id: str
    score: str


class Unfed(BaseModel):
    id: str
    score: float
    colour: str


def test_a_sound_topology_has_no_problem() -> None:
    assert found() == []


def test_headers_that_only_look_like_ours_are_passed_on() -> None:
    assert found(**with_headers("trace", "streamml-trace", "x.streamml")) == []


def test_a_topology_is_comparable_and_printable() -> None:
    assert topology() == topology()
    assert "Topology(name='scoring'" in repr(topology())


SOURCE = topology().source
CASES: list[tuple[str, Callable[[], dict[str, Any]]]] = [
    ("name", lambda: {"name": "has spaces"}),
    ("no topic", lambda: {"source": sm.Source(schema=Event, start="earliest")}),
    ("have to be different topics", lambda: {"sink": sm.Sink("events", schema=Prediction, key="id")}),
    ("start", lambda: {"source": sm.Source("events", schema=Event, start="sometime", event_time="at")}),  # type: ignore[arg-type]
    ("no field of Event", lambda: {"source": sm.Source("events", schema=Event, start="earliest", event_time="when")}),
    ("has to be a datetime", lambda: {"source": sm.Source("events", schema=Event, start="earliest", event_time="id")}),
    ("the feature-log topic and the source topic", lambda: {"feature_log": sm.FeatureLog("events")}),
    ("The feature-log topic 'a b' cannot be", lambda: {"feature_log": sm.FeatureLog("a b")}),
    ("The source topic '.' cannot be", lambda: {"source": sm.Source(".", schema=Event, start="earliest")}),
    ("The sink topic '..' cannot be", lambda: {"sink": sm.Sink("..", schema=Prediction, key="id")}),
    ("The topology's name '.' has to be", lambda: {"name": "."}),
    (
        "looks up no features",
        lambda: {"feature_log": sm.FeatureLog("log"), "steps": topology().steps[2:]},
    ),
    (
        "A feature log is in the order of the source",
        lambda: {
            "feature_log": sm.FeatureLog("log"),
            "sink": replace(topology().sink.into("predictions"), order="none"),
        },
    ),
    ("max_ratio", lambda: {"dead_letters": sm.DeadLetterQueue("events.dlq", max_ratio=7)}),
    ("min_sample", lambda: {"dead_letters": sm.DeadLetterQueue("events.dlq", min_sample=0)}),
    ("reads the column 'nowhere'", lambda: {"steps": [sm.Filter(keep, inputs=("nowhere",)), *topology().steps]}),
    (
        "is there already",
        lambda: {"steps": [*topology().steps, sm.Transform(build, inputs=(), outputs={"x": "f4[2]"})]},
    ),
    ("if_missing", lambda: with_set(if_missing="explode")),
    ("ttl", lambda: with_set(ttl="soon")),
    ("without a default", lambda: with_set(columns={"mean": sm.f4})),
    ("a default that is no value of f4: 'a'", lambda: with_set(columns={"mean": sm.f4(default="a")})),
    ("a default that is no value of i4: 1.5", lambda: with_set(columns={"mean": sm.i4(default=1.5)})),
    ("a default that does not fit into i4", lambda: with_set(columns={"mean": sm.i4(default=2**40)})),
    ("a default that does not fit into f4", lambda: with_set(columns={"mean": sm.f4(default=1e300)})),
    ("a default that is no value of bool: 1", lambda: with_set(columns={"mean": sm.boolean(default=1)})),
    ("a default that is no value of timestamp", lambda: with_set(columns={"mean": sm.timestamp(default="soon")})),
    ("only numbers", lambda: with_set(columns={"mean": sm.f4(default=0.0), "city": sm.text(default="")})),
    ("a key is text", lambda: with_set(key="amount")),
    ("max_default_ratio", lambda: with_set(max_default_ratio=2.0)),
    ("is looked up 2 times", lambda: {"steps": [sm.FeatureLookup(SETS, SETS), *topology().steps[1:]]}),
    ("near_cache has max_mb 0", lambda: with_set(near_cache=sm.NearCache(max_mb=0))),
    ("near_cache: max_staleness: 'soon'", lambda: with_set(near_cache=sm.NearCache(max_staleness="soon"))),
    ("near_cache is '64MB'; it has to be NearCache", lambda: with_set(near_cache="64MB")),
    ("ttl is '0.1ms'; it has to be from 1ms", lambda: with_set(ttl="0.1ms")),
    ("ttl is '99999999d'; it has to be from 1ms to 36525d", lambda: with_set(ttl="99999999d")),
    ("The ttl of the RedisSink 'latest' is '0.1ms'", lambda: {"latest": sm.RedisSink("latest", ttl="0.1ms")}),
    (
        "has a column 'event_time'",
        lambda: with_set(kind="streaming", ttl="1h", columns={"event_time": sm.f4(default=0.0)}),
    ),
    ("column 'mean' of type f4[0], which cannot be stored", lambda: with_set(columns={"mean": sm.f4[0](default=0.0)})),
    (
        "feature set 'all accounts' is no valid name",
        lambda: {"steps": [sm.FeatureLookup(replaced_name("all accounts"))]},
    ),
    ("feature set 'current' is a reserved name", lambda: {"steps": [sm.FeatureLookup(replaced_name("current"))]}),
    ("sink is 'scores'; it has to be Sink | RedisSink", lambda: {"sink": "scores"}),
    ("latest is 'scores'; it has to be RedisSink | None", lambda: {"latest": "scores"}),
    ("RedisSink: name is 5; it has to be str", lambda: {"latest": sm.RedisSink(5)}),  # type: ignore[arg-type] # what a user may do
    ("RedisSink 'latest': ttl is 5; it has to be str | None", lambda: {"latest": sm.RedisSink("latest", ttl=5)}),  # type: ignore[arg-type] # likewise
    ("FeatureLookup: sets is ('accounts',)", lambda: {"steps": [sm.FeatureLookup("accounts")]}),  # type: ignore[arg-type] # likewise
    ("NearCache: max_mb is 1.5; it has to be int", lambda: with_set(near_cache=sm.NearCache(max_mb=1.5))),  # type: ignore[arg-type] # likewise
    ("columns is {'mean': 'f4'}", lambda: with_set(columns={"mean": "f4"})),
    ("max_batch_size", lambda: with_model(batching=sm.Batching(max_batch_size=0))),
    ("latency_budget", lambda: with_model(batching=sm.Batching(latency_budget="fast"))),
    ("so nothing is late", lambda: with_model(batching=sm.Batching(on_late="last"))),
    (
        'set Sink(order="none")',
        lambda: with_model(batching=sm.Batching(latency_budget="50ms", on_late="last")),
    ),
    ("on_late", lambda: with_model(batching=sm.Batching(latency_budget="50ms", on_late="never"))),  # type: ignore[arg-type]
    ("which the model has not", lambda: with_model(outputs={"score": "logit"})),
    ("no such column", lambda: with_model(outputs={"score": sm.Output("p", column=3)})),
    ("nothing feeds", lambda: {"steps": [sm.FeatureLookup(SETS), sm.Onnx("scorer", outputs={"score": "score"})]}),
    (
        "the shapes of a row differ",
        lambda: {
            "steps": [
                sm.FeatureLookup(SETS),
                sm.Transform(build, inputs=("amount",), outputs={"x": "f4[5]"}),
                topology().steps[2],
            ]
        },
    ),
    ("convert it by a Transform", lambda: with_model(inputs={"x": "account"})),
    ("nullable column", lambda: with_model(inputs={"x": "note"})),
    ("fed by no column", lambda: {"sink": sm.Sink("scores", schema=Unfed, key="id")}),
    ("OnlyText.score is text", lambda: {"sink": sm.Sink("scores", schema=OnlyText, key="id")}),
    ("The RedisSink's name", lambda: {"latest": sm.RedisSink("a b")}),
    ("ttl of the RedisSink", lambda: {"latest": sm.RedisSink("scores", ttl="soon")}),
    (
        "keeps predictions by the sink's key",
        lambda: {"latest": sm.RedisSink("scores"), "sink": sm.Sink("scores", schema=Prediction)},
    ),
    ("and has no schema", lambda: {"sink": sm.RedisSink("scores", key="id")}),
    ("in RedisSink(key=)", lambda: {"sink": sm.RedisSink("scores", schema=Prediction)}),
    ("leave its schema and key out", lambda: {"latest": sm.RedisSink("scores", key="id")}),
    (
        "is another one beside it",
        lambda: {"latest": sm.RedisSink("more"), "sink": sm.RedisSink("scores", schema=Prediction, key="id")},
    ),
    ("The sink's key", lambda: {"sink": sm.Sink("scores", schema=Prediction, key="nobody")}),
    ("passes on the header 'streamml'", lambda: with_headers("trace", "streamml")),
    ("passes on the header 'streamml.dlq.key'", lambda: with_headers("streamml.dlq.key")),
    ("a header's name is text", lambda: with_headers("")),
    ("Sink 'scores': headers is (b'trace',); it has to be tuple[str, ...]", lambda: with_headers(b"trace")),
    ("provenance is 'fields'", lambda: {"sink": sm.Sink("scores", schema=Prediction, key="id", provenance="fields")}),
]


@pytest.mark.parametrize(("words", "changes"), CASES, ids=[words for words, _ in CASES])
def test_l1_each_mistake_is_told_in_a_sentence(words: str, changes: Callable[[], dict[str, Any]]) -> None:
    """L1.1, L1.2."""
    told = [problem for problem in found(**changes()) if words in problem]
    assert told
    assert all(problem.endswith((".", "…).")) for problem in told)


@pytest.mark.parametrize(
    "column",
    [
        sm.f4(default=1),
        sm.f4(default=float("nan")),
        sm.f4[2](default=0.5),
        sm.f4[2](default=[0.5, 1]),  # type: ignore[arg-type]  # what numpy takes works
        sm.i8(default=-(2**63)),
        sm.boolean(default=True),
        sm.timestamp(default="2026-01-01"),
    ],
    ids=lambda column: f"{column}, {column.default}",
)
def test_l1_a_default_that_fits_is_no_problem(column: sm.ColumnType) -> None:
    flow = {"mean": column, "other": sm.f4(default=0.0)}
    assert not [problem for problem in found(**with_set(columns=flow)) if "default" in problem]


def test_l1_all_problems_come_at_once() -> None:
    """L1.2."""
    wrong = topology(
        name="",
        source=replace_start(SOURCE),
        dead_letters=sm.DeadLetterQueue("events", max_ratio=-1, min_sample=-1),
    )
    assert len(problems(wrong, {"scorer": SIGNATURE})) >= 5


def replace_start(source: sm.Source) -> sm.Source:
    return sm.Source(*source.topics, schema=Event, start="never")  # type: ignore[arg-type]


def explode(columns: Columns) -> dict[str, Any]:
    return {}


def test_stages_end_after_lookups_models_and_explodes() -> None:
    parts = sm.Explode(explode, inputs=("amount",), outputs={"y": "f4[2]"})
    twice = sm.Onnx("reader", inputs={"x": "y"}, outputs={"text": "score"})
    steps = [*topology().steps, parts, twice]
    cut = plan(topology(steps=steps), {"scorer": SIGNATURE, "reader": SIGNATURE})
    assert [[step.name for step in stage.steps] for stage in cut.stages] == [
        ["lookup(accounts)"],
        ["build", "scorer"],
        ["explode"],
        ["reader"],
    ]
    assert [stage.max_rows for stage in cut.stages] == [4096, 256, 4096, 4096]


def test_only_columns_that_are_read_later_are_decoded_and_kept() -> None:
    cut = plan(topology(), {"scorer": SIGNATURE})
    assert cut.decoded == {"id", "account", "amount", "at"}
    assert {"id", "amount", "accounts.mean"} <= cut.stages[0].keep
    assert "account" not in cut.stages[0].keep


def test_what_is_logged_is_kept_to_the_end() -> None:
    steps = topology(feature_log=sm.FeatureLog("log")).steps
    twice = (*steps, sm.Onnx("again", outputs={"p": "p"}))
    for log, kept in ((sm.FeatureLog("log"), True), (None, False)):
        cut = plan(topology(steps=twice, feature_log=log), {"scorer": SIGNATURE, "again": SIGNATURE})
        assert ("accounts.mean" in cut.stages[-1].keep) is kept


def test_policies_are_frozen() -> None:
    with pytest.raises(AttributeError):
        sm.Batching().max_batch_size = 3  # type: ignore[misc]
    assert replace(sm.Batching(), max_batch_size=3).max_batch_size == 3
