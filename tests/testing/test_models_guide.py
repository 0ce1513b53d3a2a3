"""docs/guide/models.md does what it says, on a real LightGBM model and a real HTTP server."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from streamml.testing import TopologyDriver

_PAGE = Path(__file__).parents[2] / "docs" / "guide" / "models.md"


@pytest.fixture(scope="module")
def page() -> ModuleType:
    """The page's code as one module."""
    module = ModuleType("docs_guide_models")
    code = "\n".join(re.findall(r"```python\n(.*?)```", _PAGE.read_text(), re.DOTALL))
    exec(compile(code, str(_PAGE), "exec"), module.__dict__)
    return module


def test_lightgbm(page: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lightgbm = pytest.importorskip("lightgbm")
    rng = np.random.default_rng(1)
    x = rng.normal(size=(200, 2))
    settings = {"objective": "binary", "verbosity": -1, "num_threads": 1}
    booster = lightgbm.train(settings, lightgbm.Dataset(x, x[:, 0] > 0), num_boost_round=3)
    booster.save_model(tmp_path / "fraud.txt")
    monkeypatch.chdir(tmp_path)

    driver = TopologyDriver(page.trees)
    driver.send({"id": "a", "amount": 2.0, "count": 1})
    driver.send({"id": "b", "amount": -2.0, "count": 1})
    driver.settle()
    (prediction,) = driver.predictions()
    assert prediction.value["probability"] == pytest.approx(booster.predict(np.array([[2.0, 1.0]]))[0])
    assert prediction.model == "lightgbm@3"
    (letter,) = driver.dead_letters()
    assert letter.message == "The amount is negative."


class _Service(ThreadingHTTPServer):
    """Answers a hundredth of each amount; the first requests it turns away."""

    daemon_threads = True

    def __init__(self, turned_away: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.turned_away = turned_away
        self.calls: list[int] = []
        self.at_once = self.most_at_once = 0
        self.lock = threading.Lock()
        self.together = threading.Event()


class _Handler(BaseHTTPRequestHandler):
    server: _Service

    def do_POST(self) -> None:
        amounts = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["amounts"]
        with self.server.lock:
            self.server.calls.append(len(amounts))
            self.server.at_once += 1
            self.server.most_at_once = max(self.server.most_at_once, self.server.at_once)
            away = self.server.turned_away > 0
            self.server.turned_away -= away
            if self.server.at_once > 1:
                self.server.together.set()
        # Until a second call is under way.
        self.server.together.wait(1.0)
        with self.server.lock:
            self.server.at_once -= 1
        if away:
            self.close_connection = True
            return
        body = json.dumps({"probabilities": [amount / 100 for amount in amounts]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing on stderr."""


@contextmanager
def serving(turned_away: int = 0) -> Iterator[_Service]:
    service = _Service(turned_away)
    thread = threading.Thread(target=service.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield service
    finally:
        service.shutdown()
        service.server_close()
        thread.join(5)


@pytest.mark.parametrize("turned_away", [0, 2])
def test_api(page: ModuleType, monkeypatch: pytest.MonkeyPatch, turned_away: int) -> None:
    with serving(turned_away) as service:
        monkeypatch.setenv("FRAUD_URL", f"http://127.0.0.1:{service.server_port}")
        driver = TopologyDriver(page.api)
        for number in range(20):
            driver.send({"id": str(number), "amount": float(number), "count": 1})
        driver.settle()
        found = {one.value["id"]: one.value["probability"] for one in driver.predictions()}
        assert found == {str(number): number / 100 for number in range(20)}
        assert driver.dead_letters() == []
        assert max(service.calls) == 8
        assert 2 <= service.most_at_once <= 4
