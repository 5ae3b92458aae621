"""How much of a good result is the luck of having looked often: two answers, on results by period.

* The deflated Sharpe ratio: the probability that the true Sharpe ratio is above zero, once the best of `trials` lucky
  ones is taken off. Bailey and López de Prado (2014), "The Deflated Sharpe Ratio".
* The probability of backtest overfitting: how often the candidate that was best on one half of the periods is worse
  than the median on the other half. Bailey, Borwein, López de Prado and Zhu (2017), by combinatorially symmetric
  cross-validation.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Final

import numpy as np
from scipy.stats import kurtosis, norm, rankdata, skew

from .types import FloatArray, IntArray

BLOCKS: Final = 10
_EULER: Final = 0.5772156649015329
_LEAST_PERIODS: Final = 10


@dataclass(frozen=True, slots=True)
class DeflatedSharpe:
    """NaN where there are too few periods, or nothing varied. Ratios are per period, not annualised."""

    sharpe: float
    best_by_chance: float  # what the best of so many trials without skill would show
    probability: float  # that the true ratio is above zero all the same
    periods: int
    trials: int


def deflated_sharpe(results: FloatArray, trials: int) -> DeflatedSharpe:
    """Judge the results of each period (days without a trade are zeros) after `trials` attempts, this one included.

    The spread of the trials' ratios is that of estimates without any skill, √(1 / (periods − 1)): the ratios of
    attempts long gone are not known.
    """
    n = len(results)
    nan = float("nan")
    deviation = float(results.std(ddof=1)) if n >= _LEAST_PERIODS else 0.0
    if deviation <= 0:
        return DeflatedSharpe(nan, nan, nan, n, trials)
    sharpe = float(results.mean()) / deviation
    chance = 0.0
    if trials > 1:
        quantiles = norm.ppf([1 - 1 / trials, 1 - 1 / (trials * np.e)])
        chance = float(((1 - _EULER) * quantiles[0] + _EULER * quantiles[1]) / np.sqrt(n - 1))
    spread = 1 - skew(results) * sharpe + (kurtosis(results, fisher=False) - 1) / 4 * sharpe**2
    probability = float(norm.cdf((sharpe - chance) * np.sqrt(n - 1) / np.sqrt(max(spread, 1e-9))))
    return DeflatedSharpe(sharpe, chance, probability, n, trials)


def overfitting_probability(results: FloatArray, blocks: int = BLOCKS) -> float:
    """Share of the splits in which the candidate best on one half ranks at or below the median on the other.

    `results` holds one row a period and one column a candidate; `blocks` (even) neighbouring groups of periods are
    split in halves in every way. NaN for fewer than two candidates or too few periods.
    """
    periods, candidates = results.shape
    length = periods // blocks
    if candidates < 2 or length < 2:
        return float("nan")
    grouped = results[periods - blocks * length :].reshape(blocks, length, candidates)
    sums, squares = grouped.sum(axis=1), (grouped**2).sum(axis=1)
    below = 0
    splits = list(combinations(range(blocks), blocks // 2))
    for chosen in splits:
        seen = np.zeros(blocks, dtype=bool)
        seen[list(chosen)] = True
        inside = _ratios(sums[seen], squares[seen], length)
        outside = rankdata(_ratios(sums[~seen], squares[~seen], length))
        below += outside[int(np.argmax(inside))] / (candidates + 1) <= 0.5
    return below / len(splits)


def _ratios(sums: FloatArray, squares: FloatArray, length: int) -> FloatArray:
    """Mean over deviation of each candidate over some blocks; 0 where nothing varied."""
    n = len(sums) * length
    mean = sums.sum(axis=0) / n
    deviation = np.sqrt(np.maximum(squares.sum(axis=0) / n - mean**2, 0.0))
    ratios: FloatArray = np.divide(mean, deviation, out=np.zeros_like(mean), where=deviation > 0)
    return ratios


def by_period(results: FloatArray, at_ms: IntArray, start_ms: int, end_ms: int, period_ms: int) -> FloatArray:
    """Sums of the results in each period of [start, end), a result belonging to the period of its moment."""
    count = max(-(-(end_ms - start_ms) // period_ms), 0)
    inside = (at_ms >= start_ms) & (at_ms < end_ms)
    sums = np.bincount((at_ms[inside] - start_ms) // period_ms, weights=results[inside], minlength=count)
    return sums.astype(np.float64)
