"""Factories of models, found by name from a process of a model's own, which loads this file: so it imports little."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np

import streamml as sm
from streamml.errors import ModelBusy

Columns = Mapping[str, Any]
WEIGHTS: Final = np.array([0.5, -2.0, 3.0], np.float32)
CODES: Final = {"red": 1, "é": 2}


def _out_of_memory(columns: Columns) -> Columns:
    raise MemoryError


FUNCTIONS: Final[dict[str, Callable[[Columns], Columns]]] = {
    "scores": lambda columns: {"y": columns["x"] @ WEIGHTS},
    "several": lambda c: {"total": c["a"].astype(np.float64) + c["b"] + c["c"], "b_again": c["b"]},
    "text": lambda c: {
        "t_again": c["t"],
        "code": np.fromiter((CODES.get(t, 0) for t in c["t"]), np.int64, len(c["t"])),
    },
    "matrix": lambda columns: {"y": columns["x"].transpose(0, 2, 1)},
    "ragged": lambda columns: {"y": columns["x"].sum(axis=1)},
    **dict.fromkeys(("half", "double", "bool", "int32"), lambda columns: {"y": columns["x"]}),
    "first_row": lambda columns: {"y": columns["x"][:1]},
    "other_shape": lambda columns: {"y": columns["x"]},
    "picky": lambda columns: {"y": np.array([0, 1, 2], np.float32)[columns["i"]]},
    "greedy": _out_of_memory,
}
"""What each model of the suite does; see `model_behaviours.SIGNATURES`."""


def make_scores() -> object:
    return FUNCTIONS["scores"]


def make_several() -> object:
    return FUNCTIONS["several"]


def make_text() -> object:
    return FUNCTIONS["text"]


def make_matrix() -> object:
    return FUNCTIONS["matrix"]


def make_ragged() -> object:
    return FUNCTIONS["ragged"]


def make_half() -> object:
    return FUNCTIONS["half"]


make_double = make_bool = make_int32 = make_half


def make_first_row() -> object:
    return FUNCTIONS["first_row"]


def make_other_shape() -> object:
    return FUNCTIONS["other_shape"]


def make_picky() -> object:
    return FUNCTIONS["picky"]


def make_greedy() -> object:
    return FUNCTIONS["greedy"]


def where_it_runs() -> object:
    """Answers the process and thread of the call."""

    def score(columns: Columns) -> Columns:
        time.sleep(0.05)
        rows = len(columns["i"])
        return {"process": np.full(rows, os.getpid()), "thread": np.full(rows, threading.get_ident())}

    return score


def crashes_above_nine() -> object:
    """Kills its process for 13 as broken native code does, for 99 as the kernel does; answers the process otherwise."""

    def score(columns: Columns) -> Columns:
        if (columns["i"] == 13).any():
            os.kill(os.getpid(), signal.SIGSEGV)
        if (columns["i"] == 99).any():
            os.kill(os.getpid(), signal.SIGKILL)
        return {"process": np.full(len(columns["i"]), os.getpid())}

    return score


def doubles_amounts() -> object:
    """An amount of 8 crashes the process, one of 5 is given up."""

    def score(columns: Columns) -> Columns:
        amount = columns["amount"]
        if (amount == 8).any():
            os.kill(os.getpid(), signal.SIGSEGV)
        return {"score": amount * 2, **sm.failures(amount == 5, "Five is no amount.")}

    return score


def hangs_at_nine() -> object:
    """Does not come back for a 9."""

    def score(columns: Columns) -> Columns:
        if (columns["i"] == 9).any():
            time.sleep(60)
        return {"process": np.full(len(columns["i"]), os.getpid())}

    return score


def holds_the_lock_at_nine() -> object:
    """Does not come back for a 9, nor lets any other thread run."""

    def score(columns: Columns) -> Columns:
        if (columns["i"] == 9).any():
            re.match("(a+)+b", 60 * "a")
        return {"process": np.full(len(columns["i"]), os.getpid())}

    return score


def fails_odd_rows() -> object:
    def score(columns: Columns) -> Columns:
        return {"half": columns["i"] // 2, **sm.failures(columns["i"] % 2 == 1, "The number is odd.")}

    return score


def is_busy() -> object:
    def score(columns: Columns) -> Columns:
        raise ModelBusy("The service asks to wait.", retry_in_s=7.0)

    return score


def prints() -> object:
    def score(columns: Columns) -> Columns:
        print("said by the model")  # noqa: T201
        return {"half": columns["i"] // 2}

    return score


def raises() -> object:
    raise FileNotFoundError("model.txt")
