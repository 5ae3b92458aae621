"""Probabilities that mean what they say: one temperature and one offset a class, fitted on a slice of its own.

Boosters fitted with class weights answer in a re-weighted world. The offsets bring them back to the true base rates,
the slope takes back over- or underconfidence; a slope of zero is the base rate itself, which is what a model that knows
nothing becomes. The fit is the maximum a posteriori under a prior centred on the known prior correction, with each
label counted by its uniqueness, so that a short slice of overlapping labels cannot move the base rates far.

Formula: p = softmax(slope · log q + offset), "vector scaling" with a shared slope (Guo et al., 2017, section 4).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from scipy.optimize import minimize

from .types import FloatArray, IntArray

PROBABILITY_FLOOR: Final = 1e-6
OFFSET_PRIOR_STD: Final = 0.05
SLOPE_PRIOR_STD: Final = 0.2  # a slice is worth some two hundred labels, which tell a slope from one no closer


@dataclass(frozen=True, slots=True)
class Calibrator:
    """`slope` ≥ 0 and one offset a class; plain numbers, so that it lives in a JSON file."""

    slope: float
    offsets: tuple[float, float, float]

    def apply(self, probabilities: FloatArray) -> FloatArray:
        """n × 3 averaged booster probabilities to n × 3 calibrated ones; rows sum to one."""
        return _softmax(self.slope * _log(probabilities) + np.array(self.offsets))

    def to_dict(self) -> dict[str, Any]:
        return {"slope": self.slope, "offsets": list(self.offsets)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Calibrator:
        first, second, third = (float(offset) for offset in data["offsets"])
        return cls(float(data["slope"]), (first, second, third))


def _log(probabilities: FloatArray) -> FloatArray:
    return np.log(np.maximum(probabilities, PROBABILITY_FLOOR))


def _softmax(scores: FloatArray) -> FloatArray:
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    out: FloatArray = powers / powers.sum(axis=1, keepdims=True)
    return out


def fit_calibrator(
    probabilities: FloatArray, labels: IntArray, weights: FloatArray, base_rates: FloatArray, fitted_rates: FloatArray
) -> Calibrator:
    """Fit on a slice that no booster saw.

    Parameters
    ----------
    probabilities : n × 3, the boosters' average.
    labels, weights : n each; the weights are average uniqueness (0..1), so that their sum counts independent labels.
    base_rates : true class frequencies of the training data.
    fitted_rates : class frequencies after the class weights, as the boosters saw them.
    """
    logs = _log(probabilities)
    rows = np.arange(len(labels))
    one_hot = np.zeros_like(logs)
    one_hot[rows, labels] = 1.0
    centre = np.log(np.maximum(base_rates, PROBABILITY_FLOOR)) - np.log(np.maximum(fitted_rates, PROBABILITY_FLOOR))
    log_base = np.log(np.maximum(base_rates, PROBABILITY_FLOOR))

    def loss(x: FloatArray) -> tuple[float, FloatArray]:
        # At slope s the offset that keeps the base rates of an uninformed model lies between the two.
        slope, shifts = x[0], x[1:]
        offsets = slope * centre + (1 - slope) * log_base + shifts
        p = _softmax(slope * logs + offsets)
        value = -np.sum(weights * np.log(np.maximum(p[rows, labels], PROBABILITY_FLOOR)))
        value += 0.5 * ((slope - 1) / SLOPE_PRIOR_STD) ** 2 + 0.5 * np.sum((shifts / OFFSET_PRIOR_STD) ** 2)
        residual = weights[:, None] * (p - one_hot)
        gradient = np.empty(4)
        gradient[0] = np.sum(residual * (logs + centre - log_base)) + (slope - 1) / SLOPE_PRIOR_STD**2
        gradient[1:] = residual.sum(axis=0) + shifts / OFFSET_PRIOR_STD**2
        return float(value), gradient

    found = minimize(
        loss, np.array([1.0, 0.0, 0.0, 0.0]), jac=True, method="L-BFGS-B", bounds=[(0.0, 3.0), *[(None, None)] * 3]
    )
    slope = float(found.x[0])
    offsets = slope * centre + (1 - slope) * log_base + found.x[1:]
    return Calibrator(slope, (float(offsets[0]), float(offsets[1]), float(offsets[2])))
