"""Is this machine ready? Each check with its remedy."""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path
from typing import Final

from streamml.errors import ConfigError, StreamMLError
from streamml.ops.cores import cores
from streamml.settings.settings import Settings, masked


@dataclass(frozen=True, slots=True)
class Finding:
    """One check.

    Args:
        name: what was looked at.
        ok: whether it is as it should be.
        detail: what was found, or what to do.
        needed: whether nothing works without it.
    """

    name: str
    ok: bool
    detail: str
    needed: bool = True


_PACKAGES: Final = (
    ("confluent-kafka", "confluent_kafka", True, "pip install streamml"),
    ("redis", "redis", True, "pip install streamml"),
    ("onnxruntime", "onnxruntime", True, "pip install 'streamml[cpu]', or [gpu]"),
    ("pyarrow", "pyarrow", False, "pip install 'streamml[parquet]' to load Parquet files"),
    ("jgo", "jgo", False, "pip install 'streamml[embedded]' for `streamml dev`"),
)

_IMPORTED: Final = ("streamml", "confluent_kafka", "numpy", "onnxruntime", "pydantic", "redis")


def examine(settings: Settings) -> list[Finding]:
    """All checks, the quick ones first."""
    return [
        _python(),
        *(_package(*one) for one in _PACKAGES),
        bytecode([name for name in _IMPORTED if util.find_spec(name) is not None]),
        _cores(),
        _providers(settings),
        _java(),
        _state_folder(),
        _answers("Broker", settings.brokers, lambda: _ask_broker(settings)),
        _answers("Redis", masked("redis.url", settings.redis.url).rpartition("@")[2], lambda: _ask_redis(settings)),
    ]


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    ok = sys.version_info >= (3, 11)
    return Finding("Python", ok, version if ok else f"{version}; install Python 3.11 or later")


def _package(name: str, module: str, needed: bool, remedy: str) -> Finding:
    if util.find_spec(module) is None:
        return Finding(name, False, f"not installed: {remedy}", needed)
    try:
        return Finding(name, True, metadata.version(name), needed)
    except metadata.PackageNotFoundError:
        return Finding(name, True, "installed", needed)


def bytecode(packages: Sequence[str]) -> Finding:
    """Whether what a worker imports is compiled once and for all, or anew in every process: three seconds of processor time each.

    Installers such as uv leave compiling to the first import, and many images forbid that.
    """
    specs = {name: util.find_spec(name) for name in packages}
    slow = {name: Path(spec.origin) for name, spec in specs.items() if spec is not None and spec.origin}
    slow = {name: origin for name, origin in slow.items() if not _compiled(origin)}
    if not slow:
        return Finding("Bytecode", True, "packages are compiled once, not at every start", False)
    installed = sysconfig.get_path("purelib")
    folders = {installed if origin.is_relative_to(installed) else str(origin.parent) for origin in slow.values()}
    return Finding(
        "Bytecode",
        False,
        f"{', '.join(slow)}: compiled anew at every start, as no bytecode is there and none is written "
        "(PYTHONDONTWRITEBYTECODE, or a folder that is read only), so that workers start seconds later. Run "
        f"`{sys.executable} -m compileall -q {' '.join(sorted(folders))}` once, or install by `uv pip install --compile-bytecode`.",
        False,
    )


def _compiled(source: Path) -> bool:
    """Whether a module's bytecode is there, or comes to be with its first import."""
    cached = Path(util.cache_from_source(str(source)))
    folder = next(one for one in cached.parents if one.exists())
    return source.suffix != ".py" or cached.exists() or (not sys.dont_write_bytecode and os.access(folder, os.W_OK))


def _cores() -> Finding:
    usable = cores()
    return Finding("Cores", True, f"{usable} usable; `streamml run --workers {max(1, usable // 2)}` is a start", False)


def _providers(settings: Settings) -> Finding:
    if util.find_spec("onnxruntime") is None:
        return Finding("Model providers", False, "ONNX Runtime is not installed")
    from importlib import import_module

    available = import_module("onnxruntime").get_available_providers()
    names = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}
    missing = [name for name in settings.model.providers if names[name] not in available]
    if missing:
        return Finding(
            "Model providers",
            False,
            f"{', '.join(missing)} not available: pip install 'streamml[gpu]', or set model.providers to cpu",
        )
    return Finding("Model providers", True, ", ".join(settings.model.providers))


def _java() -> Finding:
    from streamml.ops.embedded.java import java

    try:
        return Finding("Java (embedded Kafka)", True, java(), False)
    except ConfigError as error:
        return Finding("Java (embedded Kafka)", False, str(error), False)


def _state_folder() -> Finding:
    home = Path(
        os.environ.get("STREAMML_STATE_DIR") or os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    )
    existing = next(folder for folder in (home, *home.parents) if folder.exists())
    if not os.access(existing, os.W_OK):
        return Finding(
            "State folder",
            False,
            f"{home} cannot be written; set STREAMML_STATE_DIR. Without it a restarted worker waits for its old session to end",
            False,
        )
    free = shutil.disk_usage(existing).free
    return Finding("State folder", free > 100_000_000, f"{home}, {free / 1e9:.1f} GB free", False)


def _answers(name: str, where: str, ask: Callable[[], str]) -> Finding:
    try:
        return Finding(name, True, f"{where}: {ask()}", False)
    except StreamMLError as error:
        return Finding(name, False, str(error), False)


def _ask_broker(settings: Settings) -> str:
    from streamml.adapters.kafka.admin import KafkaAdmin

    return f"answers, {KafkaAdmin(settings.client()).brokers()} broker(s)"


def _ask_redis(settings: Settings) -> str:
    from streamml.compose.parts import open_store

    store = open_store(settings.redis)
    try:
        store.ping()
    finally:
        store.close()
    return "answers"
