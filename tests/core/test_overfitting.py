"""Luck told from skill: the deflated Sharpe ratio and the probability of overfitting."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from tradewind.core.overfitting import by_period, deflated_sharpe, overfitting_probability


def test_with_one_trial_it_is_the_plain_test_of_a_mean_above_zero() -> None:
    results = np.random.default_rng(1).normal(0.1, 1.0, 400)
    found = deflated_sharpe(results, 1)
    assert found.best_by_chance == 0.0
    assert found.sharpe == pytest.approx(results.mean() / results.std(ddof=1))
    assert found.probability == pytest.approx(norm.cdf(found.sharpe * np.sqrt(399)), abs=0.02)


def test_many_trials_take_the_shine_off() -> None:
    results = np.random.default_rng(2).normal(0.2, 1.0, 300)
    once, often = deflated_sharpe(results, 1), deflated_sharpe(results, 200)
    assert once.probability > 0.9
    assert often.probability < once.probability - 0.2
    # The expected best of 200 draws without skill.
    best = np.random.default_rng(3).normal(0.0, 1 / np.sqrt(299), (20_000, 200)).max(axis=1).mean()
    assert often.best_by_chance == pytest.approx(best, rel=0.03)


def test_a_day_or_a_flat_line_says_nothing() -> None:
    assert np.isnan(deflated_sharpe(np.array([1.0, 2.0]), 3).probability)
    assert np.isnan(deflated_sharpe(np.zeros(100), 3).probability)


def test_luck_does_not_last_and_skill_does() -> None:
    rng = np.random.default_rng(4)
    luck = np.array([overfitting_probability(rng.normal(0, 1, (200, 12))) for _ in range(20)])
    assert 0.3 < luck.mean() < 0.7
    skilled = rng.normal(0, 1, (200, 12))
    skilled[:, 5] += 0.8
    assert overfitting_probability(skilled) == 0.0
    # A candidate that is good where it was looked at and bad elsewhere is what the number is for.
    fitted = rng.normal(0, 1, (200, 12)) * 0.1
    for place in range(10):
        fitted[place * 20 : place * 20 + 20, place] += 1.0
        fitted[:, place] -= 0.12
    assert overfitting_probability(fitted) > 0.9
    assert np.isnan(overfitting_probability(np.zeros((200, 1))))


def test_results_are_summed_by_their_period() -> None:
    sums = by_period(np.array([1.0, 2.0, 4.0, 8.0]), np.array([5, 14, 15, 99]), 5, 35, 10)
    assert sums.tolist() == [3.0, 4.0, 0.0]
