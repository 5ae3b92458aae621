"""What the filters and sizing read of the market, as columns over all bars: one function for live, replay and labels.

TA-Lib brings pandas: it is imported where an indicator is computed, for a replay of a rule has no need of either.

Every value in row i was known at the close of 15m bar i. Context values come from the last 1h or 4h bar that had closed
by then (`core.resampling`). NaN where an indicator is not warm yet.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .inputs import MarketNumbers
from .params import StrategyParams
from .resampling import BASE_MS, join_known, known_rows, resample
from .types import Bars, FloatArray, IntArray


@dataclass(frozen=True, slots=True, eq=False)
class MarketColumns:
    """The same for every bar, aligned with the bars' rows."""

    bar_ms: IntArray
    close: FloatArray
    volume_base: FloatArray
    volume_ratio: FloatArray
    atr_quote: FloatArray
    trend_ema: FloatArray
    missing_bars: IntArray

    def at(self, row: int) -> MarketNumbers | None:
        """The numbers of one row; None where one of them is not known yet."""
        numbers = MarketNumbers(
            bar_ms=int(self.bar_ms[row]),
            close=float(self.close[row]),
            volume_base=float(self.volume_base[row]),
            volume_ratio=float(self.volume_ratio[row]),
            atr_quote=float(self.atr_quote[row]),
            trend_ema=float(self.trend_ema[row]),
            missing_bars=int(self.missing_bars[row]),
        )
        known = (numbers.volume_ratio, numbers.atr_quote, numbers.trend_ema)
        return numbers if all(math.isfinite(value) for value in known) else None


def atr_1h(bars_15m: Bars, period: int = 14) -> FloatArray:
    """Wilder's ATR of the 1h bars, for each 15m bar as known at its close; NaN until warm. In quote."""
    import talib

    from .indicators import Series

    hourly = Series(resample(bars_15m, "1h"))
    values = talib.ATR(hourly.high, hourly.low, hourly.close, period) if len(hourly) > period else np.empty(0)
    rows = known_rows(bars_15m.open_time_ms, hourly.bars.open_time_ms, "1h")
    return join_known(values, rows) if len(values) else np.full(len(bars_15m), np.nan)


def trend_ema_4h(bars_15m: Bars, span: int) -> FloatArray:
    """EMA of the 4h closes, for each 15m bar as known at its close; NaN until warm."""
    from .indicators import Series

    context = Series(resample(bars_15m, "4h"))
    values = context.ema(span) if len(context) >= span else np.empty(0)
    rows = known_rows(bars_15m.open_time_ms, context.bars.open_time_ms, "4h")
    return join_known(values, rows) if len(values) else np.full(len(bars_15m), np.nan)


def missing_in_window(open_time_ms: IntArray, window_bars: int) -> IntArray:
    """How many of the `window_bars` 15m bars ending with each row are absent, those before the first row included."""
    rows = np.arange(len(open_time_ms))
    first = np.maximum(rows - (window_bars - 1), 0)  # where the window has no gap
    after = np.flatnonzero(open_time_ms[1:] - open_time_ms[:-1] != BASE_MS) + 1
    if len(after):
        near = np.unique(np.minimum(np.add.outer(after, np.arange(window_bars)), len(rows) - 1))
        starts = open_time_ms[near] - (window_bars - 1) * BASE_MS
        first[near] = np.searchsorted(open_time_ms, starts, side="left")
    present: IntArray = rows - first + 1
    return window_bars - present


def market_columns(bars_15m: Bars, params: StrategyParams) -> MarketColumns:
    """All columns over the whole series, in one pass."""
    from .indicators import Series

    series = Series(bars_15m)
    return MarketColumns(
        bar_ms=bars_15m.open_time_ms,
        close=bars_15m.close,
        volume_base=bars_15m.volume,
        volume_ratio=series.volume_ratio(params.volume_window_bars),
        atr_quote=atr_1h(bars_15m, params.atr_period_1h_bars),
        trend_ema=trend_ema_4h(bars_15m, params.trend_filter_ema_4h_bars),
        missing_bars=missing_in_window(bars_15m.open_time_ms, params.completeness_window_bars),
    )


def market_numbers(bars_15m: Bars, params: StrategyParams) -> MarketNumbers | None:
    """The newest bar's numbers; None without bars, or while an indicator is not warm."""
    if len(bars_15m) == 0:
        return None
    return market_columns(bars_15m, params).at(len(bars_15m) - 1)


def return_correlation(a: Bars, b: Bars, end_ms: int, window_bars: int) -> float | None:
    """Pearson correlation of 15m log returns over the `window_bars` bars opened before `end_ms`, both series present.

    None when fewer than half of the window's returns exist in both, or one of the prices did not move: unknown is said,
    not guessed.
    """
    start_ms = end_ms - (window_bars + 1) * BASE_MS
    times_a, returns_a = _returns(a, start_ms, end_ms)
    times_b, returns_b = _returns(b, start_ms, end_ms)
    if not np.array_equal(times_a, times_b):
        _, in_a, in_b = np.intersect1d(times_a, times_b, assume_unique=True, return_indices=True)
        returns_a, returns_b = returns_a[in_a], returns_b[in_b]
    if len(returns_a) < window_bars / 2:
        return None
    x = returns_a - returns_a.mean()
    y = returns_b - returns_b.mean()
    scale = math.sqrt(float(x @ x) * float(y @ y))
    return float(x @ y) / scale if scale > 0 else None


def _returns(bars: Bars, start_ms: int, end_ms: int) -> tuple[IntArray, FloatArray]:
    """Log returns between neighbouring bars inside [start_ms, end_ms); a return over a gap is left out."""
    first, last = np.searchsorted(bars.open_time_ms, [start_ms, end_ms])
    times = bars.open_time_ms[first:last]
    steps = np.diff(np.log(bars.close[first:last]))
    neighbours = np.diff(times) == BASE_MS
    return times[1:][neighbours], steps[neighbours]
