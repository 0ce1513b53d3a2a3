"""A user's function as a model: made, called, its answer held to what was declared."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterator, Mapping
from typing import Final, Protocol

from streamml.adapters.models.tensors import check_outputs
from streamml.batch.column import Array
from streamml.errors import (
    ConfigError,
    ModelBusy,
    ModelFault,
    ModelOutOfMemory,
    ModelRejected,
    StreamMLError,
    place_of,
)
from streamml.ports.model import PartialAnswer, Signature
from streamml.topology.model_steps import ModelFunction
from streamml.topology.steps import FAILURES, RowFailures

_AWAY: Final = (errno.EHOSTUNREACH, errno.EHOSTDOWN, errno.ENETUNREACH, errno.ENETDOWN)


class Answering(Protocol):
    """Scores a part of a batch; see `streamml.ports.model.Model.run` for what it answers and raises."""

    def __call__(self, inputs: Mapping[str, Array]) -> PartialAnswer: ...

    def close(self) -> None: ...


def make_function(factory: Callable[[], ModelFunction], label: str) -> ModelFunction:
    """What the factory of a model makes.

    Raises:
        ConfigError: it raised, or made nothing that can be called.
    """
    try:
        function = factory()
    except ConfigError:
        raise
    except Exception as error:
        where = f" at {place}" if (place := place_of(error)) else ""
        raise ConfigError(f"The factory of model {label} raised {type(error).__name__}{where}: {error}") from error
    if not callable(function):
        raise ConfigError(
            f"The factory of model {label} returned a {type(function).__name__}; let it return the function that scores."
        )
    return function


class Scorer:
    """Calls a function with columns. It may be called from several threads if the function may."""

    def __init__(self, label: str, signature: Signature, function: ModelFunction) -> None:
        self._label = label
        self._signature = signature
        self._function = function

    def __call__(self, inputs: Mapping[str, Array]) -> PartialAnswer:
        rows = len(next(iter(inputs.values())))
        answer = self._called(inputs)
        given_up: object = None
        if isinstance(answer, Mapping):
            answer = dict(answer)
            given_up = answer.pop(FAILURES, None)
        check_outputs(self._label, self._signature, answer, rows)
        return PartialAnswer({name: answer[name] for name in self._signature.outputs}, self._failed(given_up, rows))

    def close(self) -> None:
        """Nothing: the function goes with the model."""

    def _called(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        try:
            return self._function(dict(inputs))
        except StreamMLError:
            raise
        except MemoryError as error:
            raise ModelOutOfMemory(f"Model {self._label} ran out of memory; a smaller batch may fit.") from error
        except Exception as error:
            kind = type(error).__name__
            if any(map(_is_away, _chain(error))):
                raise ModelBusy(
                    f"What model {self._label} asks does not answer ({kind}); it is asked again."
                ) from error
            # Its message may quote values, so only the traceback has it.
            raise ModelRejected(f"Model {self._label} refused these rows ({kind}).") from error

    def _failed(self, given_up: object, rows: int) -> dict[int, str]:
        if given_up is None:
            return {}
        if not isinstance(given_up, RowFailures) or given_up.mask.shape != (rows,):
            raise ModelFault(f"Model {self._label} gave sm.failures a mask that has not one value per row.")
        return dict.fromkeys(given_up.mask.nonzero()[0].tolist(), given_up.reason)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An exception and what it was raised from; clients of APIs wrap what the socket raised. ``from None`` ends it."""
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _is_away(error: BaseException) -> bool:
    """Whether it says that a service, the network or its names are not there for now."""
    if isinstance(error, (ConnectionError, TimeoutError, socket.gaierror)):
        return True
    return isinstance(error, OSError) and error.errno in _AWAY
