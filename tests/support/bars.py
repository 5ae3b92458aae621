"""Bars for tests of the market data."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tradewind.core.timeframes import columns, timeframe_ms
from tradewind.core.types import Bars


def random_bars(count: int, symbol: str = "BTC/USDT", timeframe: str = "15m", *, start_ms: int, seed: int = 1) -> Bars:
    """Valid bars without gaps, whose prices have no short decimal form."""
    rng = np.random.default_rng(seed)
    body = 100 * np.exp(np.cumsum(rng.normal(0, 0.01, (2, count)), axis=1))
    high, low = body.max(axis=0) * 1.001, body.min(axis=0) / 1.001
    times = start_ms + np.arange(count, dtype=np.int64) * timeframe_ms(timeframe)
    return Bars(symbol, timeframe, times, body[0], high, low, body[1], rng.uniform(0, 1e6, count))


def joined(parts: Sequence[Bars]) -> Bars:
    """The rows of several batches of one series, one after another."""
    stacked = [np.concatenate(column) for column in zip(*map(columns, parts), strict=True)]
    return Bars(parts[0].symbol, parts[0].timeframe, *stacked)
