"""Scores against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import log_loss as sklearn_log_loss
from sklearn.metrics import roc_auc_score

from tradewind.core.scoring import (
    auc,
    bin_shares,
    brier,
    calibration_curve,
    calibration_error,
    chance_levels,
    decile_edges,
    log_loss,
    murphy,
    population_stability,
    score_probabilities,
)


def drawn(rows: int = 4000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    p = rng.dirichlet([1.0, 1.0, 2.0], rows)
    return p, np.array([rng.choice(3, p=row) for row in p])


def test_log_loss_brier_and_auc_agree_with_their_references() -> None:
    p, y = drawn()
    assert log_loss(p, y) == pytest.approx(sklearn_log_loss(y, p))
    assert brier(p, y) == pytest.approx(np.mean(sum((p[:, c] - (y == c)) ** 2 for c in range(3))))
    assert auc(p[:, 0], (y == 0).astype(float)) == pytest.approx(roc_auc_score(y == 0, p[:, 0]))
    assert np.isnan(auc(p[:, 0], np.zeros(len(y))))


def test_true_probabilities_are_calibrated_and_skewed_ones_are_not() -> None:
    p, y = drawn(20_000)
    happened = (y == 0).astype(float)
    assert calibration_error(p[:, 0], happened) < 0.015
    assert calibration_error(np.sqrt(p[:, 0]), happened) > 0.1
    curve = calibration_curve(p[:, 0], happened)
    assert len(curve) == 15
    assert {point.rows for point in curve} <= {1333, 1334}
    assert len(calibration_curve(p[:4, 0], happened[:4])) == 4


def test_murphys_parts_add_up() -> None:
    p, y = drawn(20_000)
    happened = (y == 2).astype(float)
    reliability, resolution, uncertainty = murphy(p[:, 2], happened)
    assert reliability - resolution + uncertainty == pytest.approx(np.mean((p[:, 2] - happened) ** 2), abs=2e-3)
    assert resolution > 0
    flat = murphy(np.full(20_000, happened.mean()), happened)
    assert flat[0] == pytest.approx(0, abs=1e-3)


def test_perfect_probabilities_show_what_chance_alone_does() -> None:
    errors, resolutions, levels = [], [], []
    for seed in range(20):
        p, y = drawn(1500, seed)
        happened = (y == 2).astype(float)
        errors.append(calibration_error(p[:, 2], happened))
        levels.append(chance_levels(p[:, 2], happened, 1500.0)[0])
        flat = np.random.default_rng(seed).permutation(p[:, 2])
        resolutions.append(murphy(flat, happened)[1] / chance_levels(flat, happened, 1500.0)[1])
    assert np.mean(errors) == pytest.approx(np.mean(levels), rel=0.15)
    assert np.mean(resolutions) == pytest.approx(1.0, abs=0.2)
    # Overlapping labels are worth fewer, so chance shows more.
    assert chance_levels(p[:, 2], happened, 100.0)[0] > 3 * levels[-1]


def test_scores_of_both_are_on_the_same_rows() -> None:
    p, y = drawn()
    base = np.tile(np.bincount(y) / len(y), (len(y), 1))
    scores = score_probabilities(p, y, base, ("a", "b", "c"))
    assert scores["rows"] == 4000
    assert scores["log_loss_gain"] == pytest.approx(scores["base_log_loss"] - scores["log_loss"])
    assert set(scores["classes"]) == {"a", "b", "c"}
    assert scores["reliability"] == pytest.approx(sum(one["reliability"] for one in scores["classes"].values()))
    whole = scores["reliability"] - scores["resolution"] + scores["uncertainty"]
    assert whole == pytest.approx(scores["brier"], abs=0.01)


@given(st.integers(0, 1000))
def test_the_same_distribution_is_stable_and_another_is_not(seed: int) -> None:
    rng = np.random.default_rng(seed)
    training, same = rng.standard_normal(5000), rng.standard_normal(3000)
    edges = decile_edges(training)
    expected = bin_shares(training, edges)
    assert expected.sum() == pytest.approx(1)
    assert population_stability(expected, bin_shares(same, edges)) < 0.05
    assert population_stability(expected, bin_shares(same + 1.0, edges)) > 0.25
