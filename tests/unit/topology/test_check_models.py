"""What can be wrong with a `Python` step is found before its factory is called."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel

import streamml as sm
from streamml.topology.check import problems


class Event(BaseModel):
    id: str
    amount: float
    note: str | None = None


class Score(BaseModel):
    id: str
    score: float


def factory() -> Any:
    raise AssertionError("a check calls nothing")


def step(**changes: Any) -> sm.Python:
    given = {"inputs": {"amount": "f8"}, "outputs": {"score": "f8"}, "version": "1", **changes}
    return sm.Python(given.pop("factory", factory), **given)


def found(*steps: sm.Python | sm.Torch) -> list[str]:
    return problems(
        sm.Topology(
            "scores",
            source=sm.Source("events", schema=Event, start="earliest"),
            steps=list(steps),
            sink=sm.Sink("scored", schema=Score, key="id"),
            dead_letters=sm.DeadLetterQueue("letters"),
        )
    )


@pytest.mark.parametrize("isolation", ["thread", "process"])
def test_good_step_has_no_problem(isolation: str) -> None:
    assert found(step(isolation=isolation, calls=sm.Calls(rows=8, concurrency=2, timeout="1s", rate=100))) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"factory": 3, "name": "m"}, "cannot be called: int"),
        ({"name": "a@b"}, "the name 'a@b'"),
        ({"factory": lambda: None}, "the name '<lambda>'"),
        ({"version": "1;2"}, "the version '1;2'"),
        ({"inputs": {}}, "no inputs"),
        ({"outputs": {"score": "f8", "when": "timestamp"}}, "declares 'when' as timestamp"),
        ({"inputs": {"note": "text"}}, "nullable column 'note'"),
        ({"inputs": {"note": "text?"}}, "'note' as text?"),
        ({"inputs": {"amount": "f4"}}, "'amount', float32[rows], by 'amount' of type f8"),
        ({"inputs": {"missing": "f4"}}, "reads the column 'missing', which nothing before it makes"),
        ({"isolation": "container"}, "choose among thread, process"),
        ({"factory": lambda: None, "name": "m", "isolation": "process"}, "top of a file"),
        ({"calls": sm.Calls(rows=0)}, "rows=0"),
        ({"calls": sm.Calls(concurrency=0)}, "concurrency=0"),
        ({"calls": sm.Calls(timeout="soon")}, "timeout"),
        ({"calls": sm.Calls(rate=0)}, "rate=0"),
        ({"calls": sm.Calls(rows=1, rate=10)}, "410 s for a batch of 4096 rows"),
        ({"calls": sm.Calls(cost=-1)}, "cost=-1"),
        ({"calls": sm.Calls(cost=1, cost_cap=0)}, "cost_cap=0"),
        ({"calls": sm.Calls(cost=0.5, cost_cap=100)}, "spends 2048.0 on a batch of 4096 rows"),
        ({"calls": sm.Calls(cost=0.1), "batching": sm.Batching(ladder=(8,))}, "would be paid"),
        ({"batching": sm.Batching(ladder=(64, 8))}, "ladder (64, 8); give whole numbers"),
        ({"batching": sm.Batching(ladder=(0, 8))}, "ladder (0, 8); give whole numbers"),
        ({"batching": sm.Batching(64, ladder=(8, 128))}, "a ladder up to 128 and batches of at most 64 rows"),
        ({"batching": sm.Batching(lengths=(0, 8))}, "lengths (0, 8); give whole numbers"),
    ],
)
def test_problem_is_a_sentence(changes: dict[str, Any], said: str) -> None:
    sentences = found(step(**changes))
    assert any(said in sentence for sentence in sentences), sentences


@pytest.mark.parametrize(
    "changes",
    [
        *({}, {"version": "2"}, {"calls": sm.Calls(concurrency=2)}, {"isolation": "process"}),
        {"batching": sm.Batching(ladder=(8, 64))},
    ],
)
def test_two_models_of_one_name_are_told(changes: dict[str, Any]) -> None:
    other = {"outputs": {"other": "f8"}, **changes}
    (sentence,) = found(step(), step(**other))
    assert "2 versions of the model 'factory'" in sentence
    assert found(step(), step(**other, name="another")) == []


@pytest.mark.parametrize(
    "changes",
    [{"precision": "bfloat16"}, {"factory": factory}, {"compile": True}, {"tolerance": 0.5}, {"version": "2"}],
)
def test_two_networks_of_one_name_are_told(changes: dict[str, Any]) -> None:
    """One is loaded by its name, so the other would silently score as that one does."""
    first = sm.Torch("net", outputs={"score": "y"})
    (sentence,) = found(first, sm.Torch("net", outputs={"other": "y"}, **changes))
    assert "2 versions of the model 'net'" in sentence
    assert found(first, sm.Torch("net", outputs={"other": "y"})) == []
