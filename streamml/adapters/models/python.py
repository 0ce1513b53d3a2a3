"""Scores rows with whatever Python can call, in the worker's threads or in processes of its own."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np

from streamml.adapters.models.allowance import Allowance
from streamml.adapters.models.lanes import Lanes
from streamml.adapters.models.python_function import Scorer, make_function
from streamml.adapters.models.python_process import ProcessScorer
from streamml.adapters.models.tensors import check_inputs
from streamml.batch.column import Array
from streamml.errors import ModelBusy, ModelFault
from streamml.ports.model import PartialAnswer, Signature
from streamml.topology.duration import seconds
from streamml.topology.model_steps import Calls, ModelFunction, Python

_LOG: Final = logging.getLogger("streamml.models")


class PythonModel:
    """The port `Model` over the function of a `Python` step. It holds threads or processes until `close`."""

    def __init__(self, name: str, version: str, signature: Signature, lanes: Lanes, calls: Calls) -> None:
        """
        Args:
            lanes: closed with the model; see `open_lanes`.
            calls: without problems.
        """
        self.name: Final = name
        self.version: Final = version
        self._label = f"{name}@{version}"
        self.signature: Final = signature
        self._rows = calls.rows
        self._allowance = Allowance(calls.rate, calls.cost, calls.cost_cap)
        self._lanes: Lanes | None = lanes

    @classmethod
    def load(cls, step: Python) -> PythonModel:
        """Call the factory, or start the processes that do.

        Args:
            step: a step without problems.

        Raises:
            ConfigError: as `open_lanes`.
        """
        lanes = open_lanes(step.factory, f"{step.name}@{step.version}", step.declared, step.calls, step.isolation)
        return cls(step.name, step.version, step.declared, lanes, step.calls)

    def run(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        if self._lanes is None:
            raise ModelFault(f"Model {self._label} was closed; load it again before scoring.")
        rows = check_inputs(self._label, self.signature, inputs)
        wait = self._allowance.spend(rows, time.monotonic())
        if wait:
            said = f"Model {self._label} has spent its cost_cap; it goes on in {wait / 3600:.1f} hours, and the records wait."
            _LOG.warning(said)
            raise ModelBusy(said, retry_in_s=wait)
        size = min(self._rows or rows, rows)
        parts = [
            {name: column[start : start + size] for name, column in inputs.items()} for start in range(0, rows, size)
        ]
        return _joined(self._lanes.answers(parts, self._allowance.turn), size)

    def close(self) -> None:
        lanes, self._lanes = self._lanes, None
        if lanes is not None:
            lanes.close()


def open_lanes(
    factory: Callable[[], ModelFunction], label: str, signature: Signature, calls: Calls, isolation: str
) -> Lanes:
    """Lanes that call what ``factory`` makes, in threads or processes.

    Raises:
        ConfigError: the factory raised, or returned nothing that can be called, or no process can be started.
    """
    timeout_s = None if calls.timeout is None else seconds(calls.timeout)
    if isolation == "process":
        # A process that takes too long is ended by who asks it.
        scorers = ProcessScorer.start_all(factory, label, signature, timeout_s, calls.concurrency)
        return Lanes(label, scorers, None)
    scorer = Scorer(label, signature, make_function(factory, label))
    return Lanes(label, [scorer] * calls.concurrency, timeout_s)


def _joined(answers: Sequence[PartialAnswer], size: int) -> PartialAnswer:
    """Answers to parts of ``size`` rows, the last of which may be shorter, as one."""
    if len(answers) == 1:
        return answers[0]
    failed = {
        start + row: reason
        for start, answer in zip(itertools.count(0, size), answers, strict=False)
        for row, reason in answer.failed.items()
    }
    return PartialAnswer({name: np.concatenate([answer[name] for answer in answers]) for name in answers[0]}, failed)
