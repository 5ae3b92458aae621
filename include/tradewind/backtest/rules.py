"""Model-free signal sources, so that a run can be compared with other engines bar by bar.

A rule brings its signals and the parameters it is defined with; everything after that is the chain's own code. Filters
that judge a model, the trend or the news are switched off by their own thresholds, never by another code path.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numba import njit

from tradewind.core.market_numbers import MarketColumns, missing_in_window
from tradewind.core.params import Geometry, StrategyParams
from tradewind.core.regime import REGIMES, RegimeMeasures
from tradewind.core.types import Bars, FloatArray, Instrument, Regime

from .signals import Forecast, SymbolSeries

_NEVER: Final = 1e9


@dataclass(frozen=True, slots=True)
class Rule:
    """A named rule: `fires` marks the bars at whose close an entry is signalled, `atr` makes its stop's distance."""

    name: str
    params: StrategyParams
    fires: Callable[[Bars], FloatArray]
    atr: Callable[[Bars], FloatArray]


@njit(cache=True)  # type: ignore[untyped-decorator]  # numba ships no types
def ema(values: FloatArray, span: int) -> FloatArray:
    """Exponential mean with weight 2 / (span + 1), seeded by the mean of the first `span` values; NaN before."""
    out = np.full(len(values), np.nan)
    if len(values) < span:
        return out
    mean = values[:span].sum() / span
    out[span - 1] = mean
    for i in range(span, len(values)):
        mean += (values[i] - mean) * 2.0 / (span + 1.0)
        out[i] = mean
    return out


@njit(cache=True)  # type: ignore[untyped-decorator]  # numba ships no types
def atr(high: FloatArray, low: FloatArray, close: FloatArray, period: int) -> FloatArray:
    """Wilder's mean of true ranges (1978), seeded by the mean of the first `period` of them; NaN before."""
    out = np.full(len(close), np.nan)
    mean = 0.0
    for i in range(1, len(close)):
        true_range = max(high[i], close[i - 1]) - min(low[i], close[i - 1])
        if i <= period:
            mean += true_range / period
        else:
            mean += (true_range - mean) / period
        if i >= period:
            out[i] = mean
    return out


def _ema_cross_up(bars: Bars) -> FloatArray:
    """1.0 where EMA(20) stands over EMA(50) and did not one bar before."""
    slow = ema(bars.close, 50)
    above = ema(bars.close, 20) > slow  # NaN compares false: no cross inside the warm-up
    fires = np.zeros(len(bars))
    fires[1:] = above[1:] & ~above[:-1] & np.isfinite(slow[:-1])
    return fires


def _atr_15m(bars: Bars) -> FloatArray:
    out: FloatArray = atr(bars.high, bars.low, bars.close, 14)
    return out


def bare_params(geometry: Geometry, horizon_bars: int, fee_frac: float) -> StrategyParams:
    """Parameters under which only the bracket, the size and the slot limits act: no filter, no trailing, no breaker."""
    return replace(
        StrategyParams(),
        version="rule",
        trending=geometry,
        ranging=geometry,
        horizon_bars=horizon_bars,
        entry_through_atr_frac=1.0,
        partial_frac=0.0,
        break_even_r=_NEVER,
        failed_stop_r=_NEVER,
        min_probability=0.5,
        min_probability_trending=0.5,
        min_probability_edge=0.0,
        min_expected_r=0.0,
        trend_filter_ema_4h_bars=0,
        sentiment_veto=-_NEVER,
        sentiment_raise=-_NEVER,
        natr_min_frac=0.0,
        natr_max_frac=_NEVER,
        max_missing_bars=10**9,
        min_volume_ratio=0.0,
        cooldown_bars=0,
        max_consecutive_losses=10**9,
        max_open_risk_frac=_NEVER,
        max_correlation=2.0,
        max_bar_volume_frac=_NEVER,
        fee_frac=fee_frac,
        spread_bps=0.0,
        slippage_bps=0.0,
        max_daily_loss_frac=_NEVER,
        max_drawdown_frac=_NEVER,
    )


EMA_CROSS: Final = Rule("ema_cross", bare_params(Geometry(2.5, 2.0), 96, 0.001), _ema_cross_up, _atr_15m)

RULES: Final[Mapping[str, Rule]] = {EMA_CROSS.name: EMA_CROSS}


def rule_series(bars_15m: Bars, instrument: Instrument, rule: Rule) -> SymbolSeries:
    """The rule as columns: probability and value 1 where it fires, 0 elsewhere; one regime throughout."""
    n = len(bars_15m)
    fires = rule.fires(bars_15m)
    zeros = np.zeros(n)
    return SymbolSeries(
        bars=bars_15m,
        instrument=instrument,
        forecast=Forecast(fires, zeros, fires, zeros, f"rule:{rule.name}"),
        numbers=MarketColumns(
            bar_ms=bars_15m.open_time_ms,
            close=bars_15m.close,
            volume_base=bars_15m.volume,
            volume_ratio=np.ones(n),
            atr_quote=rule.atr(bars_15m),
            trend_ema=zeros,
            missing_bars=missing_in_window(bars_15m.open_time_ms, rule.params.completeness_window_bars),
        ),
        regimes=np.full(n, REGIMES.index(Regime.TRENDING_STRONG), dtype=np.int64),
        measures=RegimeMeasures(bars_15m.open_time_ms, zeros, zeros, zeros, zeros),
    )
