"""Bar arithmetic: everything about time grids, in epoch milliseconds UTC.

A bar is named by its open time `t` and covers [t, t + timeframe). It is closed, and so knowable, from t + timeframe on.
Grids are aligned to the epoch, which for every timeframe up to a day is midnight UTC.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np

from .types import Bars, IntArray

TIMEFRAME_MS: dict[str, int] = {
    "1m": 60_000,
    "3m": 180_000,
    "5m": 300_000,
    "15m": 900_000,
    "30m": 1_800_000,
    "1h": 3_600_000,
    "2h": 7_200_000,
    "4h": 14_400_000,
    "6h": 21_600_000,
    "8h": 28_800_000,
    "12h": 43_200_000,
    "1d": 86_400_000,
}


def timeframe_ms(timeframe: str) -> int:
    """The length of one bar. Raises ValueError for a timeframe that is not on a grid of the UTC day."""
    try:
        return TIMEFRAME_MS[timeframe]
    except KeyError:
        raise ValueError(f"timeframe {timeframe!r} is unknown: use one of {', '.join(TIMEFRAME_MS)}") from None


def to_ms(moment: datetime) -> int:
    """Epoch milliseconds of an aware datetime, exact. Raises ValueError for a naive one."""
    if moment.tzinfo is None:
        raise ValueError(f"{moment.isoformat()} has no timezone: pass an aware datetime")
    return (moment - _EPOCH) // timedelta(milliseconds=1)


def from_ms(ms: int) -> datetime:
    """The aware UTC datetime of epoch milliseconds, exact."""
    return _EPOCH + timedelta(milliseconds=int(ms))


def floor_ms(ms: int, timeframe: str) -> int:
    """The open time of the bar that contains `ms`."""
    return ms - ms % timeframe_ms(timeframe)


def ceil_ms(ms: int, timeframe: str) -> int:
    """The first open time at or after `ms`."""
    return ms + -ms % timeframe_ms(timeframe)


def closed_until_ms(now_ms: int, timeframe: str) -> int:
    """Bars that opened before the returned moment, and no others, are closed at `now_ms`."""
    return floor_ms(now_ms, timeframe)


def last_closed_open_ms(now_ms: int, timeframe: str) -> int:
    """The open time of the newest bar that is closed at `now_ms`."""
    return closed_until_ms(now_ms, timeframe) - timeframe_ms(timeframe)


def expected_opens_ms(start_ms: int, end_ms: int, timeframe: str) -> IntArray:
    """Every open time on the grid with start <= open < end, so that neighbouring intervals share none and lose none."""
    return np.arange(ceil_ms(start_ms, timeframe), end_ms, timeframe_ms(timeframe), dtype=np.int64)


def count_opens(start_ms: int, end_ms: int, timeframe: str) -> int:
    """How many open times lie in [start, end), without listing them."""
    step = timeframe_ms(timeframe)
    return max(0, -((ceil_ms(start_ms, timeframe) - end_ms) // step))


def columns(bars: Bars) -> tuple[np.ndarray, ...]:
    """The six columns in their fixed order: open time, open, high, low, close, volume."""
    return bars.open_time_ms, bars.open, bars.high, bars.low, bars.close, bars.volume


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
