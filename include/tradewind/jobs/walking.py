"""Walk-forward validation, and the whole decision chain over a model's forecasts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tradewind.backtest.replay import ReplaySettings, replay
from tradewind.backtest.signals import Forecast, model_forecast, symbol_series
from tradewind.core.ensemble import LoadedModel
from tradewind.core.overfitting import overfitting_probability
from tradewind.core.params import StrategyParams
from tradewind.core.regime import NO_FAMILY
from tradewind.core.timeframes import from_ms
from tradewind.core.types import Instrument, RegimeFamily
from tradewind.core.validation import Fold, TradeSample, TrainingParams, score_trades
from tradewind.errors import StopError
from tradewind.jobs.judging import (
    Answers,
    Families,
    Panels,
    ask_families,
    candidate_results,
    fit_families,
    score_answers,
    score_pooled,
)


def require_instruments(symbols: Sequence[str], instruments: Mapping[str, Instrument]) -> None:
    """Raises StopError naming the symbols whose rules are unknown: without fees and steps no result is honest."""
    unknown = [symbol for symbol in symbols if symbol not in instruments]
    if unknown:
        raise StopError(f"the exchange does not list {', '.join(unknown)}: remove them from TRADEWIND_SYMBOLS")


def forecasts(version: str, models: Families, panels: Panels, start_ms: int, end_ms: int) -> dict[str, Forecast]:
    """The models' answers at every bar opened in [start, end) of every symbol; NaN at the others."""
    model = LoadedModel(version, from_ms(0), next(iter(panels.values())).names, models)
    answers = {}
    for symbol, panel in panels.items():
        times = panel.bars.open_time_ms
        families = np.where((times >= start_ms) & (times < end_ms), panel.families, NO_FAMILY)
        answers[symbol] = model_forecast(model, panel.matrix, families)
    return answers


def chain_trades(
    panels: Panels,
    answers: Mapping[str, Forecast],
    instruments: Mapping[str, Instrument],
    params: StrategyParams,
    start_ms: int,
    end_ms: int,
) -> TradeSample:
    """Closed trades of the real decision chain and matching over the bars opened in [start, end), costs included."""
    series = {
        symbol: symbol_series(panel.bars, instruments[symbol], answers[symbol], params)
        for symbol, panel in panels.items()
        if symbol in instruments
    }
    trades = replay(series, params, start_ms, end_ms, ReplaySettings(detailed=False)).run.trades
    return TradeSample(
        np.array([trade.net_r for trade in trades], dtype=np.float64),
        np.array([trade.entry_ms for trade in trades], dtype=np.int64),
    )


def walk_forward(
    panels: Panels,
    folds: Sequence[Fold],
    instruments: Mapping[str, Instrument],
    params: StrategyParams,
    training: TrainingParams,
) -> tuple[dict[str, Any], TradeSample]:
    """Fit, ask and score each fold, then trade all of their forecasts in one run of the chain.

    Returns the report (JSON-able: `folds`, `pooled`, `trades`, `overfitting`), and the trades.
    """
    reports: list[dict[str, Any]] = []
    asked: list[dict[RegimeFamily, Answers]] = []
    answers: dict[str, Forecast] = {}
    for fold in folds:
        models, skipped = fit_families(panels, fold.start_ms, fold.train_end_ms, training.fit)
        report: dict[str, Any] = {
            "test_start_ms": fold.test_start_ms,
            "test_end_ms": fold.test_end_ms,
            "skipped": skipped,
            "failures": {family.value: dict(model.failures) for family, model in models.items() if model.failures},
        }
        given = ask_families(models, panels, fold.test_start_ms, fold.test_end_ms)
        if given:
            asked.append(given)
            report |= score_answers(given)["pooled"]
        if models:
            new = forecasts("walk-forward", models, panels, fold.test_start_ms, fold.test_end_ms)
            answers = {symbol: _joined(answers[symbol], new[symbol]) for symbol in new} if answers else new
        reports.append(report)
    whole: dict[str, Any] = {"folds": reports}
    if not asked or not answers:
        return whole, TradeSample(np.empty(0), np.empty(0, dtype=np.int64))

    start_ms, end_ms = folds[0].test_start_ms, folds[-1].test_end_ms
    trades = chain_trades(panels, answers, instruments, params, start_ms, end_ms)
    for report, fold in zip(reports, folds, strict=True):
        report["trades"] = score_trades(trades.between(fold.test_start_ms, fold.test_end_ms), training).to_dict()
    names, results = candidate_results(asked, start_ms, end_ms)
    gains = [report["log_loss_gain"] for report in reports if "log_loss_gain" in report]
    whole["pooled"] = score_pooled([part for fold_answers in asked for part in fold_answers.values()])
    whole["log_loss_gain"] = whole["pooled"]["log_loss_gain"]
    whole["folds_above_base_rate"] = sum(gain > 0 for gain in gains)
    whole["trades"] = score_trades(trades, training).to_dict()
    whole["overfitting"] = {
        "probability": overfitting_probability(results),
        "days": len(results),
        "candidates": dict(zip(names, results.sum(axis=0).tolist(), strict=True)),
    }
    return whole, trades


def _joined(former: Forecast, later: Forecast) -> Forecast:
    """Two forecasts of ranges that do not meet, as one."""

    def either(name: str) -> Any:
        old, new = getattr(former, name), getattr(later, name)
        return np.where(np.isnan(new), old, new)

    return Forecast(
        either("p_long"),
        either("p_short"),
        either("expected_r_long"),
        either("expected_r_short"),
        later.model_version,
        either("p_neither"),
    )
