"""Compiled windows against their plain definitions, and short windows against long histories."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import rankdata

from tradewind.core.rolling import rolling_correlation, rolling_mean, rolling_mean_std, rolling_rank

seeds, windows = st.integers(0, 2**32 - 1), st.integers(2, 40)


def series(seed: int, ties: bool = False) -> np.ndarray:
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 5, 150).astype(np.float64) if ties else 1e6 + rng.standard_normal(150)
    values[: seed % 7] = np.nan
    return values


def trailing(values: np.ndarray, window: int) -> list[np.ndarray]:
    """Each full window of known values, in order; they end at the last rows."""
    known = values[~np.isnan(values)]
    return [known[i - window + 1 : i + 1] for i in range(window - 1, len(known))]


@given(seeds, windows)
def test_means_and_deviations_are_those_of_each_window(seed: int, window: int) -> None:
    values = series(seed)
    mean, std = rolling_mean_std(values, window)
    cut = trailing(values, window)
    assert np.isnan(mean[: -len(cut)]).all()
    assert mean[-len(cut) :] == pytest.approx([part.mean() for part in cut], rel=1e-12)
    assert std[-len(cut) :] == pytest.approx([part.std() for part in cut], abs=1e-6)
    assert np.array_equal(rolling_mean(values, window), mean, equal_nan=True)


@given(seeds, windows, st.booleans())
def test_ranks_count_what_is_below_and_half_of_what_is_equal(seed: int, window: int, ties: bool) -> None:
    values = series(seed, ties)
    rank = rolling_rank(values, window)
    cut = trailing(values, window)
    assert np.isnan(rank[: -len(cut)]).all()
    assert rank[-len(cut) :] == pytest.approx([(rankdata(part)[-1] - 1) / (window - 1) for part in cut])


@given(seeds, st.integers(6, 40))
def test_correlations_are_those_of_each_window(seed: int, window: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(120)
    y = 0.5 * x + rng.standard_normal(120)
    y[50] = np.nan
    correlation, slope = rolling_correlation(x, y, window)
    for end in range(window - 1, 120):
        inside = slice(end - window + 1, end + 1)
        if np.isnan(y[inside]).any():
            assert np.isnan(correlation[end])
            continue
        assert correlation[end] == pytest.approx(np.corrcoef(x[inside], y[inside])[0, 1], abs=1e-8)
        assert slope[end] == pytest.approx(np.polyfit(y[inside], x[inside], 1)[0], rel=1e-6, abs=1e-8)


def test_a_window_longer_than_the_history_is_unknown() -> None:
    values = np.arange(5.0)
    for computed in (rolling_mean(values, 6), rolling_rank(values, 6), *rolling_mean_std(values, 6)):
        assert np.isnan(computed).all()
