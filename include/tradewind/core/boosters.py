"""LightGBM, XGBoost and CatBoost behind one face: fit with early stopping, predict three class probabilities.

Each fit is deterministic for a seed and a number of threads, and may be watched: told its loss on the `stop` rows after
every round, a watcher that answers False ends it there. Features are float32, row-major; labels 0, 1, 2
(`core.labels`); weights are positive with mean one. Nothing here touches a file: see adapters/model_artifacts.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from .types import FloatArray, IntArray

Matrix = NDArray[np.float32]
Watch = Callable[[int, float], bool]  # round, loss on the rows to stop by → whether to go on

CLASSES: Final = 3
LIBRARIES: Final[tuple[str, ...]] = ("lightgbm", "xgboost", "catboost")


@dataclass(frozen=True, slots=True)
class BoosterSettings:
    """What the three libraries share. Defaults suit weak, overlapping labels: shallow, slow, well regularised."""

    learning_rate: float = 0.05
    max_rounds: int = 300
    early_stopping_rounds: int = 25
    depth: int = 4
    min_leaf_rows: int = 200
    row_frac: float = 0.7
    column_frac: float = 0.5
    l2: float = 10.0
    bins: int = 63
    seed: int = 7
    threads: int = 1  # two gain little on rows this few, and lose much where other processes share the cores


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Rows to fit or to stop by: n × k features, n labels, n weights."""

    features: Matrix
    labels: IntArray
    weights: FloatArray

    def __len__(self) -> int:
        return len(self.labels)


class Booster(Protocol):
    """One fitted library: its name, the rounds kept by early stopping, and the library's own object."""

    @property
    def library(self) -> str: ...
    @property
    def rounds(self) -> int: ...
    @property
    def native(self) -> Any: ...

    def predict(self, features: Matrix, threads: int = 1) -> FloatArray:
        """n × 3 class probabilities, in the distribution the weights made."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class LightGbm:
    native: Any
    rounds: int
    library: str = "lightgbm"

    def predict(self, features: Matrix, threads: int = 1) -> FloatArray:
        out = self.native.predict(features, num_iteration=self.rounds, num_threads=threads)
        return np.asarray(out, dtype=np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class XgBoost:
    native: Any
    rounds: int
    library: str = "xgboost"

    def predict(self, features: Matrix, threads: int = 1) -> FloatArray:
        self.native.set_param({"nthread": threads})
        out = self.native.inplace_predict(features, iteration_range=(0, self.rounds))
        return np.asarray(out, dtype=np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class CatBoostModel:
    native: Any
    rounds: int
    library: str = "catboost"

    def predict(self, features: Matrix, threads: int = 1) -> FloatArray:
        out = self.native.predict(features, prediction_type="Probability", ntree_end=self.rounds, thread_count=threads)
        return np.asarray(out, dtype=np.float64)


def _fit_lightgbm(fit: Rows, stop: Rows, settings: BoosterSettings, watch: Watch | None = None) -> Booster:
    # Imported here: a cycle that only reads features must not pay for three libraries.
    import lightgbm

    params = {
        "objective": "multiclass",
        "num_class": CLASSES,
        "learning_rate": settings.learning_rate,
        "num_leaves": 2**settings.depth,
        "max_depth": settings.depth + 1,
        "min_data_in_leaf": settings.min_leaf_rows,
        "bagging_fraction": settings.row_frac,
        "bagging_freq": 1,
        "feature_fraction": settings.column_frac,
        "lambda_l2": settings.l2,
        "max_bin": settings.bins,
        "seed": settings.seed,
        "num_threads": settings.threads,
        "deterministic": True,
        "force_row_wise": True,
        "verbosity": -1,
    }
    train = lightgbm.Dataset(fit.features, fit.labels, weight=fit.weights, params=params)
    valid = lightgbm.Dataset(stop.features, stop.labels, weight=stop.weights, reference=train, params=params)
    callbacks: list[Callable[..., Any]] = [lightgbm.early_stopping(settings.early_stopping_rounds, verbose=False)]
    if watch is not None:

        def tell(environment: Any) -> None:
            results = environment.evaluation_result_list
            if not watch(environment.iteration, results[0][2]):
                raise lightgbm.callback.EarlyStopException(environment.iteration, results)

        callbacks.append(tell)
    booster = lightgbm.train(
        params, train, num_boost_round=settings.max_rounds, valid_sets=[valid], callbacks=callbacks
    )
    return LightGbm(booster, max(int(booster.best_iteration), 1))


def _fit_xgboost(fit: Rows, stop: Rows, settings: BoosterSettings, watch: Watch | None = None) -> Booster:
    import xgboost

    params = {
        "objective": "multi:softprob",
        "num_class": CLASSES,
        "eta": settings.learning_rate,
        "max_depth": settings.depth,
        # XGBoost counts hessians, not rows; p(1 − p) is about 0.2 a row for three even classes.
        "min_child_weight": 0.2 * settings.min_leaf_rows,
        "subsample": settings.row_frac,
        "colsample_bytree": settings.column_frac,
        "lambda": settings.l2,
        "max_bin": settings.bins + 1,
        "tree_method": "hist",
        "seed": settings.seed,
        "nthread": settings.threads,
        "verbosity": 0,
    }
    binning = {"max_bin": settings.bins + 1, "nthread": settings.threads}
    train = xgboost.QuantileDMatrix(fit.features, fit.labels, weight=fit.weights, **binning)
    valid = xgboost.QuantileDMatrix(stop.features, stop.labels, weight=stop.weights, ref=train, **binning)
    callbacks: list[Any] = [xgboost.callback.EarlyStopping(rounds=settings.early_stopping_rounds)]
    if watch is not None:
        told = watch

        class Tell(xgboost.callback.TrainingCallback):  # type: ignore[misc]  # the library ships no types
            def after_iteration(self, _model: Any, epoch: int, evals_log: Any) -> bool:
                return not told(epoch, float(evals_log["stop"]["mlogloss"][-1]))

        callbacks.append(Tell())
    booster = xgboost.train(
        params,
        train,
        num_boost_round=settings.max_rounds,
        evals=[(valid, "stop")],
        verbose_eval=False,
        callbacks=callbacks,
    )
    return XgBoost(booster, int(booster.best_iteration) + 1)


def _fit_catboost(fit: Rows, stop: Rows, settings: BoosterSettings, watch: Watch | None = None) -> Booster:
    import catboost

    callbacks = []
    if watch is not None:
        told = watch

        class Tell:
            def after_iteration(self, info: Any) -> bool:
                return told(info.iteration - 1, info.metrics["validation"]["MultiClass"][-1])

        callbacks.append(Tell())

    model = catboost.CatBoost(
        {
            "loss_function": "MultiClass",
            "classes_count": CLASSES,
            "learning_rate": settings.learning_rate,
            "iterations": settings.max_rounds,
            "depth": settings.depth,
            "min_data_in_leaf": settings.min_leaf_rows,
            "bootstrap_type": "Bernoulli",
            "subsample": settings.row_frac,
            "rsm": settings.column_frac,
            "l2_leaf_reg": settings.l2,
            "border_count": settings.bins,
            "boosting_type": "Plain",
            "od_type": "Iter",
            "od_wait": settings.early_stopping_rounds,
            "random_seed": settings.seed,
            "thread_count": settings.threads,
            "allow_writing_files": False,
            "logging_level": "Silent",
        }
    )
    model.fit(
        catboost.Pool(fit.features, fit.labels, weight=fit.weights),
        eval_set=catboost.Pool(stop.features, stop.labels, weight=stop.weights),
        callbacks=callbacks or None,
    )
    return CatBoostModel(model, int(model.tree_count_))


_FITTERS: Final[Mapping[str, Callable[[Rows, Rows, BoosterSettings, Watch | None], Booster]]] = {
    "lightgbm": _fit_lightgbm,
    "xgboost": _fit_xgboost,
    "catboost": _fit_catboost,
}


def fit_booster(library: str, fit: Rows, stop: Rows, settings: BoosterSettings, watch: Watch | None = None) -> Booster:
    """Fit one library on `fit`, keeping the rounds that were best on `stop`; `watch` may end it sooner."""
    return _FITTERS[library](fit, stop, settings, watch)


def seeded(settings: BoosterSettings, offset: int) -> BoosterSettings:
    """The same settings with another seed, derived from theirs."""
    return replace(settings, seed=settings.seed + offset)
