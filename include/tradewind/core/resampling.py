"""Higher timeframes out of 15m bars, and the moment at which each of their values was known.

A resampled bar stands on the UTC grid (open time a multiple of its length) and exists only when every 15m bar in it
does: a part that is missing makes the whole absent, and nothing is filled in. A bar is known at open time + length, so
a 15m bar sees the last higher bar that closed no later than itself.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from .timeframes import TIMEFRAME_MS
from .types import Bars, FloatArray, IntArray

BASE_MS: Final = TIMEFRAME_MS["15m"]
CONTEXT_MS: Final = {timeframe: TIMEFRAME_MS[timeframe] for timeframe in ("1h", "4h")}


def bars_per(timeframe: str) -> int:
    """How many 15m bars make one bar of a context timeframe. Raises ValueError for any other timeframe."""
    if timeframe not in CONTEXT_MS:
        raise ValueError(f"{timeframe!r} is not resampled here; choose one of {', '.join(CONTEXT_MS)}")
    return CONTEXT_MS[timeframe] // BASE_MS


def resample(bars_15m: Bars, timeframe: str) -> Bars:
    """Complete bars of `timeframe` out of 15m bars; incomplete ones are absent. Linear in the number of bars."""
    parts = bars_per(timeframe)
    times = bars_15m.open_time_ms
    starts = np.flatnonzero(times % CONTEXT_MS[timeframe] == 0)
    starts = starts[starts + parts <= len(times)]
    # Open times ascend on the grid, so the last part standing where it must means that none between is missing.
    starts = starts[times[starts + parts - 1] - times[starts] == (parts - 1) * BASE_MS]
    rows = starts[:, None] + np.arange(parts)
    return Bars(
        bars_15m.symbol,
        timeframe,
        times[starts],
        bars_15m.open[starts],
        bars_15m.high[rows].max(axis=1) if len(starts) else np.empty(0),
        bars_15m.low[rows].min(axis=1) if len(starts) else np.empty(0),
        bars_15m.close[starts + parts - 1],
        bars_15m.volume[rows].sum(axis=1),
    )


def known_rows(open_time_ms_15m: IntArray, context_open_time_ms: IntArray, timeframe: str) -> IntArray:
    """For each 15m bar the row of the last context bar known at its close, −1 where there is none yet."""
    known_ms = context_open_time_ms + CONTEXT_MS[timeframe]
    rows: IntArray = np.searchsorted(known_ms, open_time_ms_15m + BASE_MS, side="right") - 1
    return rows


def join_known(values: FloatArray, rows: IntArray) -> FloatArray:
    """Context values spread over 15m bars by `known_rows`; NaN where no context bar is known yet."""
    if len(values) == 0:
        return np.full(len(rows), np.nan)
    return np.where(rows >= 0, values[np.maximum(rows, 0)], np.nan)
