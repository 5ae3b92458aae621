"""The ensemble of one regime family, and the model of both families that a champion is.

A training range is cut by time into three slices, each later than the one before and purged of labels that reach into
the next: `fit` (the boosters), `stop` (their number of rounds) and `calibrate` (the calibrator alone)::

    |────────── fit ──────────|·|── stop ──|·|── calibrate ──|·        (· = purged and embargoed)

The boosters see rows weighted by class and by label uniqueness; the unweighted mean of their probabilities is
calibrated back to true frequencies. What an entry is worth is Σ probability × training mean net_r of the class.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import numpy as np

from .boosters import CLASSES, LIBRARIES, Booster, BoosterSettings, Matrix, Rows, fit_booster, seeded
from .calibration import Calibrator, fit_calibrator
from .types import FloatArray, IntArray, Prediction, RegimeFamily, RegimeState

MIN_SLICE_ROWS: Final = 100
EMBARGO_MS: Final = 4 * 15 * 60 * 1000  # an hour after a slice's last label, for what features still carry over


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """Labelled rows of one family, pooled over symbols, ascending in time; columns of n rows."""

    features: Matrix
    open_time_ms: IntArray
    t1_ms: IntArray
    labels: IntArray
    uniqueness: FloatArray
    net_r_long: FloatArray
    net_r_short: FloatArray

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: Any) -> Sample:
        """The rows of a boolean mask or an index array."""
        return Sample(
            self.features[rows],
            self.open_time_ms[rows],
            self.t1_ms[rows],
            self.labels[rows],
            self.uniqueness[rows],
            self.net_r_long[rows],
            self.net_r_short[rows],
        )

    def between(self, start_ms: int, end_ms: int) -> Sample:
        """Rows whose whole life lies in [start, end): decided at or after start, label settled before end."""
        return self.take((self.open_time_ms >= start_ms) & (self.t1_ms < end_ms))


class NotEnoughRows(ValueError):
    """A slice has too few rows, or lacks a class; the family cannot be trained on it."""


@dataclass(frozen=True, slots=True)
class FitSettings:
    """How an ensemble is fitted: slices as fractions of the training range's time, and the boosters' settings."""

    stop_frac: float = 0.1
    calibrate_frac: float = 0.15
    libraries: tuple[str, ...] = LIBRARIES
    workers: int = 2
    boosters: BoosterSettings = field(default_factory=BoosterSettings)
    per_library: Mapping[str, BoosterSettings] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class FamilyModel:
    """The fitted, calibrated ensemble of one regime family."""

    family: RegimeFamily
    boosters: tuple[Booster, ...]
    calibrator: Calibrator
    base_rates: tuple[float, float, float]
    mean_net_r_long: tuple[float, float, float]  # by class, of a long entry
    mean_net_r_short: tuple[float, float, float]
    rows: int
    failures: Mapping[str, str] = field(default_factory=dict)  # library → what it died of

    def raw(self, features: Matrix, threads: int = 1) -> FloatArray:
        """n × 3: the unweighted mean of the boosters, before calibration."""
        out: FloatArray = np.mean([booster.predict(features, threads) for booster in self.boosters], axis=0)
        return out

    def members(self, features: Matrix, threads: int = 1) -> dict[str, FloatArray]:
        """n × 3 of each library by name, before averaging and calibration."""
        return {booster.library: booster.predict(features, threads) for booster in self.boosters}

    def probabilities(self, features: Matrix, threads: int = 1) -> FloatArray:
        """n × 3 calibrated probabilities of long_wins, short_wins, neither."""
        return self.calibrator.apply(self.raw(features, threads))

    def expected_r(self, probabilities: FloatArray) -> tuple[FloatArray, FloatArray]:
        """What a long and a short entry are worth in R, costs included, at each row of probabilities."""
        return probabilities @ np.array(self.mean_net_r_long), probabilities @ np.array(self.mean_net_r_short)


def class_frequencies(labels: IntArray, weights: FloatArray) -> FloatArray:
    """Weighted share of each class."""
    counts = np.bincount(labels, weights=weights, minlength=CLASSES)
    shares: FloatArray = counts / counts.sum()
    return shares


def class_means(values: FloatArray, labels: IntArray, weights: FloatArray) -> tuple[float, float, float]:
    """Weighted mean of a column by class; the overall mean for a class that never came."""
    overall = float(np.average(values, weights=weights))
    means = [
        float(np.average(values[labels == c], weights=weights[labels == c])) if np.any(labels == c) else overall
        for c in range(CLASSES)
    ]
    return means[0], means[1], means[2]


def _booster_rows(sample: Sample, class_weights: FloatArray) -> Rows:
    weights = sample.uniqueness * class_weights[sample.labels]
    return Rows(sample.features, sample.labels, weights / weights.mean())


def slice_bounds(sample: Sample, settings: FitSettings) -> tuple[int, int]:
    """The moments at which `stop` and `calibrate` begin: fractions of the rows, so that quiet months do not count."""
    n = len(sample)
    if n < 3 * MIN_SLICE_ROWS:
        raise NotEnoughRows(f"{n} labelled rows; at least {3 * MIN_SLICE_ROWS} are needed")
    calibrate_at = int(n * (1 - settings.calibrate_frac))
    stop_at = int(n * (1 - settings.calibrate_frac - settings.stop_frac))
    return int(sample.open_time_ms[stop_at]), int(sample.open_time_ms[calibrate_at])


def _require(sample: Sample, name: str) -> None:
    present = np.unique(sample.labels)
    if len(sample) < MIN_SLICE_ROWS or len(present) < CLASSES:
        raise NotEnoughRows(f"the {name} slice has {len(sample)} rows in {len(present)} of {CLASSES} classes")


def booster_slices(sample: Sample, settings: FitSettings) -> tuple[Rows, Rows]:
    """What boosters are fitted on and stopped by, purged, weighted by class and uniqueness. Raises NotEnoughRows."""
    stop_ms, calibrate_ms = slice_bounds(sample, settings)
    fit = sample.between(int(sample.open_time_ms[0]), stop_ms)
    stop = sample.between(stop_ms + EMBARGO_MS, calibrate_ms)
    _require(fit, "fit")
    _require(stop, "early-stopping")
    class_weights = 1 / np.maximum(class_frequencies(fit.labels, fit.uniqueness), 1e-3)
    return _booster_rows(fit, class_weights), _booster_rows(stop, class_weights)


def _calibration_slice(sample: Sample, settings: FitSettings) -> Sample:
    _, calibrate_ms = slice_bounds(sample, settings)
    calibrate = sample.between(calibrate_ms + EMBARGO_MS, int(sample.t1_ms.max()) + 1)
    _require(calibrate, "calibration")
    return calibrate


def _fit_libraries(fit: Rows, stop: Rows, settings: FitSettings) -> tuple[list[Booster], dict[str, str]]:
    """The boosters that could be fitted, in the settings' order, and what the others died of."""

    def attempt(place: int, library: str) -> Booster | str:
        own = seeded(settings.per_library.get(library, settings.boosters), place)
        try:
            return fit_booster(library, fit, stop, own)
        # Each library has exceptions of its own; whichever it is, two boosters are better than none.
        except Exception as error:  # noqa: BLE001
            return f"{type(error).__name__}: {error}"

    # The libraries compute outside Python's lock. A core each is worth more than two cores for one: see `threads`.
    with ThreadPoolExecutor(settings.workers) as pool:
        results = list(pool.map(attempt, range(len(settings.libraries)), settings.libraries))
    named = list(zip(settings.libraries, results, strict=True))
    failures = {library: result for library, result in named if isinstance(result, str)}
    return [result for _, result in named if not isinstance(result, str)], failures


def fit_family(family: RegimeFamily, sample: Sample, settings: FitSettings) -> FamilyModel:
    """Fit, stop and calibrate one family's ensemble on a sample; nothing later than it is touched.

    A library that fails is left out and named in `failures`; the others stand.

    Raises
    ------
    NotEnoughRows : a slice is too small or lacks a class.
    RuntimeError : every library failed.
    """
    fit_rows, stop_rows = booster_slices(sample, settings)
    calibrate = _calibration_slice(sample, settings)
    boosters, failures = _fit_libraries(fit_rows, stop_rows, settings)
    if not boosters:
        raise RuntimeError(f"no library could be fitted for {family}: {failures}")

    raw = np.mean([booster.predict(calibrate.features, settings.boosters.threads) for booster in boosters], axis=0)
    base_rates = class_frequencies(sample.labels, sample.uniqueness)
    calibrator = fit_calibrator(
        raw, calibrate.labels, calibrate.uniqueness, base_rates, class_frequencies(fit_rows.labels, fit_rows.weights)
    )
    return FamilyModel(
        family,
        tuple(boosters),
        calibrator,
        (float(base_rates[0]), float(base_rates[1]), float(base_rates[2])),
        class_means(sample.net_r_long, sample.labels, sample.uniqueness),
        class_means(sample.net_r_short, sample.labels, sample.uniqueness),
        len(sample),
        failures,
    )


class LoadedModel:
    """A verified model of both families, ready to answer for all symbols in one batch (`ports.PredictionModel`)."""

    def __init__(
        self,
        version: str,
        trained_until: datetime,
        feature_names: tuple[str, ...],
        families: Mapping[RegimeFamily, FamilyModel],
    ) -> None:
        self.version = version
        self.trained_until = trained_until
        self.feature_names = feature_names
        self.families = dict(families)

    def predict(
        self, rows: Mapping[str, tuple[datetime, Any]], regimes: Mapping[str, RegimeState]
    ) -> dict[str, Prediction]:
        """One prediction a symbol.

        `rows` maps a symbol to its bar's open time and its feature vector (float64, in `feature_names` order). A symbol
        is left out when its regime has no family, its family has no model, or its vector holds a NaN: no guess is made.
        Raises ValueError for a vector of another length than the features'.
        """
        predictions: dict[str, Prediction] = {}
        for family, model in self.families.items():
            symbols, vectors = [], []
            for symbol, (_, vector) in rows.items():
                values = np.asarray(vector, dtype=np.float64)
                if values.shape != (len(self.feature_names),):
                    raise ValueError(f"{symbol}: {values.shape} values for {len(self.feature_names)} features")
                state = regimes.get(symbol)
                if state is not None and state.family is family and not np.isnan(values).any():
                    symbols.append(symbol)
                    vectors.append(values)
            if not symbols:
                continue
            p = model.probabilities(np.asarray(vectors, dtype=np.float32))
            expected_long, expected_short = model.expected_r(p)
            for i, symbol in enumerate(symbols):
                predictions[symbol] = Prediction(
                    symbol,
                    rows[symbol][0],
                    self.version,
                    family,
                    float(p[i, 0]),
                    float(p[i, 1]),
                    float(p[i, 2]),
                    float(expected_long[i]),
                    float(expected_short[i]),
                    hashlib.sha256(vectors[i].tobytes()).hexdigest(),
                )
        return predictions
