"""Confidence intervals by resampling: trades one by one, days in blocks, because days in a row resemble each other.

Percentile bootstrap (Efron 1979); circular blocks for the days (Politis and Romano 1992). Compiled, with a generator of
its own, so that the same trades always give the same interval.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numba import njit

from tradewind.core.types import FloatArray

RESAMPLES: Final = 1000
BLOCK_DAYS: Final = 5
DAYS_A_YEAR: Final = 365.0
LOW, HIGH = 0.05, 0.95  # the interval's bounds
_SEED: Final = 88172645463325252


@njit(cache=True)  # type: ignore[untyped-decorator]  # numba ships no types
def _next(state: int) -> int:
    """Xorshift (Marsaglia 2003) in 63 bits, so that signed integers do."""
    state ^= (state << 13) & 0x7FFFFFFFFFFFFFFF
    state ^= state >> 7
    state ^= (state << 17) & 0x7FFFFFFFFFFFFFFF
    return state


@njit(cache=True)  # type: ignore[untyped-decorator]  # numba ships no types
def _below(state: int, n: int) -> int:
    """A draw in [0, n) by the state's upper 32 bits: a multiplication, where a remainder would be a division."""
    return ((state >> 31) * n) >> 32


@njit(cache=True)  # type: ignore[untyped-decorator]  # numba ships no types
def resample_trades(r: FloatArray, net: FloatArray, resamples: int, seed: int) -> FloatArray:
    """resamples × 2: expectancy in R and profit factor of trades drawn with replacement; NaN without a loss."""
    out = np.empty((resamples, 2))
    state, n = seed, len(r)
    # Wins and losses apart: whether a draw won cannot be foreseen, and a branch on it would cost more than two sums.
    wins, losses = np.maximum(net, 0.0), np.maximum(-net, 0.0)
    for k in range(resamples):
        total = won = lost = 0.0
        for _ in range(n):
            state = _next(state)
            i = _below(state, n)
            total += r[i]
            won += wins[i]
            lost += losses[i]
        out[k, 0] = total / n
        out[k, 1] = won / lost if lost > 0 else np.nan
    return out


@njit(cache=True)  # type: ignore[untyped-decorator]  # numba ships no types
def ratios(returns: FloatArray) -> tuple[float, float, float]:
    """(Sharpe, Sortino, Calmar) of daily simple returns, a year of 365 days; NaN where the divisor is zero."""
    n = len(returns)
    total = squares = below = 0.0
    worth = peak = 1.0
    lowest = 1.0  # worth over the peak before it, at its lowest: divided only where it falls
    for value in returns:
        total += value
        loss = min(value, 0.0)
        below += loss * loss
        worth *= 1.0 + value
        peak = max(peak, worth)
        if worth < lowest * peak:
            lowest = worth / peak
    mean = total / n
    for value in returns:
        squares += (value - mean) ** 2
    deviation = (squares / (n - 1)) ** 0.5 if n > 1 else 0.0
    downside = (below / n) ** 0.5
    deepest = 1.0 - lowest
    yearly = worth ** (DAYS_A_YEAR / n) - 1.0 if worth > 0 else -1.0
    return (
        mean / deviation * DAYS_A_YEAR**0.5 if deviation > 0 else np.nan,
        mean / downside * DAYS_A_YEAR**0.5 if downside > 0 else np.nan,
        yearly / deepest if deepest > 0 else np.nan,
    )


@njit(cache=True)  # type: ignore[untyped-decorator]  # numba ships no types
def resample_days(returns: FloatArray, block: int, resamples: int, seed: int) -> FloatArray:
    """resamples × 3: the ratios of days drawn in circular blocks."""
    out = np.empty((resamples, 3))
    n = len(returns)
    drawn = np.empty(n)
    state = seed
    for k in range(resamples):
        i = 0
        while i < n:
            state = _next(state)
            start = _below(state, n)
            for j in range(min(block, n - i)):
                place = start + j
                drawn[i] = returns[place if place < n else place - n]
                i += 1
        sharpe, sortino, calmar = ratios(drawn)
        out[k, 0], out[k, 1], out[k, 2] = sharpe, sortino, calmar
    return out


def interval(values: FloatArray) -> tuple[float, float]:
    """The 5 % and 95 % quantiles of the resampled values; NaN for fewer than two."""
    known = values[np.isfinite(values)]
    if len(known) < 2:
        return float("nan"), float("nan")
    known.sort()
    return _quantile(known, LOW), _quantile(known, HIGH)


def _quantile(ascending: FloatArray, share: float) -> float:
    """Between the two nearest values in proportion, as numpy's default does, without its preparations."""
    place = share * (len(ascending) - 1)
    below = int(place)
    above = min(below + 1, len(ascending) - 1)
    return float(ascending[below] + (ascending[above] - ascending[below]) * (place - below))


def trade_intervals(r: FloatArray, net: FloatArray) -> dict[str, tuple[float, float]]:
    """Intervals of expectancy and profit factor; undefined for fewer than two trades."""
    if len(r) < 2:
        return dict.fromkeys(("expectancy_r", "profit_factor"), (float("nan"), float("nan")))
    drawn = resample_trades(r, net, RESAMPLES, _SEED)
    return {"expectancy_r": interval(drawn[:, 0]), "profit_factor": interval(drawn[:, 1])}


def day_intervals(returns: FloatArray) -> dict[str, tuple[float, float]]:
    """Intervals of the ratios of daily returns; undefined for fewer than two blocks."""
    names = ("sharpe", "sortino", "calmar")
    if len(returns) < 2 * BLOCK_DAYS:
        return dict.fromkeys(names, (float("nan"), float("nan")))
    drawn = resample_days(returns, BLOCK_DAYS, RESAMPLES, _SEED)
    return {name: interval(drawn[:, column]) for column, name in enumerate(names)}
