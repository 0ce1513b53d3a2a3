"""Every error that streamml raises, sorted by what happens next.

::

    StreamMLError
    |- ConfigError            before start; carries every problem found     exit 2
    |  |- SettingsError
    |  `- TopologyError
    |- RowError               one row: it becomes a dead letter
    |  |- DecodeError
    |  |- FeatureMissing
    |  |- FeatureStale
    |  |- StepFailed
    |  |- DeadlineExceeded
    |  |- ModelRejected
    |  `- EncodeError
    |- TransientError         retried by policy; its stage waits
    |  |- SourceUnavailable
    |  |- FeaturesUnavailable
    |  |  `- FeatureStoreDown
    |  |- ModelBusy
    |  |- ModelOutOfMemory    fewer rows may fit; a row that does not alone is a dead letter
    |  `- SinkUnavailable
    `- FatalError             the worker stops                              exit 3
       |- ModelFault
       |- LedgerViolation
       |- OffsetOutOfRange
       |- DeadLetterLimitExceeded
       `- Fenced                                                            exit 4

A message is one or more sentences: what happened, where, and what to do next.
"""

from __future__ import annotations

import sysconfig
import traceback
from collections.abc import Sequence
from functools import cache
from pathlib import Path


class StreamMLError(Exception):
    """Root of all errors of this package."""

    exit_code: int = 3


class ConfigError(StreamMLError):
    """Something that was declared or set is wrong; nothing was started.

    Args:
        problems: every problem found, each one sentence with its remedy.
    """

    exit_code = 2

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems: tuple[str, ...] = (problems,) if isinstance(problems, str) else tuple(problems)
        super().__init__("\n".join(self.problems))


class SettingsError(ConfigError):
    """A flag, environment variable or line of ``streamml.toml`` is wrong."""


class TopologyError(ConfigError):
    """A topology, or what it refers to, is wrong."""


class RowError(StreamMLError):
    """One row cannot be processed and becomes a dead letter."""


class DecodeError(RowError):
    """The record is not what the input contract says."""


class FeatureMissing(RowError):
    """A feature set with ``if_missing="dead_letter"`` has no value for the row."""


class FeatureStale(RowError):
    """A feature set with ``if_stale="dead_letter"`` has a value that is too old, or from the future."""


class StepFailed(RowError):
    """A transform, filter or explode function failed the row, or made a key of it that nothing can be looked up by."""


class DeadlineExceeded(RowError):
    """No prediction could be made within the latency budget, and ``on_late`` is ``"dead_letter"``."""


class ModelRejected(RowError):
    """The model raised for this row, or answered with a value that is not finite."""


class EncodeError(RowError):
    """The prediction does not fit the output contract, or is too large for its topic."""


class TransientError(StreamMLError):
    """Something outside is not available now; the stage retries with backoff.

    Args:
        message: one or more sentences.
        retry_in_s: seconds before which it is useless to try again, where that is known; otherwise the backoff decides.
    """

    def __init__(self, message: str, *, retry_in_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_in_s = retry_in_s


class SourceUnavailable(TransientError):
    """The input broker does not answer."""


class FeaturesUnavailable(TransientError):
    """The feature store does not answer, or holds another schema than the topology declares."""


class FeatureStoreDown(FeaturesUnavailable):
    """The feature store itself does not answer, whichever set is asked for."""


class LoadUndone(FeatureStoreDown):
    """The feature store went away under a load. What was written is deleted again, and the load can be begun anew."""


class ModelBusy(TransientError):
    """The model cannot take a batch now, of any size."""


class ModelOutOfMemory(TransientError):
    """The model has not enough memory for these rows; fewer may fit."""


class SinkUnavailable(TransientError):
    """The output broker does not answer."""


class FatalError(StreamMLError):
    """The worker cannot go on; nothing unsettled is committed."""


class ModelFault(FatalError):
    """The model itself is at fault: a wrong name, shape or type, a device that failed. No row is to blame, so none is one's."""


class LedgerViolation(FatalError):
    """An internal invariant of settlement broke; going on could lose records."""


class OffsetOutOfRange(FatalError):
    """The committed position is no longer on the broker (retention, truncation)."""


class DeadLetterLimitExceeded(FatalError):
    """More rows became dead letters than the topology allows, and the group could not be told to pause."""


class Fenced(FatalError):
    """Another process took over this worker's identity."""

    exit_code = 4


def place_of(error: BaseException) -> str | None:
    """File and line of the user's own code that an exception came through last; ``None`` where it met none."""
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        file = frame.f_code.co_filename
        if not file.startswith(_not_the_users()):
            return f"{file}, line {line}"
    return None


@cache
def _not_the_users() -> tuple[str, ...]:
    """Where this package, Python and installed packages are; ``<`` begins what is in no file."""
    paths = sysconfig.get_paths()
    return (str(Path(__file__).parent), *(paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")), "<")
