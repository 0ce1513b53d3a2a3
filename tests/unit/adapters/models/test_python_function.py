"""What an exception of a user's function means for its rows."""

from __future__ import annotations

import errno
import socket
import urllib.error
from collections.abc import Callable, Mapping

import numpy as np
import pytest

from streamml.adapters.models.python_function import Scorer
from streamml.batch.column import Array
from streamml.errors import ModelBusy, ModelRejected
from streamml.ports.model import Signature, Tensor

ONE = Signature({"i": Tensor("int64", ())}, {"y": Tensor("int64", ())})


def refused(wrap: bool, error: Exception) -> Callable[[Mapping[str, Array]], Mapping[str, Array]]:
    def score(columns: Mapping[str, Array]) -> Mapping[str, Array]:
        if not wrap:
            raise error
        try:
            raise error
        except OSError as cause:
            raise RuntimeError("the client's own") from cause

    return score


@pytest.mark.parametrize("wrap", [False, True])
@pytest.mark.parametrize(
    "error",
    [
        ConnectionRefusedError(errno.ECONNREFUSED, "refused"),
        TimeoutError("timed out"),
        socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"),
        OSError(errno.EHOSTUNREACH, "No route to host"),
        OSError(errno.ENETUNREACH, "Network is unreachable"),
    ],
    ids=lambda error: type(error).__name__ + str(error.errno),
)
def test_e1_whoever_cannot_be_reached_makes_rows_wait(error: Exception, wrap: bool) -> None:
    """E1.2: an outage of a service, of the network to it or of its name is no fault of the rows."""
    with pytest.raises(ModelBusy, match="does not answer"):
        Scorer("m@1", ONE, refused(wrap, error))({"i": np.array([1])})


@pytest.mark.parametrize(
    "error",
    [urllib.error.HTTPError("http://x", 422, "no", None, None), OSError(errno.ENOENT, "no file")],  # type: ignore[arg-type]
)
def test_another_error_of_the_system_is_about_the_rows(error: Exception) -> None:
    with pytest.raises(ModelRejected):
        Scorer("m@1", ONE, refused(wrap=False, error=error))({"i": np.array([1])})


def test_cause_that_the_function_has_dealt_with_does_not_count() -> None:
    def score(columns: Mapping[str, Array]) -> Mapping[str, Array]:
        try:
            raise ConnectionResetError
        except ConnectionResetError:
            raise ValueError("these rows make the service hang up") from None

    with pytest.raises(ModelRejected):
        Scorer("m@1", ONE, score)({"i": np.array([1])})
