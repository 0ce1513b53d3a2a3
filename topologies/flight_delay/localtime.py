"""Local clock time in the United States, on whole numpy columns.

The rule in force since 2007: daylight saving time begins on the second Sunday of March and ends on the first Sunday of November, both at
2:00 on the local clock. Where a zone keeps standard time all year, subtract its offset and use nothing from here.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

NEW_YORK_STANDARD_HOURS: Final = -5


def local_time(utc: NDArray[np.datetime64], standard_hours: int = NEW_YORK_STANDARD_HOURS) -> NDArray[np.datetime64]:
    """What the wall clock showed at these UTC instants, ``standard_hours`` being the zone's offset in winter."""
    standard = utc + np.timedelta64(standard_hours, "h")
    return standard + _daylight_saving(standard) * np.timedelta64(1, "h")


def utc_of_midnight(day: NDArray[np.datetime64]) -> NDArray[np.datetime64]:
    """The UTC instants (microseconds) at which these dates began in New York. No clock changes at midnight, so each has one."""
    standard: NDArray[np.datetime64] = day.astype("datetime64[us]")
    return standard - np.timedelta64(NEW_YORK_STANDARD_HOURS, "h") - _daylight_saving(standard) * np.timedelta64(1, "h")


def _daylight_saving(standard: NDArray[np.datetime64]) -> NDArray[np.bool_]:
    """Whether clocks are one hour ahead, given the local standard time."""
    january: NDArray[np.datetime64] = standard.astype("datetime64[Y]").astype("datetime64[M]")
    begins = _first_sunday(january + np.timedelta64(2, "M")) + np.timedelta64(7, "D")
    ends = _first_sunday(january + np.timedelta64(10, "M"))
    # 2:00 daylight time is 1:00 standard time.
    is_on: NDArray[np.bool_] = (standard >= begins + np.timedelta64(2, "h")) & (
        standard < ends + np.timedelta64(1, "h")
    )
    return is_on


def _first_sunday(month: NDArray[np.datetime64]) -> NDArray[np.datetime64]:
    first: NDArray[np.datetime64] = month.astype("datetime64[D]")
    weekday = (first.astype(np.int64) + 4) % 7  # 1970-01-01 was a Thursday; Sunday = 0
    days: NDArray[np.timedelta64] = ((7 - weekday) % 7).astype("timedelta64[D]")
    return first + days
