"""Candle intervals: which bar a moment belongs to, and how base bars add up to longer ones."""

from __future__ import annotations

import numpy as np

from tradewind.core.types import IntArray
from tradewind.paper.markets import DAY_MS, MINUTE_MS, TickBars, empty_bars

_HOUR_MS = 60 * MINUTE_MS
_MONDAY_MS = 4 * DAY_MS  # the epoch was a Thursday
INTERVAL_MS: dict[str, int] = {
    "1m": MINUTE_MS, "3m": 3 * MINUTE_MS, "5m": 5 * MINUTE_MS, "15m": 15 * MINUTE_MS, "30m": 30 * MINUTE_MS,
    "1h": _HOUR_MS, "2h": 2 * _HOUR_MS, "4h": 4 * _HOUR_MS, "6h": 6 * _HOUR_MS, "8h": 8 * _HOUR_MS,
    "12h": 12 * _HOUR_MS, "1d": DAY_MS, "3d": 3 * DAY_MS, "1w": 7 * DAY_MS, "1M": 31 * DAY_MS,
}  # fmt: skip
"""Length of each interval; a month counts at its longest, to bound a search, never to compute its open time."""


def open_times(times_ms: IntArray, interval: str, offset_ms: int = 0) -> IntArray:
    """Open time of the bar that each moment belongs to. `offset_ms` is the time zone's distance from UTC."""
    local = times_ms + offset_ms
    if interval == "1M":
        months = local.astype("datetime64[ms]").astype("datetime64[M]")
        opened = months.astype("datetime64[ms]").astype(np.int64)
    else:
        origin = _MONDAY_MS if interval == "1w" else 0
        length = INTERVAL_MS[interval]
        opened = (local - origin) // length * length + origin
    result: IntArray = opened - offset_ms
    return result


def open_time(time_ms: int, interval: str, offset_ms: int = 0) -> int:
    return int(open_times(np.array([time_ms], np.int64), interval, offset_ms)[0])


def next_open_time(open_ms: int, interval: str, offset_ms: int = 0) -> int:
    """Open time of the bar after the one that opens at `open_ms`."""
    if interval != "1M":
        return open_ms + INTERVAL_MS[interval]
    return open_time(open_ms + 32 * DAY_MS, interval, offset_ms)


def aggregate(bars: TickBars, interval: str, offset_ms: int = 0) -> TickBars:
    """The bars of `interval` that the base bars add up to; the first and last are partial if the base bars are."""
    if not len(bars):
        return empty_bars()
    keys = open_times(bars.open_ms, interval, offset_ms)
    starts = np.flatnonzero(np.r_[True, keys[1:] != keys[:-1]])
    ends = np.r_[starts[1:], len(keys)] - 1
    return TickBars(
        keys[starts],
        bars.open[starts],
        np.maximum.reduceat(bars.high, starts),
        np.minimum.reduceat(bars.low, starts),
        bars.close[ends],
        np.add.reduceat(bars.volume, starts),
        np.add.reduceat(bars.taker_buy, starts),
    )
