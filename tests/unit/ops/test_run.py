"""A run that cannot begin: what is loaded, how often, and what is left of it."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

import streamml as sm
from streamml.adapters.kafka.source import KafkaSource
from streamml.adapters.models.onnx import OnnxModel
from streamml.compose import surroundings
from streamml.compose.locate import Located
from streamml.engine.retry import Backoff
from streamml.errors import SourceUnavailable, TopologyError, TransientError
from streamml.ops.run import RunOptions, StopSignal, _wait_until_reached, run
from streamml.settings.settings import Settings
from tests.conformance.grounds import closed_port
from tests.conformance.onnx_files import identity, store


class Pair(BaseModel):
    id: str


class Score(BaseModel):
    id: str


def topology(*models: str) -> sm.Topology:
    def x(columns: dict[str, Any]) -> dict[str, Any]:
        raise AssertionError("Nothing is scored here.")

    return sm.Topology(
        "pairs",
        source=sm.Source("pairs", schema=Pair, start="earliest"),
        steps=[
            sm.Transform(x, inputs=("id",), outputs={"x": "f4[2]"}),
            *(sm.Onnx(name, inputs={"x": "x"}, outputs={f"y{place}": "y"}) for place, name in enumerate(models)),
        ],
        sink=sm.Sink("scores", schema=Score, key="id"),
        dead_letters=sm.DeadLetterQueue("pairs.dlq"),
    )


@pytest.fixture
def open_models(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """``load`` and ``close`` of every model, as they happen."""
    told: list[str] = []
    load, close = OnnxModel.load.__func__, OnnxModel.close  # type: ignore[attr-defined]

    def loading(cls: type[OnnxModel], *arguments: Any) -> OnnxModel:
        told.append("load")
        return load(cls, *arguments)  # type: ignore[no-any-return]

    def closing(model: OnnxModel) -> None:
        told.append("close")
        close(model)

    monkeypatch.setattr(OnnxModel, "load", classmethod(loading))
    monkeypatch.setattr(OnnxModel, "close", closing)
    return told


@pytest.fixture
def silent_broker(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A broker that does not answer, and how often it was asked."""
    asked: list[int] = []

    class Silent:
        def __init__(self, client: object) -> None: ...

        def find_topics(self, names: Iterable[str]) -> dict[str, Any]:
            asked.append(len(asked))
            raise SourceUnavailable("It did not answer.")

    monkeypatch.setattr(surroundings, "KafkaAdmin", Silent)
    monkeypatch.setattr(Backoff, "delay", lambda backoff, attempt, random: 0.0)
    return asked


def test_l1_models_are_loaded_once_however_often_the_broker_is_asked(
    tmp_path: Path, open_models: list[str], silent_broker: list[int]
) -> None:
    """L1.3."""
    store(tmp_path / "models", identity())
    stop = StopSignal()
    waits = iter(range(5))
    wait = stop.asked.wait

    def waited(timeout: float | None = None) -> bool:
        if next(waits, None) is None:
            stop.set()
        return wait(timeout)

    stop.asked.wait = waited  # type: ignore[method-assign]
    run(Located(topology("test"), tmp_path), Settings(), RunOptions(), stop)
    assert len(silent_broker) == 6
    assert open_models == ["load", "close"]


@pytest.mark.usefixtures("silent_broker")
def test_l1_models_are_closed_when_patience_ends(tmp_path: Path, open_models: list[str]) -> None:
    store(tmp_path / "models", identity())
    with pytest.raises(SourceUnavailable):
        run(Located(topology("test"), tmp_path), Settings(), RunOptions(patience_s=0.0), StopSignal())
    assert open_models == ["load", "close"]


@pytest.mark.usefixtures("silent_broker")
def test_l1_a_wrong_model_and_a_silent_broker_are_told_together(tmp_path: Path, open_models: list[str]) -> None:
    """L1.2."""
    store(tmp_path / "models", identity())
    with pytest.raises(TopologyError) as wrong:
        run(Located(topology("test", "missing"), tmp_path), Settings(), RunOptions(), StopSignal())
    model, broker = wrong.value.problems
    assert "missing" in model
    assert "did not answer" in broker
    assert open_models == ["load", "close"]


def test_a_run_that_is_to_catch_up_gives_up_on_a_broker_that_stays_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """L3.6."""
    monkeypatch.setattr("streamml.adapters.kafka.source.TIMEOUT_S", 0.2)
    servers = f"127.0.0.1:{closed_port()}"
    probe = KafkaSource(["events"], "group", "earliest", {"bootstrap.servers": servers})
    with pytest.raises(TransientError, match=f"gives up.*{servers}"):
        _wait_until_reached(probe.committed, {}, 0.5, threading.Event(), str)
    ended = threading.Event()
    threading.Timer(0.5, ended.set).start()
    assert not _wait_until_reached(probe.committed, {}, None, ended, str)
    probe.close()
