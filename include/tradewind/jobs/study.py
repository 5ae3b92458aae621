"""Sweep the parameters by Optuna over purged folds, keep every trial, and judge the best on what is new to it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tradewind.backtest.metrics import daily_returns, deflated_sharpe, measure
from tradewind.backtest.replay import ReplayResult, ReplaySettings, replay
from tradewind.backtest.signals import ModelSpan, SymbolSeries
from tradewind.core.params import StrategyParams
from tradewind.core.ports import Clock, StudyStore
from tradewind.core.study import INTEGERS, SPACE, Trial, overfitting_probability, plan_folds, with_values
from tradewind.errors import BadInput

Series = Mapping[str, SymbolSeries]


@dataclass(frozen=True, slots=True)
class StudySettings:
    """What a study is; a study that is resumed must be asked for with the same."""

    symbols: tuple[str, ...]
    start_ms: int
    end_ms: int
    folds: int = 5
    holdout_frac: float = 0.25
    seed: int = 7
    strategy_version: str = ""


def run_study(
    store: StudyStore,
    clock: Clock,
    study: str,
    series: Series,
    params: StrategyParams,
    settings: StudySettings,
    trials: int,
    *,
    models: tuple[ModelSpan, ...] | None = None,
    say: Callable[[Trial], None] = lambda _trial: None,
) -> dict[str, Any]:
    """Go on until the study has `trials` finished ones; returns its report, which is stored too.

    Raises BadInput when the study exists with other settings, or the range is too short for its folds.
    """
    wanted = {**asdict(settings), "symbols": list(settings.symbols)}
    kept = store.start(study, wanted, clock.now())
    if kept != wanted:
        differing = ", ".join(sorted(name for name in wanted if kept.get(name) != wanted[name]))
        raise BadInput(f"the study {study} exists with other settings ({differing}): take another name")
    longest = max(params.horizon_bars, INTEGERS["horizon_bars"][1])
    try:
        *folds, holdout = plan_folds(settings.start_ms, settings.end_ms, settings.folds, settings.holdout_frac, longest)
    except ValueError as error:
        raise BadInput(str(error)) from None

    finished = store.trials(study)
    sweep = _resumed(finished, settings.seed, params)
    for number in range(len(finished), trials):
        asked = sweep.ask()
        values: dict[str, float] = {n: asked.suggest_float(n, *bounds) for n, bounds in SPACE.items()}
        values |= {n: asked.suggest_int(n, *bounds) for n, bounds in INTEGERS.items()}
        tried = with_values(params, values)
        ratios = tuple(_sharpe(_run(series, tried, *fold, models)) for fold in folds)
        trial = Trial(number, values, float(np.mean([r or 0.0 for r in ratios])), ratios)
        store.insert_trial(study, trial, clock.now())
        sweep.tell(asked, trial.value)
        finished.append(trial)
        say(trial)

    report = _report(finished, series, params, folds, holdout, models)
    store.finish(study, report, clock.now())
    return report


def _resumed(finished: list[Trial], seed: int, params: StrategyParams) -> Any:
    """A sweep that knows the finished trials. It starts at the present values and is seeded by how far it has come."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sweep = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed + len(finished)))
    ranges: dict[str, Any] = {n: optuna.distributions.FloatDistribution(*bounds) for n, bounds in SPACE.items()}
    ranges |= {n: optuna.distributions.IntDistribution(*bounds) for n, bounds in INTEGERS.items()}
    for trial in finished:
        sweep.add_trial(optuna.trial.create_trial(params=dict(trial.params), distributions=ranges, value=trial.value))
    if not finished:
        bounds = {**SPACE, **INTEGERS}
        present = {name: min(max(getattr(params, name), low), high) for name, (low, high) in bounds.items()}
        sweep.enqueue_trial(present)
    return sweep


def _run(
    series: Series, params: StrategyParams, start_ms: int, end_ms: int, models: tuple[ModelSpan, ...] | None
) -> ReplayResult:
    return replay(series, params, start_ms, end_ms, ReplaySettings(models=models, detailed=False))


def _returns(result: ReplayResult) -> Any:
    return daily_returns(result.run.equity, result.run.start_ms, result.run.end_ms)


def _sharpe(result: ReplayResult) -> float | None:
    run = result.run
    span = (run.start_ms, run.end_ms)
    value = measure(run.trades, run.equity, run.initial_equity_quote, span_ms=span).sharpe
    return value if math.isfinite(value) else None


def _report(
    trials: list[Trial],
    series: Series,
    params: StrategyParams,
    folds: list[tuple[int, int]],
    holdout: tuple[int, int],
    models: tuple[ModelSpan, ...] | None,
) -> dict[str, Any]:
    """The best trial, deflated by how many were tried, and its one run on the hold-out beside the shipped values'."""
    best = max(trials, key=lambda trial: -math.inf if trial.value is None else trial.value)
    chosen = with_values(params, best.params)
    sharpes = [trial.value for trial in trials if trial.value is not None]
    seen = np.concatenate([_returns(_run(series, chosen, *fold, models)) for fold in folds])
    return {
        "trials": len(trials),
        "best": {"trial": best.number, "params": dict(best.params), "sharpe": best.value, "folds": list(best.folds)},
        "deflated_sharpe": _known(deflated_sharpe(seen, len(trials), sharpes)),
        "overfitting_probability": _known(overfitting_probability(trials)),
        "holdout": _outcome(_run(series, chosen, *holdout, models)),
        "holdout_shipped": _outcome(_run(series, params, *holdout, models)),
    }


def _outcome(result: ReplayResult) -> dict[str, Any]:
    run = result.run
    found = measure(run.trades, run.equity, run.initial_equity_quote, span_ms=(run.start_ms, run.end_ms))
    return {
        "trades": found.trades,
        "return_frac": found.return_frac,
        "sharpe": _known(found.sharpe),
        "sharpe_interval": [_known(bound) for bound in found.sharpe_interval],
        "expectancy_r": _known(found.expectancy_r),
        "expectancy_r_interval": [_known(bound) for bound in found.expectancy_r_interval],
        "max_drawdown_frac": found.max_drawdown_frac,
    }


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
