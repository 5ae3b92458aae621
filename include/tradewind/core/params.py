"""Every threshold of the strategy, in one frozen, versioned object; its hash is stored with each decision."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, fields
from functools import cache

from .timeframes import timeframe_ms
from .types import RegimeFamily


@dataclass(frozen=True, slots=True)
class Geometry:
    """The bracket of one regime family: stop distance in ATR(14, 1h), target in R."""

    stop_atr: float
    target_r: float


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

    version: str = "1"
    decision_timeframe: str = "15m"
    context_timeframes: tuple[str, ...] = ("1h", "4h")
    leader_symbol: str = "BTC/USDT"

    # Regime: thresholds on 1h ADX, normalised ATR and Bollinger band width, with hysteresis.
    adx_trend_enter: float = 25.0
    adx_trend_exit: float = 20.0
    adx_strong_enter: float = 35.0
    adx_strong_exit: float = 30.0
    natr_chaotic_ratio: float = 2.5
    natr_chaotic_exit_ratio: float = 2.0
    natr_chaotic_quantile: float = 0.97
    natr_volatile_quantile: float = 0.6
    natr_volatile_exit_quantile: float = 0.5
    bandwidth_squeeze_quantile: float = 0.15
    bandwidth_squeeze_exit_quantile: float = 0.25
    regime_window_1h_bars: int = 240

    # Labels and brackets.
    atr_period_1h_bars: int = 14
    trending: Geometry = Geometry(stop_atr=2.5, target_r=2.0)
    ranging: Geometry = Geometry(stop_atr=1.8, target_r=1.5)
    horizon_bars: int = 96
    entry_through_atr_frac: float = 0.1
    partial_target_r: float = 1.0
    partial_frac: float = 0.5

    # Position rules.
    break_even_r: float = 1.0
    trail_atr: float = 2.5
    min_stop_move_atr: float = 0.25
    failed_stop_r: float = 2.0

    # Filters.
    min_probability: float = 0.40
    # A trending bracket is won by either side in one case of eight, and in one of three when it is foreseen best.
    min_probability_trending: float = 0.20
    min_probability_edge: float = 0.05  # winning class over the opposite side's
    min_expected_r: float = 0.1
    trend_filter_ema_4h_bars: int = 50
    sentiment_veto: float = -0.6
    sentiment_raise: float = -0.25
    sentiment_raise_expected_r: float = 0.1
    sentiment_max_age_s: float = 7200.0
    natr_min_frac: float = 0.0005
    natr_max_frac: float = 0.05
    completeness_window_bars: int = 96
    max_missing_bars: int = 0
    volume_window_bars: int = 96
    min_volume_ratio: float = 0.3
    cooldown_bars: int = 4
    max_consecutive_losses: int = 5
    loss_pause_s: float = 86400.0
    max_positions: int = 4
    max_positions_per_symbol: int = 1
    max_open_risk_frac: float = 0.02
    max_symbol_exposure_frac: float = 0.25
    max_total_exposure_frac: float = 0.80
    max_correlation: float = 0.7
    max_leverage: int = 3  # futures only: positions are opened with it, or with what the contract allows
    max_stop_to_liquidation_frac: float = 0.7
    correlation_window_bars: int = 672

    # Freshness: an entry may be sent this long after its bar closed.
    max_bar_age_s: float = 180.0
    max_model_age_s: float = 30 * 86400.0

    # Size and costs.
    risk_frac: float = 0.01
    max_bar_volume_frac: float = 0.02
    min_risk_share_frac: float = 0.1  # an entry that may risk less of a full slot is not worth its costs
    fee_frac: float = 0.001
    spread_bps: float = 2.0
    slippage_bps: float = 2.0

    # Breaker.
    max_daily_loss_frac: float = 0.03
    max_drawdown_frac: float = 0.10
    breach_confirm_s: float = 0.5
    watch_poll_s: float = 2.0
    watch_silent_s: float = 15.0
    breaker_silent_s: float = 10.0
    protection_deadline_s: float = 5.0
    replacement_deadline_s: float = 2.0

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
