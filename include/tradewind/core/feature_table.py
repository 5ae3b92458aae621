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

from . import formulas as f
from .formulas import DAY_MS, LeaderSeries
from .indicators import Series, ema_warmup, wilder_warmup
from .resampling import bars_per
from .rolling import ratio, rolling_rank
from .types import FloatArray


@dataclass(frozen=True, slots=True)
class Feature:
    """One column. `warmup_bars`: a window of so many 15m bars, without gaps, gives the value of the whole history."""

    name: str
    group: str
    source: str
    warmup_bars: int
    source_bars: int  # the same in bars of its source: fewer rows than this give NaN
    compute: Callable[[Series], FloatArray]


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


FEATURES: Final[tuple[Feature, ...]] = (
    # Price: how far it went, in volatility.
    _own("move_1", "price", _ATR, f.move(1)),
    _own("move_2", "price", _ATR, f.move(2)),
    _own("move_4", "price", _ATR, f.move(4)),
    _own("move_8", "price", _ATR, f.move(8)),
    _own("move_16", "price", _ATR, f.move(16)),
    _own("move_48", "price", _ATR, f.move(48)),
    _own("move_96", "price", _ATR, f.move(96)),
    _own("range_position_20", "price", 20, lambda s: s.range_position(20)),
    _own("range_position_96", "price", 96, lambda s: s.range_position(96)),
    _own("downside_share_48", "price", 49, f.downside(48)),
    # Volatility.
    _own("natr", "volatility", _ATR, lambda s: s.natr),
    _own("natr_over_mean_96", "volatility", _ATR, lambda s: s.natr / s.natr_windowed(96)),
    _own("natr_rank_192", "volatility", _ATR + 191, lambda s: rolling_rank(s.natr, 192)),
    _own("return_std_ratio", "volatility", 97, lambda s: s.return_std(16) / s.return_std(96)),
    _own("natr_day_over_20_days", "volatility", 1921, lambda s: np.log(s.natr_windowed(96) / s.natr_windowed(1920))),
    _own("parkinson_ratio_32", "volatility", 33, f.parkinson_ratio(32)),
    _own("bandwidth_20", "volatility", 20, lambda s: s.bandwidth(20)),
    _own("bandwidth_rank_96", "volatility", 115, lambda s: rolling_rank(s.bandwidth(20), 96)),
    _own("true_range_atr", "volatility", _ATR, lambda s: s.true_range / s.atr_floored),
    # Trend.
    _own("adx", "trend", 2 * _ATR, lambda s: s.adx / 100),
    _own("di_balance", "trend", _ATR + 14, f.di_balance),
    _own("ema_gap_9", "trend", _ATR, f.ema_gap(9)),
    _own("ema_gap_21", "trend", _ATR, f.ema_gap(21)),
    _own("ema_gap_50", "trend", ema_warmup(50), f.ema_gap(50)),
    _own("mean_gap_96", "trend", 97, f.mean_gap(96)),
    _own("slope_20", "trend", 21, f.slope(20)),
    _own("slope_48", "trend", 49, f.slope(48)),
    _own("efficiency_20", "trend", 21, f.efficiency(20)),
    _own("efficiency_96", "trend", 97, f.efficiency(96)),
    _own("aroon_25", "trend", 26, lambda s: talib.AROONOSC(s.high, s.low, 25) / 100),
    # Momentum.
    _own("rsi_7", "momentum", wilder_warmup(7), lambda s: talib.RSI(s.close, 7) / 50 - 1),
    _own("rsi_14", "momentum", _ATR, lambda s: talib.RSI(s.close, 14) / 50 - 1),
    _own("stochastic_14", "momentum", 18, f.stochastic),
    _own("williams_48", "momentum", 48, lambda s: talib.WILLR(s.high, s.low, s.close, 48) / 50 + 1),
    _own("cci_20", "momentum", 20, lambda s: talib.CCI(s.high, s.low, s.close, 20) / 100),
    _own("mfi_14", "momentum", 15, lambda s: talib.MFI(s.high, s.low, s.close, s.volume, 14) / 50 - 1),
    _own("macd_histogram", "momentum", _ATR + ema_warmup(26), f.macd_histogram),
    _own("ultimate", "momentum", 29, lambda s: talib.ULTOSC(s.high, s.low, s.close, 7, 14, 28) / 50 - 1),
    _own("band_position_20", "momentum", 20, lambda s: s.band_position(20)),
    # Volume.
    _own("volume_ratio_20", "volume", 20, lambda s: s.volume_ratio(20)),
    _own("volume_ratio_96", "volume", 96, lambda s: s.volume_ratio(96)),
    _own("volume_rank_96", "volume", 96, lambda s: rolling_rank(s.volume, 96)),
    _own("volume_day_over_20_days", "volume", 1920, f.volume_level(96, 1920)),
    _own("return_volume_correlation_48", "volume", 144, f.return_volume_correlation(48)),
    _own("return_volume_correlation_96", "volume", 192, f.return_volume_correlation(96)),
    _own("signed_volume_20", "volume", 21, f.signed_volume(20)),
    _own("signed_volume_96", "volume", 97, f.signed_volume(96)),
    _own("money_flow_20", "volume", 20, f.money_flow(20)),
    _own("vwap_gap_96", "volume", _ATR, f.vwap_gap(96)),
    # The candle's shape.
    _own("body", "shape", 1, lambda s: ratio(s.close - s.open, s.high - s.low)),
    _own("upper_wick", "shape", 1, f.upper_wick),
    _own("lower_wick", "shape", 1, f.lower_wick),
    _own("close_location", "shape", 1, f.close_location),
    _own("opening_gap", "shape", _ATR, f.opening_gap),
    _own("rising_share_12", "shape", 13, f.rising_share(12)),
    # Time of day and week, UTC.
    _clock("day_sin", f.cycle(DAY_MS, np.sin)),
    _clock("day_cos", f.cycle(DAY_MS, np.cos)),
    _clock("week_sin", f.cycle(7 * DAY_MS, np.sin)),
    _clock("week_cos", f.cycle(7 * DAY_MS, np.cos)),
    _clock("weekend", f.weekend),
    # One hour.
    _context("1h", "move_6", "context", _ATR, f.move(6)),
    _context("1h", "move_24", "context", _ATR, f.move(24)),
    _context("1h", "natr", "context", _ATR, lambda s: s.natr),
    _context("1h", "adx", "context", 2 * _ATR, lambda s: s.adx / 100),
    _context("1h", "di_balance", "context", _ATR + 14, f.di_balance),
    _context("1h", "rsi", "context", _ATR, lambda s: talib.RSI(s.close, 14) / 50 - 1),
    _context("1h", "ema_gap_21", "context", _ATR, f.ema_gap(21)),
    _context("1h", "mean_gap_72", "context", 73, f.mean_gap(72)),
    _context("1h", "slope_24", "context", 25, f.slope(24)),
    _context("1h", "efficiency_24", "context", 25, f.efficiency(24)),
    _context("1h", "range_position_72", "context", 72, lambda s: s.range_position(72)),
    _context("1h", "band_position_20", "context", 20, lambda s: s.band_position(20)),
    _context("1h", "bandwidth_rank_120", "context", 139, lambda s: rolling_rank(s.bandwidth(20), 120)),
    _context("1h", "volume_ratio_24", "context", 24, lambda s: s.volume_ratio(24)),
    # Four hours: windows only, so that their warm-up stays at days instead of months.
    _context("4h", "move_6", "context", 21, f.windowed_move(6, 20)),
    _context("4h", "move_42", "context", 43, f.windowed_move(42, 42)),
    _context("4h", "mean_gap_20", "context", 21, f.mean_gap(20)),
    _context("4h", "mean_gap_50", "context", 51, f.mean_gap(50)),
    _context("4h", "slope_20", "context", 21, f.slope(20)),
    _context("4h", "efficiency_20", "context", 21, f.efficiency(20)),
    _context("4h", "range_position_42", "context", 42, lambda s: s.range_position(42)),
    _context("4h", "band_position_20", "context", 20, lambda s: s.band_position(20)),
    _context("4h", "natr_14", "context", 15, lambda s: s.natr_windowed(14)),
    # The market leader.
    _leader("leader_move_1", _ATR, f.leader_move(1)),
    _leader("leader_move_4", _ATR, f.leader_move(4)),
    _leader("leader_move_16", _ATR, f.leader_move(16)),
    _leader("leader_move_96", _ATR, f.leader_move(96)),
    _leader("leader_natr", _ATR, lambda b: b.join(b.natr)),
    _leader("relative_strength_16", _ATR, f.relative_strength(16)),
    _leader("relative_strength_96", _ATR, f.relative_strength(96)),
    _leader("leader_correlation_96", 97, lambda b: b.together(96)[0]),
    _leader("leader_beta_96", 97, lambda b: b.together(96)[1]),
)
