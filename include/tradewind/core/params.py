"""Every threshold of the strategy, in one frozen, versioned object; its hash is stored with each decision.

The values here are the shipped ones. Yours stand in `include/strategy.toml`, and each must lie within the bounds that
stand beside its field, as an interval: `(0, 0.05]` is above 0 and at most 0.05 (`core.param_bounds`).
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, fields
from functools import cache
from typing import Annotated

from .timeframes import timeframe_ms
from .types import RegimeFamily


@dataclass(frozen=True, slots=True)
class Geometry:
    """The bracket of one regime family: stop distance in ATR(14, 1h), target in R."""

    stop_atr: Annotated[float, "(0, 20]"]
    target_r: Annotated[float, "[1, 20]"]


@dataclass(frozen=True, slots=True)
class PositionRules:
    """What the rules of a position read: kept with it from its opening, and followed until it is closed.

    The fields are those of `StrategyParams`. Raises ValueError for a value that no rule can follow.
    """

    decision_timeframe: str
    horizon_bars: int
    break_even_r: float
    trail_atr: float
    min_stop_move_atr: float
    failed_stop_r: float
    fee_frac: float
    spread_bps: float
    slippage_bps: float

    def __post_init__(self) -> None:
        timeframe_ms(self.decision_timeframe)
        for name in POSITION_RULES[1:]:
            value = getattr(self, name)
            if not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
                raise ValueError(f"{name} is {value!r}: it must be a finite number that is not negative")
        if self.horizon_bars < 1 or self.failed_stop_r == 0:
            raise ValueError("a position is held for at least one bar, and its stop has not failed at its own entry")


POSITION_RULES = tuple(field.name for field in fields(PositionRules))


@dataclass(frozen=True, slots=True)
class StrategyParams:
    """The shipped strategy. Fractions end in `_frac`, R multiples in `_r`, bars are 15m bars unless named otherwise."""

    version: Annotated[str, "[A-Za-z0-9._]{1,16}"] = "1"
    decision_timeframe: str = "15m"
    context_timeframes: tuple[str, ...] = ("1h", "4h")
    leader_symbol: Annotated[str, "[A-Z0-9]+/[A-Z0-9]+"] = "BTC/USDT"

    # Regime: thresholds on 1h ADX, normalised ATR and Bollinger band width, with hysteresis.
    adx_trend_enter: Annotated[float, "(0, 100)"] = 25.0
    adx_trend_exit: Annotated[float, "(0, 100)"] = 20.0
    adx_strong_enter: Annotated[float, "(0, 100)"] = 35.0
    adx_strong_exit: Annotated[float, "(0, 100)"] = 30.0
    natr_chaotic_ratio: Annotated[float, "(0, 100]"] = 2.5
    natr_chaotic_exit_ratio: Annotated[float, "(0, 100]"] = 2.0
    natr_chaotic_quantile: Annotated[float, "(0, 1)"] = 0.97
    natr_volatile_quantile: Annotated[float, "(0, 1)"] = 0.6
    natr_volatile_exit_quantile: Annotated[float, "(0, 1)"] = 0.5
    bandwidth_squeeze_quantile: Annotated[float, "(0, 1)"] = 0.15
    bandwidth_squeeze_exit_quantile: Annotated[float, "(0, 1)"] = 0.25
    regime_window_1h_bars: Annotated[int, "[20, 1000]"] = 240

    # Labels and brackets.
    atr_period_1h_bars: Annotated[int, "[2, 200]"] = 14
    trending: Geometry = Geometry(stop_atr=2.5, target_r=2.0)
    ranging: Geometry = Geometry(stop_atr=1.8, target_r=1.5)
    horizon_bars: Annotated[int, "[1, 2000]"] = 96
    entry_through_atr_frac: Annotated[float, "[0, 1]"] = 0.1
    partial_target_r: Annotated[float, "(0, 20]"] = 1.0
    partial_frac: Annotated[float, "[0, 1)"] = 0.5

    # Position rules.
    break_even_r: Annotated[float, "(0, 20]"] = 1.0
    trail_atr: Annotated[float, "(0, 50]"] = 2.5
    min_stop_move_atr: Annotated[float, "[0, 10]"] = 0.25
    failed_stop_r: Annotated[float, "(1, 10]"] = 2.0

    # Filters.
    min_probability: Annotated[float, "[0, 1)"] = 0.40
    # A trending bracket is won by either side in one case of eight, and in one of three when it is foreseen best.
    min_probability_trending: Annotated[float, "[0, 1)"] = 0.20
    min_probability_edge: Annotated[float, "[0, 1)"] = 0.05  # winning class over the opposite side's
    min_expected_r: Annotated[float, "[0, 10]"] = 0.1
    trend_filter_ema_4h_bars: Annotated[int, "[2, 100]"] = 50
    sentiment_veto: Annotated[float, "[-1, 1]"] = -0.6
    sentiment_raise: Annotated[float, "[-1, 1]"] = -0.25
    sentiment_raise_expected_r: Annotated[float, "[0, 10]"] = 0.1
    sentiment_max_age_s: Annotated[float, "(0, 604800]"] = 7200.0
    natr_min_frac: Annotated[float, "[0, 1)"] = 0.0005
    natr_max_frac: Annotated[float, "(0, 1)"] = 0.05
    completeness_window_bars: Annotated[int, "[1, 4800]"] = 96
    max_missing_bars: Annotated[int, "[0, 4800]"] = 0
    volume_window_bars: Annotated[int, "[1, 4800]"] = 96
    min_volume_ratio: Annotated[float, "[0, 10]"] = 0.3
    cooldown_bars: Annotated[int, "[0, 10000]"] = 4
    max_consecutive_losses: Annotated[int, "[1, 1000]"] = 5
    loss_pause_s: Annotated[float, "[0, 2592000]"] = 86400.0
    max_positions: Annotated[int, "[1, 100]"] = 4
    max_positions_per_symbol: Annotated[int, "[1, 10]"] = 1
    max_open_risk_frac: Annotated[float, "(0, 0.25]"] = 0.02
    max_symbol_exposure_frac: Annotated[float, "(0, 1]"] = 0.25
    max_total_exposure_frac: Annotated[float, "(0, 1]"] = 0.80
    max_correlation: Annotated[float, "(0, 1]"] = 0.7
    # Futures only: positions are opened with it, or with what the contract allows.
    max_leverage: Annotated[int, "[1, 20]"] = 3
    max_stop_to_liquidation_frac: Annotated[float, "(0, 1)"] = 0.7
    correlation_window_bars: Annotated[int, "[10, 4800]"] = 672

    # Freshness: an entry may be sent this long after its bar closed.
    max_bar_age_s: Annotated[float, "(0, 900]"] = 180.0
    max_model_age_s: Annotated[float, "(0, 31536000]"] = 30 * 86400.0

    # Size and costs.
    risk_frac: Annotated[float, "(0, 0.05]"] = 0.01
    max_bar_volume_frac: Annotated[float, "(0, 1]"] = 0.02
    # An entry that may risk less of a full slot is not worth its costs.
    min_risk_share_frac: Annotated[float, "[0, 1)"] = 0.1
    fee_frac: Annotated[float, "[0, 0.02]"] = 0.001
    spread_bps: Annotated[float, "[0, 200]"] = 2.0
    slippage_bps: Annotated[float, "[0, 200]"] = 2.0

    # Breaker.
    max_daily_loss_frac: Annotated[float, "(0, 0.5]"] = 0.03
    max_drawdown_frac: Annotated[float, "(0, 0.9]"] = 0.10
    breach_confirm_s: Annotated[float, "[0, 5]"] = 0.5
    watch_poll_s: Annotated[float, "(0, 10]"] = 2.0
    watch_silent_s: Annotated[float, "(0, 120]"] = 15.0
    breaker_silent_s: Annotated[float, "(0, 120]"] = 10.0
    protection_deadline_s: Annotated[float, "(0, 60]"] = 5.0
    replacement_deadline_s: Annotated[float, "(0, 60]"] = 2.0

    def geometry(self, family: RegimeFamily) -> Geometry:
        return self.trending if family is RegimeFamily.TRENDING else self.ranging

    def least_probability(self, family: RegimeFamily) -> float:
        """What the winning side's probability must reach: the brackets of the families are won differently often."""
        return self.min_probability_trending if family is RegimeFamily.TRENDING else self.min_probability

    @property
    def position_rules(self) -> PositionRules:
        """The part that an open position follows."""
        return _rules(self)

    @property
    def hash(self) -> str:
        """SHA-256 over all fields in canonical JSON; twelve hex digits name it in ids and reports."""
        return _hash(self)

    @property
    def strategy_version(self) -> str:
        return f"{self.version}-{self.hash[:12]}"


@cache
def _rules(params: StrategyParams) -> PositionRules:
    return PositionRules(**{name: getattr(params, name) for name in POSITION_RULES})


@cache
def _hash(params: StrategyParams) -> str:
    # Asked for with every decision, and equal parameters have equal hashes.
    canonical = json.dumps(asdict(params), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
