"""Small made-up markets: a tide that shows in the volume while it carries the price, or nothing at all."""

from __future__ import annotations

import numpy as np

from tradewind.core.resampling import BASE_MS
from tradewind.core.types import Bars

START_MS = 1_700_006_400_000 // 86_400_000 * 86_400_000


def toy_bars(symbol: str, count: int, *, seed: int, tide: float = 0.0, sigma_frac: float = 0.004) -> Bars:
    """`count` 15m bars without gaps.

    The tide is a slow wave of its own for each symbol; bars in its direction are busier, and it moves the price by
    `tide` standard deviations a bar at its height. At 0 it is still seen in the volume and says nothing.
    """
    rng = np.random.default_rng([seed, *symbol.encode()])
    phase = np.cumsum(rng.normal(2 * np.pi / 260, 0.02, count))
    wave = np.sin(phase + rng.uniform(0, 2 * np.pi))
    log_sigma = 0.25 * np.sin(np.arange(count) * 2 * np.pi / (96 * 9) + rng.uniform(0, 6))
    sigma = sigma_frac * np.exp(log_sigma)
    steps = sigma * (rng.standard_normal(count) + tide * wave)
    close = 100 * np.exp(np.cumsum(steps - steps.mean()))
    opened = np.concatenate([[100.0], close[:-1]])
    reach = sigma * rng.exponential(0.5, (2, count))
    high = np.maximum(opened, close) * (1 + reach[0])
    low = np.minimum(opened, close) * (1 - reach[1])
    with_tide = np.sign(close - opened) * wave
    volume = 50_000 * np.exp(0.8 * with_tide + 0.4 * rng.standard_normal(count) + log_sigma)
    times = START_MS + np.arange(count, dtype=np.int64) * BASE_MS
    # Prices on a grid of a cent, as a market quotes them.
    columns = (np.round(column, 2) for column in (opened, high, low, close))
    return Bars(symbol, "15m", times, *columns, volume)


def without(bars: Bars, rows: list[int]) -> Bars:
    """The same bars with some missing."""
    keep = np.ones(len(bars), dtype=bool)
    keep[rows] = False
    return Bars(
        bars.symbol,
        bars.timeframe,
        *(c[keep] for c in (bars.open_time_ms, bars.open, bars.high, bars.low, bars.close, bars.volume)),
    )
