"""The formulas of the features: each gets the series of its source and returns one value a bar, of it and earlier ones.

All are scale-free: distances in ATR, volumes over their mean, ranks, ratios.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import talib

from .indicators import Series
from .resampling import BASE_MS
from .rolling import ratio, rolling_correlation, rolling_mean
from .types import Bars, FloatArray

DAY_MS: Final = 24 * 60 * 60 * 1000


class LeaderSeries(Series):
    """The leader's series, beside the symbol whose rows it is joined to."""

    def __init__(self, bars: Bars, own: Series) -> None:
        super().__init__(bars)
        self.own = own
        times = own.bars.open_time_ms
        found = np.searchsorted(bars.open_time_ms, times)
        at = np.minimum(found, len(bars) - 1)
        self.rows = at
        self._present = bars.open_time_ms[at] == times
        # Without gaps, which is nearly always, every row is its own.
        self._aligned = len(bars) == len(times) and bool(self._present.all())
        self._together: dict[int, tuple[FloatArray, FloatArray]] = {}

    def join(self, values: FloatArray) -> FloatArray:
        """The leader's values at the symbol's bars; NaN where the leader's bar is missing."""
        return values if self._aligned else np.where(self._present, values[self.rows], np.nan)

    def together(self, window: int) -> tuple[FloatArray, FloatArray]:
        """Correlation of the symbol's log returns with the leader's, and its beta to the leader."""
        if window not in self._together:
            self._together[window] = rolling_correlation(self.own.log_return, self.join(self.log_return), window)
        return self._together[window]


def move(lag: int) -> Callable[[Series], FloatArray]:
    """Log return over `lag` bars in units of what a random walk of this volatility would do in that time."""
    return lambda s: s.move(lag) / (s.natr * np.sqrt(lag))


def windowed_move(lag: int, window: int) -> Callable[[Series], FloatArray]:
    return lambda s: s.move(lag) / (s.natr_windowed(window) * np.sqrt(lag))


def mean_gap(window: int) -> Callable[[Series], FloatArray]:
    """Distance of the close from its moving average, in mean true ranges of the same window."""
    return lambda s: (s.close - s.mean_std(window)[0]) / (s.close * s.natr_windowed(window))


def ema_gap(span: int) -> Callable[[Series], FloatArray]:
    return lambda s: (s.close - s.ema(span)) / s.atr_floored


def slope(window: int) -> Callable[[Series], FloatArray]:
    """Least-squares slope per bar over the window, in mean true ranges."""
    return lambda s: talib.LINEARREG_SLOPE(s.close, window) / (s.close * s.natr_windowed(window))


def di_balance(s: Series) -> FloatArray:
    plus: FloatArray = talib.PLUS_DI(s.high, s.low, s.close, 14)
    minus: FloatArray = talib.MINUS_DI(s.high, s.low, s.close, 14)
    return ratio(plus - minus, plus + minus)


def macd_histogram(s: Series) -> FloatArray:
    _, _, histogram = talib.MACD(s.close, 12, 26, 9)
    return np.asarray(histogram) / s.atr_floored


def stochastic(s: Series) -> FloatArray:
    slow_k, _ = talib.STOCH(s.high, s.low, s.close, 14, 3, 0, 3, 0)
    return np.asarray(slow_k) / 50 - 1


def efficiency(window: int) -> Callable[[Series], FloatArray]:
    """Kaufman's efficiency ratio with its sign: net move over the path walked, −1..1."""

    def compute(s: Series) -> FloatArray:
        path = rolling_mean(np.abs(s.log_return), window)
        return ratio(s.move(window), path * window)

    return compute


def downside(window: int) -> Callable[[Series], FloatArray]:
    """Share of the squared returns that came from falls; a half where nothing moved."""

    def compute(s: Series) -> FloatArray:
        falls = rolling_mean(np.minimum(s.log_return, 0.0) ** 2, window)
        both = rolling_mean(s.log_return**2, window)
        return ratio(falls, both, neutral=0.5)

    return compute


def parkinson_ratio(window: int) -> Callable[[Series], FloatArray]:
    """Parkinson's high-low volatility over the close-to-close one: above 1 where bars reach out and come back."""

    def compute(s: Series) -> FloatArray:
        squares = rolling_mean(np.log(s.high / s.low) ** 2, window)
        spread: FloatArray = np.sqrt(squares / (4 * np.log(2))) / s.return_std(window)
        return spread

    return compute


def signed_volume(window: int) -> Callable[[Series], FloatArray]:
    """Volume of rising bars minus that of falling ones over all of it, −1..1: the slope of on-balance volume."""

    def compute(s: Series) -> FloatArray:
        signed = rolling_mean(np.sign(s.log_return) * s.volume, window)
        total = s.volume_mean(window)
        return ratio(signed, total)

    return compute


def money_flow(window: int) -> Callable[[Series], FloatArray]:
    """Chaikin's money flow: volume weighted by where each bar closed in its range, −1..1."""

    def compute(s: Series) -> FloatArray:
        flow = rolling_mean(close_location(s) * s.volume, window)
        total = s.volume_mean(window)
        return ratio(flow, total)

    return compute


def return_volume_correlation(window: int) -> Callable[[Series], FloatArray]:
    """Correlation of log returns with log volume: above 0 where the rises are the busy bars, whatever the price did."""
    return lambda s: rolling_correlation(s.log_return, s.relative_log_volume, window)[0]


def volume_level(short: int, long: int) -> Callable[[Series], FloatArray]:
    """Log of the short window's mean volume over the long one's: is this market awake?"""

    def compute(s: Series) -> FloatArray:
        now = s.volume_mean(short)
        usual = s.volume_mean(long)
        return np.log(np.maximum(ratio(now, usual, neutral=1.0), 1e-3))

    return compute


def vwap_gap(window: int) -> Callable[[Series], FloatArray]:
    """Distance of the close from the window's volume-weighted price, in ATR."""

    def compute(s: Series) -> FloatArray:
        typical = (s.high + s.low + s.close) / 3
        value = rolling_mean(typical * s.volume, window)
        volume = s.volume_mean(window)
        return (s.close - np.where(volume > 0, ratio(value, volume), s.close)) / s.atr_floored

    return compute


def close_location(s: Series) -> FloatArray:
    return 2 * ratio(s.close - s.low, s.high - s.low, neutral=0.5) - 1


def upper_wick(s: Series) -> FloatArray:
    return ratio(s.high - np.maximum(s.open, s.close), s.high - s.low)


def lower_wick(s: Series) -> FloatArray:
    return ratio(np.minimum(s.open, s.close) - s.low, s.high - s.low)


def opening_gap(s: Series) -> FloatArray:
    out = np.full(len(s), np.nan)
    out[1:] = (s.open[1:] - s.close[:-1]) / s.atr_floored[1:]
    return out


def rising_share(window: int) -> Callable[[Series], FloatArray]:
    return lambda s: rolling_mean(np.sign(s.log_return), window)


def cycle(period_ms: int, wave: Callable[[FloatArray], FloatArray]) -> Callable[[Series], FloatArray]:
    # Bars stand on a grid, so a period has few phases: they are looked up instead of computed bar by bar.
    values = wave(2 * np.pi * np.arange(period_ms // BASE_MS) / (period_ms // BASE_MS))
    return lambda s: values[((s.bars.open_time_ms + BASE_MS) % period_ms) // BASE_MS]


def weekend(s: Series) -> FloatArray:
    # The epoch was a Thursday, so days 2 and 3 of each week of seven are Saturday and Sunday.
    weekday = (s.bars.open_time_ms // DAY_MS) % 7
    return np.asarray((weekday == 2) | (weekday == 3), dtype=np.float64)


def leader_move(lag: int) -> Callable[[LeaderSeries], FloatArray]:
    return lambda b: b.join(b.move(lag) / (b.natr * np.sqrt(lag)))


def relative_strength(lag: int) -> Callable[[LeaderSeries], FloatArray]:
    """How much further than the leader the symbol went, in its own volatility."""
    return lambda b: (b.own.move(lag) - b.join(b.move(lag))) / (b.own.natr * np.sqrt(lag))
