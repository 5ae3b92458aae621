"""How a training is judged: scores on labelled rows, and the whole decision chain over forecasts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tradewind.backtest.replay import replay
from tradewind.backtest.signals import Forecast, model_forecast, symbol_series
from tradewind.core.dataset import SymbolPanel, pool
from tradewind.core.ensemble import FamilyModel, FitSettings, LoadedModel, NotEnoughRows, fit_family
from tradewind.core.labels import CLASS_NAMES
from tradewind.core.params import StrategyParams
from tradewind.core.regime import FAMILIES
from tradewind.core.scoring import auc, score_probabilities
from tradewind.core.timeframes import from_ms
from tradewind.core.types import FloatArray, Instrument, IntArray, RegimeFamily
from tradewind.core.validation import Fold, TradeSample, TrainingParams, score_trades
from tradewind.errors import StopError

Panels = Mapping[str, SymbolPanel]
Families = Mapping[RegimeFamily, FamilyModel]
_EVERY_HOUR = 4  # neighbouring labels overlap: an hour's first tells what the other three would


def fit_families(
    panels: Panels,
    start_ms: int,
    end_ms: int,
    settings: FitSettings,
    tuned: Mapping[RegimeFamily, FitSettings] | None = None,
) -> tuple[Families, dict[str, str]]:
    """Both families on labels that live inside [start, end); one that cannot be fitted is named with its reason.

    `tuned` holds a family's own settings where they were searched for.
    """
    tuned = tuned or {}
    models: dict[RegimeFamily, FamilyModel] = {}
    skipped: dict[str, str] = {}
    for family in FAMILIES:
        try:
            sample = pool(panels.values(), family, start_ms, end_ms)
            models[family] = fit_family(family, sample, tuned.get(family, settings))
        except NotEnoughRows as error:
            skipped[family.value] = str(error)
    return models, skipped


# -------------------------------------------------------------------------------------------------------- probabilities
def score_families(
    models: Families, panels: Panels, start_ms: int, end_ms: int, incumbent: Families | None = None
) -> dict[str, Any]:
    """Scores of each family and of both together, on labels that live inside [start, end).

    `incumbent` (a champion's families) is scored on the same rows; a family it lacks answers with the base rates.
    """
    report: dict[str, Any] = {}
    pooled: list[tuple[FloatArray, IntArray, FloatArray, FloatArray]] = []
    for family, model in models.items():
        sample = pool(panels.values(), family, start_ms, end_ms)
        if len(sample) == 0:
            continue
        base = np.tile(model.base_rates, (len(sample), 1))
        said = model.probabilities(sample.features)
        former = incumbent.get(family) if incumbent else None
        other = base if former is None else former.probabilities(sample.features)
        report[family.value] = score_probabilities(said, sample.labels, base, CLASS_NAMES)
        pooled.append((said, sample.labels, base, other))
    if pooled:
        said, labels, base, other = (np.concatenate(part) for part in zip(*pooled, strict=True))
        report["pooled"] = score_probabilities(said, labels, base, CLASS_NAMES)
        if incumbent is not None:
            report["incumbent_log_loss"] = score_probabilities(other, labels, base, CLASS_NAMES)["log_loss"]
    return report


def best_single_features(panels: Panels, start_ms: int, end_ms: int) -> dict[str, Any]:
    """For each family and winning side the feature that alone separates it best, with its AUC (≥ 0.5)."""
    report: dict[str, Any] = {}
    names = next(iter(panels.values())).names
    for family in FAMILIES:
        sample = pool(panels.values(), family, start_ms, end_ms).take(slice(None, None, _EVERY_HOUR))
        if len(sample) == 0:
            continue
        best = {}
        for side, name in enumerate(CLASS_NAMES[:2]):
            happened = (sample.labels == side).astype(np.float64)
            areas = np.array([auc(sample.features[:, j].astype(np.float64), happened) for j in range(len(names))])
            areas = np.maximum(areas, 1 - areas)
            at = int(np.argmax(areas))
            best[name] = {"feature": names[at], "auc": float(areas[at])}
        report[family.value] = best
    return report


# ---------------------------------------------------------------------------------------------------------- whole chain
def forecasts(version: str, models: Families, panels: Panels) -> dict[str, Forecast]:
    """The models' answers at every bar of every symbol."""
    model = LoadedModel(version, from_ms(0), next(iter(panels.values())).names, models)
    return {symbol: model_forecast(model, panel.matrix, panel.families) for symbol, panel in panels.items()}


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
    trades = replay(series, params, start_ms, end_ms, title="Validation").run.trades
    return TradeSample(
        np.array([trade.net_r for trade in trades], dtype=np.float64),
        np.array([trade.entry_ms for trade in trades], dtype=np.int64),
    )


# --------------------------------------------------------------------------------------------------------- walk-forward
def walk_forward(
    panels: Panels,
    folds: Sequence[Fold],
    instruments: Mapping[str, Instrument],
    params: StrategyParams,
    training: TrainingParams,
) -> dict[str, Any]:
    """Fit and score each fold, then trade all of their forecasts in one run of the chain. JSON-able."""
    reports: list[dict[str, Any]] = []
    answers: dict[str, Forecast] = {}
    for fold in folds:
        models, skipped = fit_families(panels, fold.start_ms, fold.train_end_ms, training.fit)
        if not models:
            reports.append({"skipped": skipped})
            continue
        scores = score_families(models, panels, fold.test_start_ms, fold.test_end_ms)
        pooled = scores.get("pooled", {})
        reports.append(
            {
                "test_start_ms": fold.test_start_ms,
                "test_end_ms": fold.test_end_ms,
                "rows": pooled.get("rows", 0),
                "log_loss": pooled.get("log_loss"),
                "base_log_loss": pooled.get("base_log_loss"),
                "log_loss_gain": pooled.get("log_loss_gain"),
                "skipped": skipped,
            }
        )
        answers = _overlay(answers, forecasts("walk-forward", models, panels), panels, fold)
    report: dict[str, Any] = {"folds": reports}
    gains = [fold["log_loss_gain"] for fold in reports if fold.get("log_loss_gain") is not None]
    if gains:
        rows = [fold["rows"] for fold in reports if fold.get("log_loss_gain") is not None]
        report["log_loss_gain"] = float(np.average(gains, weights=rows))
        report["folds_above_base_rate"] = int(np.sum(np.array(gains) > 0))
    if answers:
        trades = chain_trades(panels, answers, instruments, params, folds[0].test_start_ms, folds[-1].test_end_ms)
        report["trades"] = score_trades(trades, training).to_dict()
    return report


def _overlay(
    answers: Mapping[str, Forecast], fold_answers: Mapping[str, Forecast], panels: Panels, fold: Fold
) -> dict[str, Forecast]:
    """The answers so far, with one fold's inside its own test range and nowhere else."""
    merged: dict[str, Forecast] = {}
    for symbol, new in fold_answers.items():
        times = panels[symbol].bars.open_time_ms
        inside = (times >= fold.test_start_ms) & (times < fold.test_end_ms)
        empty = np.full(len(times), np.nan)
        old = answers.get(symbol, Forecast(empty, empty, empty, empty, new.model_version))
        merged[symbol] = Forecast(
            np.where(inside, new.p_long, old.p_long),
            np.where(inside, new.p_short, old.p_short),
            np.where(inside, new.expected_r_long, old.expected_r_long),
            np.where(inside, new.expected_r_short, old.expected_r_short),
            new.model_version,
        )
    return merged


def require_instruments(symbols: Sequence[str], instruments: Mapping[str, Instrument]) -> None:
    """Raises StopError naming the symbols whose rules are unknown: without fees and steps no result is honest."""
    unknown = [symbol for symbol in symbols if symbol not in instruments]
    if unknown:
        raise StopError(f"the exchange does not list {', '.join(unknown)}: remove them from TRADEWIND_SYMBOLS")
