"""The table of features: name, group, source, warm-up and formula of each, in the order a model sees them.

All are scale-free: distances in ATR, volumes over their mean, ranks, ratios. A formula gets the series of its source
(`features.compute_features` says how each is joined to 15m bars) and returns one value a bar, of that bar and earlier.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import talib

from .indicators import (
    Series,
    ema_warmup,
    ratio,
    rolling_correlation,
    rolling_mean,
    rolling_rank,
    wilder_warmup,
)
from .resampling import BASE_MS, bars_per
from .types import Bars, FloatArray

DAY_MS: Final = 24 * 60 * 60 * 1000


@dataclass(frozen=True, slots=True)
class Feature:
    """One column. `warmup_bars`: a window of so many 15m bars, without gaps, gives the value of the whole history."""

    name: str
    group: str
    source: str
    warmup_bars: int
    source_bars: int  # the same in bars of its source: fewer rows than this give NaN
    compute: Callable[[Series], FloatArray]


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
        self._together: dict[int, tuple[FloatArray, FloatArray]] = {}

    def join(self, values: FloatArray) -> FloatArray:
        """The leader's values at the symbol's bars; NaN where the leader's bar is missing."""
        return np.where(self._present, values[self.rows], np.nan)

    def together(self, window: int) -> tuple[FloatArray, FloatArray]:
        """Correlation of the symbol's log returns with the leader's, and its beta to the leader."""
        if window not in self._together:
            self._together[window] = rolling_correlation(self.own.log_return, self.join(self.log_return), window)
        return self._together[window]


def _own(name: str, group: str, warmup: int, compute: Callable[[Series], FloatArray]) -> Feature:
    return Feature(name, group, "15m", warmup, warmup, compute)


def _context(timeframe: str, name: str, group: str, warmup: int, compute: Callable[[Series], FloatArray]) -> Feature:
    # A window may begin just after and end just before a context bar does: one part less than a whole one at each end.
    parts = bars_per(timeframe)
    return Feature(f"{name}_{timeframe}", group, timeframe, warmup * parts + 2 * (parts - 1), warmup, compute)


def _leader(name: str, warmup: int, compute: Callable[[LeaderSeries], FloatArray]) -> Feature:
    return Feature(name, "leader", "leader", warmup, warmup, compute)  # type: ignore[arg-type]  # always given a LeaderSeries


def _clock(name: str, compute: Callable[[Series], FloatArray]) -> Feature:
    return Feature(name, "time", "clock", 1, 1, compute)


_ATR: Final = wilder_warmup(14)


def _move(lag: int) -> Callable[[Series], FloatArray]:
    """Log return over `lag` bars in units of what a random walk of this volatility would do in that time."""
    return lambda s: s.move(lag) / (s.natr * np.sqrt(lag))


def _windowed_move(lag: int, window: int) -> Callable[[Series], FloatArray]:
    return lambda s: s.move(lag) / (s.natr_windowed(window) * np.sqrt(lag))


def _mean_gap(window: int) -> Callable[[Series], FloatArray]:
    """Distance of the close from its moving average, in mean true ranges of the same window."""
    return lambda s: (s.close - s.mean_std(window)[0]) / (s.close * s.natr_windowed(window))


def _ema_gap(span: int) -> Callable[[Series], FloatArray]:
    return lambda s: (s.close - s.ema(span)) / s.atr_floored


def _slope(window: int) -> Callable[[Series], FloatArray]:
    """Least-squares slope per bar over the window, in mean true ranges."""
    return lambda s: talib.LINEARREG_SLOPE(s.close, window) / (s.close * s.natr_windowed(window))


def _di_balance(s: Series) -> FloatArray:
    plus: FloatArray = talib.PLUS_DI(s.high, s.low, s.close, 14)
    minus: FloatArray = talib.MINUS_DI(s.high, s.low, s.close, 14)
    return ratio(plus - minus, plus + minus)


def _macd_histogram(s: Series) -> FloatArray:
    _, _, histogram = talib.MACD(s.close, 12, 26, 9)
    return np.asarray(histogram) / s.atr_floored


def _stochastic(s: Series) -> FloatArray:
    slow_k, _ = talib.STOCH(s.high, s.low, s.close, 14, 3, 0, 3, 0)
    return np.asarray(slow_k) / 50 - 1


def _efficiency(window: int) -> Callable[[Series], FloatArray]:
    """Kaufman's efficiency ratio with its sign: net move over the path walked, −1..1."""

    def compute(s: Series) -> FloatArray:
        path = rolling_mean(np.abs(s.log_return), window)
        return ratio(s.move(window), path * window)

    return compute


def _downside(window: int) -> Callable[[Series], FloatArray]:
    """Share of the squared returns that came from falls; a half where nothing moved."""

    def compute(s: Series) -> FloatArray:
        falls = rolling_mean(np.minimum(s.log_return, 0.0) ** 2, window)
        both = rolling_mean(s.log_return**2, window)
        return ratio(falls, both, neutral=0.5)

    return compute


def _parkinson_ratio(window: int) -> Callable[[Series], FloatArray]:
    """Parkinson's high-low volatility over the close-to-close one: above 1 where bars reach out and come back."""

    def compute(s: Series) -> FloatArray:
        squares = rolling_mean(np.log(s.high / s.low) ** 2, window)
        spread: FloatArray = np.sqrt(squares / (4 * np.log(2))) / s.return_std(window)
        return spread

    return compute


def _signed_volume(window: int) -> Callable[[Series], FloatArray]:
    """Volume of rising bars minus that of falling ones over all of it, −1..1: the slope of on-balance volume."""

    def compute(s: Series) -> FloatArray:
        signed = rolling_mean(np.sign(s.log_return) * s.volume, window)
        total = s.volume_mean(window)
        return ratio(signed, total)

    return compute


def _money_flow(window: int) -> Callable[[Series], FloatArray]:
    """Chaikin's money flow: volume weighted by where each bar closed in its range, −1..1."""

    def compute(s: Series) -> FloatArray:
        flow = rolling_mean(_close_location(s) * s.volume, window)
        total = s.volume_mean(window)
        return ratio(flow, total)

    return compute


def _return_volume_correlation(window: int) -> Callable[[Series], FloatArray]:
    """Correlation of log returns with log volume: above 0 where the rises are the busy bars, whatever the price did."""
    return lambda s: rolling_correlation(s.log_return, s.relative_log_volume, window)[0]


def _volume_level(short: int, long: int) -> Callable[[Series], FloatArray]:
    """Log of the short window's mean volume over the long one's: is this market awake?"""

    def compute(s: Series) -> FloatArray:
        now = s.volume_mean(short)
        usual = s.volume_mean(long)
        return np.log(np.maximum(ratio(now, usual, neutral=1.0), 1e-3))

    return compute


def _vwap_gap(window: int) -> Callable[[Series], FloatArray]:
    """Distance of the close from the window's volume-weighted price, in ATR."""

    def compute(s: Series) -> FloatArray:
        typical = (s.high + s.low + s.close) / 3
        value = rolling_mean(typical * s.volume, window)
        volume = s.volume_mean(window)
        return (s.close - np.where(volume > 0, ratio(value, volume), s.close)) / s.atr_floored

    return compute


def _close_location(s: Series) -> FloatArray:
    return 2 * ratio(s.close - s.low, s.high - s.low, neutral=0.5) - 1


def _upper_wick(s: Series) -> FloatArray:
    return ratio(s.high - np.maximum(s.open, s.close), s.high - s.low)


def _lower_wick(s: Series) -> FloatArray:
    return ratio(np.minimum(s.open, s.close) - s.low, s.high - s.low)


def _opening_gap(s: Series) -> FloatArray:
    out = np.full(len(s), np.nan)
    out[1:] = (s.open[1:] - s.close[:-1]) / s.atr_floored[1:]
    return out


def _rising_share(window: int) -> Callable[[Series], FloatArray]:
    return lambda s: rolling_mean(np.sign(s.log_return), window)


def _cycle(period_ms: int, wave: Callable[[FloatArray], FloatArray]) -> Callable[[Series], FloatArray]:
    # Bars stand on a grid, so a period has few phases: they are looked up instead of computed bar by bar.
    values = wave(2 * np.pi * np.arange(period_ms // BASE_MS) / (period_ms // BASE_MS))
    return lambda s: values[((s.bars.open_time_ms + BASE_MS) % period_ms) // BASE_MS]


def _weekend(s: Series) -> FloatArray:
    # The epoch was a Thursday, so days 2 and 3 of each week of seven are Saturday and Sunday.
    weekday = (s.bars.open_time_ms // DAY_MS) % 7
    return np.asarray((weekday == 2) | (weekday == 3), dtype=np.float64)


def _leader_move(lag: int) -> Callable[[LeaderSeries], FloatArray]:
    return lambda b: b.join(b.move(lag) / (b.natr * np.sqrt(lag)))


def _relative_strength(lag: int) -> Callable[[LeaderSeries], FloatArray]:
    """How much further than the leader the symbol went, in its own volatility."""
    return lambda b: (b.own.move(lag) - b.join(b.move(lag))) / (b.own.natr * np.sqrt(lag))


FEATURES: Final[tuple[Feature, ...]] = (
    # Price: how far it went, in volatility.
    _own("move_1", "price", _ATR, _move(1)),
    _own("move_2", "price", _ATR, _move(2)),
    _own("move_4", "price", _ATR, _move(4)),
    _own("move_8", "price", _ATR, _move(8)),
    _own("move_16", "price", _ATR, _move(16)),
    _own("move_48", "price", _ATR, _move(48)),
    _own("move_96", "price", _ATR, _move(96)),
    _own("range_position_20", "price", 20, lambda s: s.range_position(20)),
    _own("range_position_96", "price", 96, lambda s: s.range_position(96)),
    _own("downside_share_48", "price", 49, _downside(48)),
    # Volatility.
    _own("natr", "volatility", _ATR, lambda s: s.natr),
    _own("natr_over_mean_96", "volatility", _ATR, lambda s: s.natr / s.natr_windowed(96)),
    _own("natr_rank_192", "volatility", _ATR + 191, lambda s: rolling_rank(s.natr, 192)),
    _own("return_std_ratio", "volatility", 97, lambda s: s.return_std(16) / s.return_std(96)),
    _own("natr_day_over_20_days", "volatility", 1921, lambda s: np.log(s.natr_windowed(96) / s.natr_windowed(1920))),
    _own("parkinson_ratio_32", "volatility", 33, _parkinson_ratio(32)),
    _own("bandwidth_20", "volatility", 20, lambda s: s.bandwidth(20)),
    _own("bandwidth_rank_96", "volatility", 115, lambda s: rolling_rank(s.bandwidth(20), 96)),
    _own("true_range_atr", "volatility", _ATR, lambda s: s.true_range / s.atr_floored),
    # Trend.
    _own("adx", "trend", 2 * _ATR, lambda s: s.adx / 100),
    _own("di_balance", "trend", _ATR + 14, _di_balance),
    _own("ema_gap_9", "trend", _ATR, _ema_gap(9)),
    _own("ema_gap_21", "trend", _ATR, _ema_gap(21)),
    _own("ema_gap_50", "trend", ema_warmup(50), _ema_gap(50)),
    _own("mean_gap_96", "trend", 97, _mean_gap(96)),
    _own("slope_20", "trend", 21, _slope(20)),
    _own("slope_48", "trend", 49, _slope(48)),
    _own("efficiency_20", "trend", 21, _efficiency(20)),
    _own("efficiency_96", "trend", 97, _efficiency(96)),
    _own("aroon_25", "trend", 26, lambda s: talib.AROONOSC(s.high, s.low, 25) / 100),
    # Momentum.
    _own("rsi_7", "momentum", wilder_warmup(7), lambda s: talib.RSI(s.close, 7) / 50 - 1),
    _own("rsi_14", "momentum", _ATR, lambda s: talib.RSI(s.close, 14) / 50 - 1),
    _own("stochastic_14", "momentum", 18, _stochastic),
    _own("williams_48", "momentum", 48, lambda s: talib.WILLR(s.high, s.low, s.close, 48) / 50 + 1),
    _own("cci_20", "momentum", 20, lambda s: talib.CCI(s.high, s.low, s.close, 20) / 100),
    _own("mfi_14", "momentum", 15, lambda s: talib.MFI(s.high, s.low, s.close, s.volume, 14) / 50 - 1),
    _own("macd_histogram", "momentum", _ATR + ema_warmup(26), _macd_histogram),
    _own("ultimate", "momentum", 29, lambda s: talib.ULTOSC(s.high, s.low, s.close, 7, 14, 28) / 50 - 1),
    _own("band_position_20", "momentum", 20, lambda s: s.band_position(20)),
    # Volume.
    _own("volume_ratio_20", "volume", 20, lambda s: s.volume_ratio(20)),
    _own("volume_ratio_96", "volume", 96, lambda s: s.volume_ratio(96)),
    _own("volume_rank_96", "volume", 96, lambda s: rolling_rank(s.volume, 96)),
    _own("volume_day_over_20_days", "volume", 1920, _volume_level(96, 1920)),
    _own("return_volume_correlation_48", "volume", 144, _return_volume_correlation(48)),
    _own("return_volume_correlation_96", "volume", 192, _return_volume_correlation(96)),
    _own("signed_volume_20", "volume", 21, _signed_volume(20)),
    _own("signed_volume_96", "volume", 97, _signed_volume(96)),
    _own("money_flow_20", "volume", 20, _money_flow(20)),
    _own("vwap_gap_96", "volume", _ATR, _vwap_gap(96)),
    # The candle's shape.
    _own("body", "shape", 1, lambda s: ratio(s.close - s.open, s.high - s.low)),
    _own("upper_wick", "shape", 1, _upper_wick),
    _own("lower_wick", "shape", 1, _lower_wick),
    _own("close_location", "shape", 1, _close_location),
    _own("opening_gap", "shape", _ATR, _opening_gap),
    _own("rising_share_12", "shape", 13, _rising_share(12)),
    # Time of day and week, UTC.
    _clock("day_sin", _cycle(DAY_MS, np.sin)),
    _clock("day_cos", _cycle(DAY_MS, np.cos)),
    _clock("week_sin", _cycle(7 * DAY_MS, np.sin)),
    _clock("week_cos", _cycle(7 * DAY_MS, np.cos)),
    _clock("weekend", _weekend),
    # One hour.
    _context("1h", "move_6", "context", _ATR, _move(6)),
    _context("1h", "move_24", "context", _ATR, _move(24)),
    _context("1h", "natr", "context", _ATR, lambda s: s.natr),
    _context("1h", "adx", "context", 2 * _ATR, lambda s: s.adx / 100),
    _context("1h", "di_balance", "context", _ATR + 14, _di_balance),
    _context("1h", "rsi", "context", _ATR, lambda s: talib.RSI(s.close, 14) / 50 - 1),
    _context("1h", "ema_gap_21", "context", _ATR, _ema_gap(21)),
    _context("1h", "mean_gap_72", "context", 73, _mean_gap(72)),
    _context("1h", "slope_24", "context", 25, _slope(24)),
    _context("1h", "efficiency_24", "context", 25, _efficiency(24)),
    _context("1h", "range_position_72", "context", 72, lambda s: s.range_position(72)),
    _context("1h", "band_position_20", "context", 20, lambda s: s.band_position(20)),
    _context("1h", "bandwidth_rank_120", "context", 139, lambda s: rolling_rank(s.bandwidth(20), 120)),
    _context("1h", "volume_ratio_24", "context", 24, lambda s: s.volume_ratio(24)),
    # Four hours: windows only, so that their warm-up stays at days instead of months.
    _context("4h", "move_6", "context", 21, _windowed_move(6, 20)),
    _context("4h", "move_42", "context", 43, _windowed_move(42, 42)),
    _context("4h", "mean_gap_20", "context", 21, _mean_gap(20)),
    _context("4h", "mean_gap_50", "context", 51, _mean_gap(50)),
    _context("4h", "slope_20", "context", 21, _slope(20)),
    _context("4h", "efficiency_20", "context", 21, _efficiency(20)),
    _context("4h", "range_position_42", "context", 42, lambda s: s.range_position(42)),
    _context("4h", "band_position_20", "context", 20, lambda s: s.band_position(20)),
    _context("4h", "natr_14", "context", 15, lambda s: s.natr_windowed(14)),
    # The market leader.
    _leader("leader_move_1", _ATR, _leader_move(1)),
    _leader("leader_move_4", _ATR, _leader_move(4)),
    _leader("leader_move_16", _ATR, _leader_move(16)),
    _leader("leader_move_96", _ATR, _leader_move(96)),
    _leader("leader_natr", _ATR, lambda b: b.join(b.natr)),
    _leader("relative_strength_16", _ATR, _relative_strength(16)),
    _leader("relative_strength_96", _ATR, _relative_strength(96)),
    _leader("leader_correlation_96", 97, lambda b: b.together(96)[0]),
    _leader("leader_beta_96", 97, lambda b: b.together(96)[1]),
)
