"""What PyTorch does while a topology runs, step by step: a trace for chrome://tracing or Perfetto, and NVTX ranges for Nsight."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from streamml.errors import ConfigError


def check_trace(file: Path) -> None:
    """Return if a trace can be taken and written there.

    Raises:
        ConfigError: PyTorch is not installed, or the folder is not there.
    """
    try:
        import torch.profiler  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"A trace is taken by PyTorch, which does not load ({error}): pip install streamml[torch]."
        ) from error
    if not file.absolute().parent.is_dir():
        raise ConfigError(f"{file.absolute().parent} is no folder, so no trace can be written there; make it first.")


@contextmanager
def traced(file: Path) -> Iterator[Callable[[str], Any]]:
    """Write a trace of all threads at the end of the block; gives what makes a range of a name, for use in a ``with``."""
    import torch
    from torch._C._profiler import _ExperimentalConfig
    from torch.profiler import ProfilerActivity, profile

    activities = [ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(ProfilerActivity.CUDA)
    everywhere = _ExperimentalConfig(profile_all_threads=True)
    with profile(activities=activities, experimental_config=everywhere) as profiler:
        yield _range
    profiler.export_chrome_trace(str(file))


@contextmanager
def _range(name: str) -> Iterator[None]:
    import torch

    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.nvtx.range_push(name)
    try:
        with torch.profiler.record_function(name):
            yield
    finally:
        if on_gpu:
            torch.cuda.nvtx.range_pop()
