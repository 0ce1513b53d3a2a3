"""What runs in a process of a model's own: makes the function, then answers frames until the worker is gone.

When the worker's end of the socket closes, for whatever reason, the process ends. So it does by a signal when the worker's
end of a pipe closes, as native code that keeps Python's lock lets no thread see the former.
"""

from __future__ import annotations

import fcntl
import importlib
import importlib.util
import os
import queue
import signal
import socket
import sys
import threading
from collections.abc import Callable
from operator import attrgetter
from types import ModuleType
from typing import Any, Final

from streamml.adapters.models.frames import Head, receive, send
from streamml.adapters.models.python_function import Scorer, make_function
from streamml.batch.column import Array
from streamml.errors import ConfigError, StreamMLError
from streamml.ports.model import Signature, Tensor

_Frame = tuple[Head, dict[str, Array]]
_MODULE: Final = "streamml_factory"


def main() -> None:
    """Serve the socket whose file descriptor is the first argument; the second is that of the pipe."""
    _end_with(int(sys.argv[2]))
    # The worker decides when its processes end; a signal to the whole group is meant for it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    channel = socket.socket(fileno=int(sys.argv[1]))
    frames: queue.SimpleQueue[_Frame] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(channel, frames), daemon=True).start()
    declared, _ = frames.get()
    try:
        scorer = _scorer(declared)
    except ConfigError as error:
        send(channel, {"problems": error.problems})
        return
    send(channel, {"ready": True})
    while True:
        _answer(channel, scorer, frames.get()[1])


def _end_with(pipe: int) -> None:
    """Let the kernel end this process when nobody has the other end of the pipe any more."""
    signal.signal(signal.SIGIO, signal.SIG_DFL)
    fcntl.fcntl(pipe, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(pipe, fcntl.F_SETFL, fcntl.fcntl(pipe, fcntl.F_GETFL) | os.O_ASYNC)


def _read(channel: socket.socket, frames: queue.SimpleQueue[_Frame]) -> None:
    try:
        while True:
            frames.put(receive(channel))
    except EOFError:
        os._exit(0)
    finally:
        # Without it, whoever asks would wait for ever: memory may run out here, too.
        os._exit(1)


def _answer(channel: socket.socket, scorer: Scorer, inputs: dict[str, Array]) -> None:
    for column in inputs.values():
        column.setflags(write=False)
    try:
        answer = scorer(inputs)
    except StreamMLError as error:
        told = {"error": type(error).__name__, "message": str(error), "retry_in_s": getattr(error, "retry_in_s", None)}
        send(channel, told)
    else:
        send(channel, {"failed": list(answer.failed.items())}, answer)


def _scorer(declared: Head) -> Scorer:
    sys.path[:] = declared["path"]
    label = declared["label"]
    sides = [{name: Tensor(dtype, tuple(shape)) for name, dtype, shape in side} for side in declared["signature"]]
    return Scorer(label, Signature(*sides), make_function(_factory(declared), label))


def _factory(declared: Head) -> Callable[[], Any]:
    try:
        factory: Callable[[], Any] = attrgetter(declared["factory"])(_module(declared["module"], declared["file"]))
    except Exception as error:
        raise ConfigError(
            f"The process of model {declared['label']} cannot load {declared['file'] or declared['module']} "
            f"({type(error).__name__}: {error}); a process loads the factory's file anew."
        ) from error
    return factory


def _module(name: str, file: str | None) -> ModuleType:
    """By its name; what was loaded under a name that no import finds, by its file."""
    if file is not None and (name == "__main__" or importlib.util.find_spec(name.partition(".")[0]) is None):
        spec = importlib.util.spec_from_file_location(_MODULE, file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[_MODULE] = module
        spec.loader.exec_module(module)
        return module
    return importlib.import_module(name)


if __name__ == "__main__":
    main()
