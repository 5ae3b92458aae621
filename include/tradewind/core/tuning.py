"""Choosing the boosters' settings by Optuna: a budget in trials, inside the training slices alone.

A trial fits one library on the `fit` slice and is scored by its weighted log-loss on `stop`, which no calibration and
no test ever sees again. The first trial is the starting point (the champion's settings, else the shipped ones), so that
tuning never ends below it. A time limit only aborts, and says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import numpy as np

from .boosters import BoosterSettings, Rows, fit_booster
from .ensemble import FitSettings, Sample, booster_slices
from .types import FloatArray

_FLOOR: Final = 1e-6
#: What a trial may choose, and its range; the scale is logarithmic where a factor matters more than a step.
_RANGES: Final[Mapping[str, tuple[float, float, bool]]] = {
    "learning_rate": (0.02, 0.15, True),
    "row_frac": (0.5, 0.9, False),
    "column_frac": (0.3, 0.9, False),
    "l2": (1.0, 60.0, True),
}


@dataclass(frozen=True, slots=True)
class Tuned:
    """The settings chosen for each library, and how they were found (JSON-able)."""

    per_library: Mapping[str, BoosterSettings]
    report: Mapping[str, Any]


def tune(
    sample: Sample, settings: FitSettings, trials: int, timeout_s: float, start: Mapping[str, BoosterSettings]
) -> Tuned:
    """Search each library's settings on one family's training sample; deterministic unless the time limit strikes.

    `start` holds the settings to begin from by library. A library without a finished trial keeps its starting point.
    Raises NotEnoughRows like the fit itself.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    fit, stop = booster_slices(sample, settings)
    chosen: dict[str, BoosterSettings] = {}
    report: dict[str, Any] = {}
    for library in settings.libraries:
        first = start.get(library, settings.boosters)
        study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=settings.boosters.seed))
        study.enqueue_trial({name: getattr(first, name) for name in ("depth", "min_leaf_rows", *_RANGES)})

        def objective(trial: Any, library: str = library, first: BoosterSettings = first) -> float:
            return _stop_loss(library, fit, stop, _suggested(trial, first))

        # A library that fails fails in the fit as well, where it is named; here its trial just counts as lost.
        study.optimize(objective, n_trials=trials, timeout=timeout_s / len(settings.libraries), catch=(Exception,))
        finished = [trial for trial in study.trials if trial.value is not None]
        chosen[library] = replace(first, **study.best_params) if finished else first
        report[library] = {
            "trials": len(study.trials),
            "finished": len(finished),
            "aborted_by_time": len(study.trials) < trials,
            "best": study.best_value if finished else None,
            "first": study.trials[0].value if study.trials else None,
            "settings": asdict(chosen[library]),
        }
    return Tuned(chosen, report)


def _suggested(trial: Any, first: BoosterSettings) -> BoosterSettings:
    numbers: dict[str, Any] = {
        "depth": trial.suggest_int("depth", 3, 6),
        "min_leaf_rows": trial.suggest_int("min_leaf_rows", 50, 1000, log=True),
    }
    for name, (low, high, log) in _RANGES.items():
        numbers[name] = trial.suggest_float(name, low, high, log=log)
    return replace(first, **numbers)


def _stop_loss(library: str, fit: Rows, stop: Rows, settings: BoosterSettings) -> float:
    said: FloatArray = fit_booster(library, fit, stop, settings).predict(stop.features)
    picked = said[np.arange(len(stop)), stop.labels]
    return float(-np.average(np.log(np.maximum(picked, _FLOOR)), weights=stop.weights))
