"""The market regime of a symbol: three causal measures on 1h bars, then thresholds with memory.

Measures, all known when the 15m bar closes: ADX(14); ATR(14) over the close, against its mean and its rank in the
trailing `regime_window_1h_bars`; the rank of the Bollinger band width (20, 2) in the same window. Then::

    natr ratio and rank extreme ──────────────► chaotic            leaves below the exit ratio
    otherwise ADX ≥ enter (stays above exit) ─► trending_strong    ADX ≥ strong enter (stays above strong exit)
                                                trending_weak
    otherwise bands narrow (stay until exit) ─► ranging_squeeze
              natr rank high (stays until exit)► ranging_volatile
              otherwise                       ─► ranging_quiet

Applying the step twice to the same measures changes nothing, so four 15m bars of one hour agree, and a bar that is
missing costs no state. From a stored state the live path therefore walks exactly the states of a full pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import numpy as np
from numba import njit

from .params import StrategyParams
from .resampling import bars_per, join_known, known_rows, resample
from .rolling import rolling_mean_std, rolling_rank
from .types import Bars, FloatArray, IntArray, Regime, RegimeFamily, RegimeState

REGIMES: Final[tuple[Regime, ...]] = (
    Regime.TRENDING_STRONG,
    Regime.TRENDING_WEAK,
    Regime.RANGING_VOLATILE,
    Regime.RANGING_QUIET,
    Regime.RANGING_SQUEEZE,
    Regime.CHAOTIC,
)
UNDETERMINED: Final = -1  # code of a bar inside the warm-up
_STRONG, _WEAK, _VOLATILE, _QUIET, _SQUEEZE, _CHAOTIC = range(len(REGIMES))

FAMILIES: Final[tuple[RegimeFamily, ...]] = (RegimeFamily.TRENDING, RegimeFamily.RANGING)
NO_FAMILY: Final = -1


@dataclass(frozen=True, slots=True, eq=False)
class RegimeMeasures:
    """What the regime is judged by, at each 15m bar; NaN in all four columns inside the warm-up."""

    open_time_ms: IntArray
    adx: FloatArray
    natr_ratio: FloatArray
    natr_quantile: FloatArray
    bandwidth_quantile: FloatArray


def regime_warmup_bars(params: StrategyParams) -> int:
    """15m bars after which a window measures what the whole history would, without gaps."""
    return _warmup_1h(params) * bars_per("1h") + 2 * (bars_per("1h") - 1)


def _warmup_1h(params: StrategyParams) -> int:
    from .indicators import wilder_warmup

    return max(2 * wilder_warmup(14), wilder_warmup(14) + params.regime_window_1h_bars)


def measure_regime(bars_15m: Bars, params: StrategyParams) -> RegimeMeasures:
    """The four measures at each 15m bar, joined from the last 1h bar known at its close. Vectorised, causal."""
    from .indicators import Series  # with TA-Lib and pandas, which who only reads regimes has no need of

    hourly = resample(bars_15m, "1h")
    window = params.regime_window_1h_bars
    warmup = _warmup_1h(params)
    if len(hourly) < warmup:
        nothing = np.full(len(bars_15m), np.nan)
        return RegimeMeasures(bars_15m.open_time_ms, nothing, nothing, nothing, nothing)
    series = Series(hourly)
    mean, _ = rolling_mean_std(series.natr, window)
    columns = (
        series.adx,
        series.natr / mean,
        rolling_rank(series.natr, window),
        rolling_rank(series.bandwidth(20), window),
    )
    rows = known_rows(bars_15m.open_time_ms, hourly.open_time_ms, "1h")
    rows = np.where(rows < warmup - 1, -1, rows)
    return RegimeMeasures(bars_15m.open_time_ms, *(join_known(column, rows) for column in columns))


@njit(cache=True)  # type: ignore[untyped-decorator]  # numba ships no types
def _walk(
    previous: int,
    adx: FloatArray,
    natr_ratio: FloatArray,
    natr_quantile: FloatArray,
    bandwidth_quantile: FloatArray,
    chaotic: tuple[float, float, float],
    trend: tuple[float, float],
    strong: tuple[float, float],
    squeeze: tuple[float, float],
    volatile: tuple[float, float],
) -> IntArray:
    codes = np.full(len(adx), -1, dtype=np.int64)
    state = previous
    for i in range(len(adx)):
        if np.isnan(adx[i]):
            continue
        enters_chaos = natr_ratio[i] >= chaotic[0] and natr_quantile[i] >= chaotic[2]
        if enters_chaos or (state == _CHAOTIC and natr_ratio[i] >= chaotic[1]):
            state = _CHAOTIC
        elif adx[i] >= trend[0] or ((state in (_STRONG, _WEAK)) and adx[i] >= trend[1]):
            is_strong = adx[i] >= strong[0] or (state == _STRONG and adx[i] >= strong[1])
            state = _STRONG if is_strong else _WEAK
        elif bandwidth_quantile[i] <= squeeze[0] or (state == _SQUEEZE and bandwidth_quantile[i] <= squeeze[1]):
            state = _SQUEEZE
        elif natr_quantile[i] >= volatile[0] or (state == _VOLATILE and natr_quantile[i] >= volatile[1]):
            state = _VOLATILE
        else:
            state = _QUIET
        codes[i] = state
    return codes


def regime_codes(measures: RegimeMeasures, params: StrategyParams, previous: Regime | None = None) -> IntArray:
    """Index into `REGIMES` at each bar, `UNDETERMINED` inside the warm-up; `previous` is the state before the first."""
    codes: IntArray = _walk(
        REGIMES.index(previous) if previous is not None else UNDETERMINED,
        measures.adx,
        measures.natr_ratio,
        measures.natr_quantile,
        measures.bandwidth_quantile,
        (params.natr_chaotic_ratio, params.natr_chaotic_exit_ratio, params.natr_chaotic_quantile),
        (params.adx_trend_enter, params.adx_trend_exit),
        (params.adx_strong_enter, params.adx_strong_exit),
        (params.bandwidth_squeeze_quantile, params.bandwidth_squeeze_exit_quantile),
        (params.natr_volatile_quantile, params.natr_volatile_exit_quantile),
    )
    return codes


def family_codes(codes: IntArray) -> IntArray:
    """Index into `FAMILIES` for each regime code; `NO_FAMILY` for chaotic and undetermined bars."""
    by_regime = [NO_FAMILY if (family := family_of(regime)) is None else FAMILIES.index(family) for regime in REGIMES]
    families: IntArray = np.array([*by_regime, NO_FAMILY])[codes]  # UNDETERMINED, −1, picks the last entry
    return families


def regime_shares(runs: Sequence[IntArray]) -> tuple[FloatArray, FloatArray]:
    """Share of the bars in each regime, and the transition matrix, over several runs of codes (one a symbol).

    Row i, column j of the matrix is the share of the bars in regime i whose next known bar was in regime j; rows sum to
    one, or are zero for a regime that never came. Bars inside the warm-up count for neither. Order: `REGIMES`.
    """
    count = len(REGIMES)
    shares, moves = np.zeros(count), np.zeros((count, count))
    for codes in runs:
        known = codes[codes != UNDETERMINED]
        shares += np.bincount(known, minlength=count)
        np.add.at(moves, (known[:-1], known[1:]), 1.0)
    left = moves.sum(axis=1, keepdims=True)
    transitions = np.divide(moves, left, out=np.zeros_like(moves), where=left > 0)
    return shares / max(shares.sum(), 1.0), transitions


def family_of(regime: Regime) -> RegimeFamily | None:
    """The family whose model and bracket a regime uses; None for chaotic, which opens nothing."""
    if regime in (Regime.TRENDING_STRONG, Regime.TRENDING_WEAK):
        return RegimeFamily.TRENDING
    return None if regime is Regime.CHAOTIC else RegimeFamily.RANGING


def classify_regimes(
    bars_15m: Bars, params: StrategyParams, previous: Regime | None = None, since_ms: int | None = None
) -> list[RegimeState]:
    """The regime at each bar opened at or after `since_ms`, oldest first; bars inside the warm-up are left out.

    `bars_15m` holds the warm-up as well (`features.LIVE_WINDOW_BARS` is enough). `previous` is the regime of the last
    bar before `since_ms`, as stored; without it the walk begins at the first bar that can be measured.
    """
    measures = measure_regime(bars_15m, params)
    if since_ms is not None and previous is not None:
        start = int(np.searchsorted(bars_15m.open_time_ms, since_ms))
        measures = RegimeMeasures(
            measures.open_time_ms[start:],
            measures.adx[start:],
            measures.natr_ratio[start:],
            measures.natr_quantile[start:],
            measures.bandwidth_quantile[start:],
        )
    codes = regime_codes(measures, params, previous)
    wanted = codes != UNDETERMINED
    if since_ms is not None:
        wanted &= measures.open_time_ms >= since_ms
    return [
        RegimeState(
            bars_15m.symbol,
            datetime.fromtimestamp(int(measures.open_time_ms[i]) / 1000, UTC),
            REGIMES[codes[i]],
            family_of(REGIMES[codes[i]]),
            float(measures.adx[i]),
            float(measures.natr_ratio[i]),
            float(measures.natr_quantile[i]),
            float(measures.bandwidth_quantile[i]),
        )
        for i in np.flatnonzero(wanted)
    ]
