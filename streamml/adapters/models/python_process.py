"""A user's function in a process of its own: started, asked, and started anew after it died."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import IO, Any, Final

from streamml.adapters.models.frames import Head, receive, send
from streamml.batch.column import Array
from streamml.errors import (
    ConfigError,
    ModelBusy,
    ModelFault,
    ModelOutOfMemory,
    ModelRejected,
    StreamMLError,
    TransientError,
)
from streamml.ports.model import PartialAnswer, Signature, Tensor

_START_S: Final = 300.0
_LEAVE_S: Final = 1.0
_MOST_ALONE: Final = 10
_ERRORS: Final[dict[str, type[StreamMLError]]] = {
    kind.__name__: kind for kind in (ModelBusy, ModelOutOfMemory, ModelRejected, ModelFault)
}


class _Died(Exception):
    """The process ended; the argument says how."""


class ProcessScorer:
    """Asks a process, from one thread at a time.

    A process that dies is started anew and asked again. If it dies of the same rows again, they are bisected, so that a row
    that crashes native code becomes a dead letter; if it dies of ten single rows one after the other, the model is broken.
    """

    def __init__(
        self, factory: Callable[[], object], label: str, signature: Signature, timeout_s: float | None
    ) -> None:
        self._label = label
        self._timeout_s = timeout_s
        self._declared = _declared(factory, label, signature)
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None
        self._pipe: IO[bytes] | None = None
        self._alone = 0
        self._closed = False

    @classmethod
    def start_all(
        cls, factory: Callable[[], object], label: str, signature: Signature, timeout_s: float | None, count: int
    ) -> list[ProcessScorer]:
        """``count`` processes that have made their function.

        Raises:
            ConfigError: the factory cannot be found by name, or raised; none is left running.
        """
        scorers = [cls(factory, label, signature, timeout_s) for _ in range(count)]
        try:
            for scorer in scorers:
                scorer._spawn()
            for scorer in scorers:
                scorer._greet()
        except BaseException:
            for scorer in scorers:
                scorer.close()
            raise
        return scorers

    def __call__(self, inputs: Mapping[str, Array]) -> PartialAnswer:
        try:
            answer = self._ask(inputs)
        except _Died:
            try:
                answer = self._ask(inputs)
            except _Died as died:
                raise self._blamed(str(died), len(next(iter(inputs.values())))) from died
        self._alone = 0
        return answer

    def close(self) -> None:
        """End the process; one that is busy is killed. None is started anew."""
        self._closed = True
        self._let_go()

    def _let_go(self) -> None:
        channel, self._channel = self._channel, None
        process, self._process = self._process, None
        if channel is not None:
            channel.close()
        if process is not None:
            try:
                process.wait(_LEAVE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        # Not before: it would hide how the process ended.
        pipe, self._pipe = self._pipe, None
        if pipe is not None:
            pipe.close()

    def _spawn(self) -> None:
        self._channel, theirs = socket.socketpair()
        to_read, to_write = os.pipe()
        self._pipe = os.fdopen(to_write, "wb", buffering=0)
        with theirs, os.fdopen(to_read, "rb"):
            numbers = (theirs.fileno(), to_read)
            # What the function prints goes to stderr: the worker's stdout is the command's answer.
            self._process = subprocess.Popen(
                [sys.executable, "-m", "streamml.adapters.models.python_child", *map(str, numbers)],
                pass_fds=numbers,
                stdin=subprocess.DEVNULL,
                stdout=2,
            )

    def _greet(self) -> None:
        assert self._channel is not None
        self._channel.settimeout(_START_S)
        try:
            send(self._channel, self._declared)
            head, _ = receive(self._channel)
        except (EOFError, OSError) as error:
            raise ConfigError(
                f"The process of model {self._label} ended before its factory had made a function ({self._end()})."
            ) from error
        if "problems" in head:
            raise ConfigError(head["problems"])
        self._channel.settimeout(self._timeout_s)

    def _ask(self, inputs: Mapping[str, Array]) -> PartialAnswer:
        if self._channel is None:
            self._start_anew()
        assert self._channel is not None
        try:
            send(self._channel, {}, inputs)
            head, columns = receive(self._channel)
        except TimeoutError:
            self._end(kill=True)
            raise ModelBusy(
                f"A call of model {self._label} took longer than its timeout of {self._timeout_s} s; its process was ended, "
                "and it is tried again later."
            ) from None
        except (EOFError, OSError) as error:
            raise _Died(self._end()) from error
        if "error" in head:
            raise _error(head)
        return PartialAnswer(columns, dict(head["failed"]))

    def _start_anew(self) -> None:
        if self._closed:
            raise ModelFault(f"Model {self._label} was closed while its process was asked.")
        try:
            self._spawn()
            self._greet()
        except (ConfigError, OSError) as error:
            self._let_go()
            raise ModelFault(f"The process of model {self._label} cannot be started again: {error}") from error

    def _end(self, *, kill: bool = False) -> str:
        """Take leave of the process, and say how it ended."""
        process = self._process
        if process is not None and kill:
            process.kill()
        self._let_go()
        code = None if process is None else process.returncode
        return f"by {signal.Signals(-code).name}" if code is not None and code < 0 else f"with exit code {code}"

    def _blamed(self, how: str, rows: int) -> StreamMLError:
        if how == "by SIGKILL":
            return ModelOutOfMemory(
                f"The process of model {self._label} ended {how} twice, as the kernel does when memory runs out; a smaller batch may fit."
            )
        self._alone += rows == 1
        if self._alone >= _MOST_ALONE:
            return ModelFault(
                f"The process of model {self._label} ended {how} on {self._alone} rows one after the other; mend the model, or go "
                "back to a version that works."
            )
        return ModelRejected(f"The process of model {self._label} ended {how} on these rows.")


def _error(head: Head) -> StreamMLError:
    kind = _ERRORS.get(head["error"], ModelFault)
    if issubclass(kind, TransientError):
        return kind(head["message"], retry_in_s=head["retry_in_s"])
    return kind(head["message"])


def _declared(factory: Callable[[], object], label: str, signature: Signature) -> Head:
    module, name = getattr(factory, "__module__", None), getattr(factory, "__qualname__", "")
    loaded = sys.modules.get(module) if module else None
    found: Any = loaded
    for part in name.split("."):
        found = getattr(found, part, None)
    if loaded is None or found is not factory:
        raise ConfigError(
            f"The factory of model {label} cannot be found by its name {name!r} in another process; write it as a function at the top of a file."
        )
    return {
        "label": label,
        "module": module,
        "file": getattr(loaded, "__file__", None),
        "factory": name,
        "path": [entry for entry in sys.path if entry],
        "signature": [_listed(signature.inputs), _listed(signature.outputs)],
    }


def _listed(tensors: Mapping[str, Tensor]) -> list[list[Any]]:
    return [[name, tensor.dtype, tensor.shape] for name, tensor in tensors.items()]
