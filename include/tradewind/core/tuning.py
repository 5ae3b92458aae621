"""Choosing the boosters' settings by Optuna: a budget in trials, inside the training slices alone.

A trial fits one library on the `fit` slice and is scored by its weighted log-loss on `stop`, which no calibration and
no test ever sees again. The first trial is the starting point (the champion's settings, else the shipped ones), so that
tuning never ends below it. A trial that at some round is worse than the median of those before it is pruned there. A
time limit only aborts, between rounds, and says so: without it striking, the same seed finds the same settings.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import numpy as np

from .boosters import BoosterSettings, Rows, Watch, fit_booster
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
# The median of fewer trials, or of their first rounds, prunes what a slow learner would have become.
_UNPRUNED_TRIALS: Final = 4
_UNPRUNED_ROUNDS: Final = 20


@dataclass(frozen=True, slots=True)
class Tuned:
    """The settings chosen for each library, and how they were found (JSON-able)."""

    per_library: Mapping[str, BoosterSettings]
    report: Mapping[str, Any]


class _TimeUp(Exception):
    """The search's time limit passed inside a fit."""


def tune(
    sample: Sample, settings: FitSettings, trials: int, timeout_s: float, start: Mapping[str, BoosterSettings]
) -> Tuned:
    """Search each library's settings on one family's training sample; deterministic unless the time limit strikes.

    `start` holds the settings to begin from by library. A library without a finished trial keeps its starting point.
    Raises NotEnoughRows like the fit itself.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    fit, stop = booster_slices(sample, settings)
    chosen: dict[str, BoosterSettings] = {}
    report: dict[str, Any] = {}
    for library in settings.libraries:
        first = start.get(library, settings.boosters)
        study = optuna.create_study(
            sampler=optuna.samplers.TPESampler(seed=settings.boosters.seed),
            pruner=optuna.pruners.MedianPruner(n_startup_trials=_UNPRUNED_TRIALS, n_warmup_steps=_UNPRUNED_ROUNDS),
        )
        study.enqueue_trial({name: getattr(first, name) for name in ("depth", "min_leaf_rows", *_RANGES)})
        deadline_s = time.monotonic() + timeout_s / len(settings.libraries)

        def objective(
            trial: Any, library: str = library, first: BoosterSettings = first, deadline_s: float = deadline_s
        ) -> float:
            return _trial_loss(trial, library, fit, stop, _suggested(trial, first), deadline_s)

        # A library that fails fails in the fit as well, where it is named; here its trial just counts as lost.
        study.optimize(objective, n_trials=trials, timeout=deadline_s - time.monotonic(), catch=(Exception,))
        states = [trial.state for trial in study.trials]
        finished = states.count(optuna.trial.TrialState.COMPLETE)
        pruned = states.count(optuna.trial.TrialState.PRUNED)
        chosen[library] = replace(first, **study.best_params) if finished else first
        report[library] = {
            "trials": len(states),
            "finished": finished,
            "pruned": pruned,
            "aborted_by_time": len(states) < trials or time.monotonic() > deadline_s,
            "best": study.best_value if finished else None,
            "first": study.trials[0].value if states else None,
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


def _trial_loss(trial: Any, library: str, fit: Rows, stop: Rows, settings: BoosterSettings, deadline_s: float) -> float:
    """The trial's loss. Raises TrialPruned where the pruner says so, and _TimeUp at the deadline."""
    import optuna

    ended: list[str] = []

    def watch(round_: int, loss: float) -> bool:
        trial.report(loss, round_)
        if time.monotonic() > deadline_s:
            ended.append("time")
        elif trial.should_prune():
            ended.append("pruned")
        return not ended

    watcher: Watch = watch
    said: FloatArray = fit_booster(library, fit, stop, settings, watcher).predict(stop.features)
    if "time" in ended:
        trial.study.stop()
        raise _TimeUp
    if ended:
        raise optuna.TrialPruned
    picked = said[np.arange(len(stop)), stop.labels]
    return float(-np.average(np.log(np.maximum(picked, _FLOOR)), weights=stop.weights))
