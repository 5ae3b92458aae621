"""How good probabilities are: log-loss, Brier with its decomposition, calibration error, AUC, and drift of inputs.

Probabilities are n × 3 in the classes' order of `core.labels`, rows summing to one; labels are 0, 1, 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from scipy.stats import rankdata

from .types import FloatArray, IntArray

CALIBRATION_BINS: Final = 15
_FLOOR: Final = 1e-12


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """One equal-mass bin of a calibration curve."""

    predicted: float
    observed: float
    rows: int


def log_loss(probabilities: FloatArray, labels: IntArray) -> float:
    """Mean negative log of the probability given to what happened."""
    picked = probabilities[np.arange(len(labels)), labels]
    return float(-np.mean(np.log(np.maximum(picked, _FLOOR))))


def brier(probabilities: FloatArray, labels: IntArray) -> float:
    """Mean squared distance to the one-hot outcome, summed over classes: 0 best, 2 worst."""
    one_hot = np.eye(probabilities.shape[1])[labels]
    return float(np.mean(np.sum((probabilities - one_hot) ** 2, axis=1)))


def calibration_curve(predicted: FloatArray, happened: FloatArray, bins: int = CALIBRATION_BINS) -> list[CurvePoint]:
    """Mean prediction against frequency in `bins` bins of equal mass, ascending; few rows give fewer bins."""
    order = np.argsort(predicted, kind="stable")
    parts = np.array_split(order, min(bins, max(len(order), 1)))
    return [
        CurvePoint(float(predicted[part].mean()), float(happened[part].mean()), len(part))
        for part in parts
        if len(part)
    ]


def calibration_error(predicted: FloatArray, happened: FloatArray, bins: int = CALIBRATION_BINS) -> float:
    """Expected calibration error over bins of equal mass: the mean gap between said and seen."""
    curve = calibration_curve(predicted, happened, bins)
    rows = sum(point.rows for point in curve)
    return sum(point.rows * abs(point.predicted - point.observed) for point in curve) / rows if rows else float("nan")


def murphy(predicted: FloatArray, happened: FloatArray, bins: int = CALIBRATION_BINS) -> tuple[float, float, float]:
    """Reliability, resolution and uncertainty of one class: Brier ≈ reliability − resolution + uncertainty.

    Reference: Murphy (1973), "A new vector partition of the probability score".
    """
    curve = calibration_curve(predicted, happened, bins)
    rows = sum(point.rows for point in curve)
    overall = float(happened.mean())
    reliability = sum(point.rows * (point.predicted - point.observed) ** 2 for point in curve) / rows
    resolution = sum(point.rows * (point.observed - overall) ** 2 for point in curve) / rows
    return reliability, resolution, overall * (1 - overall)


def auc(score: FloatArray, positive: FloatArray) -> float:
    """Area under the ROC curve by ranks, ties halved; NaN when one side is empty."""
    hits = int(np.sum(positive > 0))
    misses = len(positive) - hits
    if hits == 0 or misses == 0:
        return float("nan")
    ranks = rankdata(score)
    return float((ranks[positive > 0].sum() - hits * (hits + 1) / 2) / (hits * misses))


def chance_levels(predicted: FloatArray, happened: FloatArray, independent: float) -> tuple[float, float]:
    """What chance alone would show of calibration error and of resolution, were every prediction perfectly right.

    `independent` is how many labels the overlapping ones are worth (the sum of their uniqueness). A measured error near
    the first number, or a resolution near the second, means nothing.
    """
    bins = min(CALIBRATION_BINS, len(predicted))
    if bins == 0 or independent <= 0:
        return float("nan"), float("nan")
    spread = float(np.mean(predicted * (1 - predicted)))
    overall = float(happened.mean())
    # The mean of |x| is √(2/π) standard deviations.
    return float(np.sqrt(2 / np.pi * spread * bins / independent)), (bins - 1) / independent * overall * (1 - overall)


def score_probabilities(
    probabilities: FloatArray,
    labels: IntArray,
    base: FloatArray,
    class_names: tuple[str, ...],
    independent: float | None = None,
) -> dict[str, Any]:
    """All scores of one set of predictions, against the base rate's on the same rows. JSON-able.

    `independent` says how many labels the rows are worth; by default each counts.
    """
    worth = float(len(labels)) if independent is None else independent
    scores: dict[str, Any] = {
        "rows": len(labels),
        "independent": worth,
        "log_loss": log_loss(probabilities, labels),
        "base_log_loss": log_loss(base, labels),
        "brier": brier(probabilities, labels),
        "base_brier": brier(base, labels),
        "classes": {},
    }
    scores["log_loss_gain"] = scores["base_log_loss"] - scores["log_loss"]
    totals = np.zeros(3)
    for c, name in enumerate(class_names):
        happened = (labels == c).astype(np.float64)
        predicted = probabilities[:, c]
        parts = murphy(predicted, happened)
        totals += parts
        error_by_chance, resolution_by_chance = chance_levels(predicted, happened, worth)
        scores["classes"][name] = {
            "auc": auc(predicted, happened),
            "calibration_error": calibration_error(predicted, happened),
            "calibration_error_by_chance": error_by_chance,
            "reliability": parts[0],
            "resolution": parts[1],
            "resolution_by_chance": resolution_by_chance,
            "uncertainty": parts[2],
            "curve": [[p.predicted, p.observed, p.rows] for p in calibration_curve(predicted, happened)],
        }
    # Over all classes: brier ≈ reliability − resolution + uncertainty.
    scores |= zip(("reliability", "resolution", "uncertainty"), totals.tolist(), strict=True)
    return scores


def decile_edges(values: FloatArray) -> FloatArray:
    """The nine inner deciles of a column; with ties they coincide and their bins stay empty."""
    edges: FloatArray = np.quantile(values, np.linspace(0.1, 0.9, 9))
    return edges


def bin_shares(values: FloatArray, edges: FloatArray) -> FloatArray:
    """Share of the values in each bin between the edges."""
    counts = np.bincount(np.searchsorted(edges, values, side="right"), minlength=len(edges) + 1)
    return counts / max(len(values), 1)


def population_stability(expected: FloatArray, seen: FloatArray) -> float:
    """PSI of two sets of bin shares: under 0.1 the same, over 0.25 another distribution."""
    a, b = np.maximum(expected, 1e-4), np.maximum(seen, 1e-4)
    return float(np.sum((b - a) * np.log(b / a)))
