"""Sweeping the strategy's parameters without fooling oneself: folds, what may be swept, how likely luck is.

The range is cut into folds of equal length, each a run of its own; between two lies an embargo as long as a position
may live, so that none knows the other's trades::

    |─ fold 1 ─|·|─ fold 2 ─|·| … |─ fold k ─|·|──── hold-out ────|          (· = embargo)

The sweep sees the folds; the hold-out is run once, with the parameters that won. What many trials found is then judged
by how good the best of as many worthless ones would have looked.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from .params import StrategyParams
from .resampling import BASE_MS

#: What may be swept and its range: thresholds that read columns, never what columns are computed with.
SPACE: Final[Mapping[str, tuple[float, float]]] = {
    "min_probability": (0.3, 0.6),
    "min_probability_trending": (0.1, 0.4),
    "min_probability_edge": (0.0, 0.2),
    "min_expected_r": (0.0, 0.4),
    "min_volume_ratio": (0.0, 1.0),
    "break_even_r": (0.5, 2.0),
    "trail_atr": (1.0, 4.0),
    "partial_frac": (0.0, 0.8),
}
INTEGERS: Final[Mapping[str, tuple[int, int]]] = {"cooldown_bars": (0, 24), "horizon_bars": (24, 192)}


@dataclass(frozen=True, slots=True)
class Trial:
    """One set of parameters and its yearly Sharpe ratio in each fold; `value` is their mean, None where undefined."""

    number: int
    params: Mapping[str, float]
    value: float | None
    folds: tuple[float | None, ...]


def plan_folds(start_ms: int, end_ms: int, folds: int, holdout_frac: float, horizon_bars: int) -> list[tuple[int, int]]:
    """[start, end) of each fold and, last, of the hold-out. Raises ValueError when a fold would be under ten days."""
    embargo_ms = (horizon_bars + 1) * BASE_MS
    cut = end_ms - int((end_ms - start_ms) * holdout_frac) // BASE_MS * BASE_MS
    edges = (np.linspace(start_ms, cut, folds + 1) // BASE_MS * BASE_MS).astype(np.int64).tolist()
    planned = [(first, last - embargo_ms) for first, last in itertools.pairwise(edges)] + [(cut, end_ms)]
    if min(last - first for first, last in planned) < 10 * 86_400_000:
        raise ValueError("a fold would be shorter than ten days: take a longer range or fewer folds")
    return planned


def with_values(params: StrategyParams, values: Mapping[str, float]) -> StrategyParams:
    """The parameters with a trial's values. Raises ValueError for one that may not be swept."""
    unknown = set(values) - SPACE.keys() - INTEGERS.keys()
    if unknown:
        raise ValueError(f"{', '.join(sorted(unknown))} may not be swept")
    changed: dict[str, Any] = {name: int(value) if name in INTEGERS else value for name, value in values.items()}
    return replace(params, version="study", **changed)


def overfitting_probability(trials: Sequence[Trial]) -> float:
    """How often the best half of the folds' winner is below the median in the other half (Bailey et al. 2017, CSCV).

    NaN for fewer than four folds or two trials.
    """
    table = np.array([[math.nan if v is None else v for v in trial.folds] for trial in trials], dtype=np.float64)
    if table.ndim != 2 or table.shape[0] < 2 or table.shape[1] < 4:
        return math.nan
    table = np.nan_to_num(table, nan=0.0)  # no trade in a fold: nothing won, nothing lost
    columns = range(table.shape[1])
    below = []
    for inside in itertools.combinations(columns, table.shape[1] // 2):
        outside = [column for column in columns if column not in inside]
        winner = int(np.argmax(table[:, inside].mean(axis=1)))
        means = table[:, outside].mean(axis=1)
        rank = (means < means[winner]).sum() + 0.5 * (np.sum(means == means[winner]) - 1)
        below.append(rank / max(len(means) - 1, 1) <= 0.5)
    return float(np.mean(below))
