"""From bars to a judged challenger: panels, walk-forward, search, fit, gates. Stores nothing and asks no server."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tradewind.core.boosters import BoosterSettings
from tradewind.core.dataset import SymbolPanel, bars_sha256, build_panel, first_complete_ms, pool
from tradewind.core.ensemble import FamilyModel
from tradewind.core.features import FEATURE_NAMES, features_hash
from tradewind.core.overfitting import by_period, deflated_sharpe
from tradewind.core.params import StrategyParams
from tradewind.core.regime import FAMILIES, REGIMES, measure_regime, regime_codes, regime_shares
from tradewind.core.scoring import bin_shares, decile_edges
from tradewind.core.timeframes import from_ms
from tradewind.core.types import Bars, Instrument, RegimeFamily
from tradewind.core.validation import (
    DAY_MS,
    Gate,
    TradeSample,
    TradeScores,
    TrainingParams,
    Windows,
    judge,
    passed,
    plan_windows,
    score_trades,
)
from tradewind.errors import BadInput
from tradewind.fingerprint import code_sha256, formulas_sha256
from tradewind.jobs.judging import ask_families, best_single_features, fit_families, incumbent_log_loss, score_answers
from tradewind.jobs.tuning import tune_families
from tradewind.jobs.walking import chain_trades, forecasts, require_instruments, walk_forward

TunedSettings = Mapping[str, Mapping[str, BoosterSettings]]


@dataclass(frozen=True, slots=True)
class Rival:
    """What a challenger meets: the champion's families (none: the base rate), its settings, and how often was tried."""

    families: Mapping[RegimeFamily, FamilyModel] | None = None
    settings: TunedSettings | None = None
    trials: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Challenger:
    """A fitted, judged model that no registry knows yet. `manifest` and `reference` are JSON-able."""

    version: str
    models: Mapping[RegimeFamily, FamilyModel]
    gates: tuple[Gate, ...]
    trades: TradeScores
    windows: Windows
    reference: Mapping[str, Any]
    manifest: Mapping[str, Any]

    @property
    def passed(self) -> bool:
        return passed(self.gates)

    @property
    def pooled(self) -> Mapping[str, Any]:
        """Scores of both families together in the promotion window."""
        scores: Mapping[str, Any] = self.manifest["metrics"]["promotion"]["pooled"]
        return scores


def version_name(bars: Mapping[str, Bars], params: StrategyParams, training: TrainingParams) -> str:
    """Named after data, code and settings, so that the same training is the same version."""
    last_ms = max(int(series.open_time_ms[-1]) for series in bars.values())
    inputs = "\n".join((bars_sha256(bars), code_sha256(), params.hash, repr(training), features_hash()))
    return f"{from_ms(last_ms):%Y%m%dT%H%M}-{hashlib.sha256(inputs.encode()).hexdigest()[:10]}"


def make_challenger(
    bars: Mapping[str, Bars],
    instruments: Mapping[str, Instrument],
    params: StrategyParams,
    training: TrainingParams,
    rival: Rival,
    say: Callable[[str], None] = lambda _step: None,
) -> Challenger:
    """Train on the bars and judge the result on the window later than every fit; deterministic for a seed.

    Raises BadInput for too little history, MissingData without the leader, StopError for a symbol without rules.
    """
    require_instruments(tuple(bars), instruments)
    version = version_name(bars, params, training)
    say("features, regimes and labels")
    leader = bars[params.leader_symbol]
    panels = {symbol: build_panel(series, leader, params) for symbol, series in bars.items()}
    windows = _windows(panels, training)
    say(f"walk-forward over {len(windows.folds)} folds")
    validation, walked = walk_forward(panels, windows.folds, instruments, params, training)
    if training.tuning_trials:
        say(f"search, {training.tuning_trials} trials a library")
    tuned, tuning_report = tune_families(panels, windows, training, rival.settings or {})
    say("the challenger's own fit")
    models, skipped = fit_families(panels, windows.start_ms, windows.fit_end_ms, training.fit, tuned)
    if not models:
        raise BadInput(f"no family could be fitted ({skipped}): load more history")

    say("promotion window")
    window = (windows.promotion_start_ms, windows.promotion_end_ms)
    answers = ask_families(models, panels, *window)
    if not answers:
        raise BadInput("no settled label in the promotion window: load more recent history")
    promotion = score_answers(answers)
    pooled = promotion["pooled"]
    if rival.families is not None:
        promotion["incumbent_log_loss"] = incumbent_log_loss(rival.families, answers)
    sample = chain_trades(panels, forecasts(version, models, panels, *window), instruments, params, *window)
    trades = score_trades(sample, training)
    about = {"days": round(windows.promotion_days, 2), "shortened": windows.shortened}
    gates = judge(
        pooled["log_loss"], pooled["base_log_loss"], promotion.get("incumbent_log_loss"), trades, training, about
    )
    metrics = {
        "promotion": {**promotion, "trades": trades.to_dict(), **about},
        "walk_forward": validation,
        "best_single_feature": best_single_features(panels, windows.start_ms, windows.promotion_end_ms),
        "regimes": _regimes(panels, params),
    }
    own_trials = 1 + sum(found["trials"] for family in tuning_report.values() for found in family.values())
    manifest = {
        "format": 1,
        "code_sha256": code_sha256(),
        "features": FEATURE_NAMES,
        "features_hash": features_hash(),
        "formulas_sha256": formulas_sha256(),
        "params_hash": params.hash,
        "leader": params.leader_symbol,
        "symbols": {symbol: len(series) for symbol, series in bars.items()},
        "bars_sha256": bars_sha256(bars),
        "training": asdict(training),
        "windows": asdict(windows),
        "skipped_families": skipped,
        "families": {family.value: _described(model) for family, model in models.items()},
        "tuning": tuning_report,
        "trials": own_trials,
        "selection": _selection(sample, walked, windows, rival.trials + own_trials),
        "metrics": metrics,
    }
    return Challenger(
        version,
        models,
        tuple(Gate(gate.name, gate.passed, plain(gate.numbers)) for gate in gates),
        trades,
        windows,
        _reference(panels, windows),
        plain(manifest),
    )


def _windows(panels: Mapping[str, SymbolPanel], training: TrainingParams) -> Windows:
    start_ms = first_complete_ms(panels.values())
    if start_ms is None:
        raise BadInput("no bar has all its features: load more history, or fill its gaps")
    end_ms = max(int(panel.bars.open_time_ms[-1]) for panel in panels.values())
    try:
        return plan_windows(start_ms, end_ms, training)
    except ValueError as error:
        raise BadInput(str(error)) from error


def _described(model: FamilyModel) -> dict[str, Any]:
    return {
        "rows": model.rows,
        "base_rates": model.base_rates,
        "mean_net_r_long": model.mean_net_r_long,
        "mean_net_r_short": model.mean_net_r_short,
        "rounds": {booster.library: booster.rounds for booster in model.boosters},
        "calibrator": model.calibrator.to_dict(),
        "failures": dict(model.failures),
    }


def _selection(promotion: TradeSample, walked: TradeSample, windows: Windows, trials: int) -> dict[str, Any]:
    """The Sharpe ratio of daily results in R, deflated by all that was tried.

    Not among the metrics: the number of trials is the registry's, not the data's.
    """
    found: dict[str, Any] = {"trials": trials}
    ranges = {"promotion": (promotion, windows.promotion_start_ms, windows.promotion_end_ms)}
    if windows.folds:
        ranges["walk_forward"] = (walked, windows.folds[0].test_start_ms, windows.folds[-1].test_end_ms)
    for name, (trades, start_ms, end_ms) in ranges.items():
        daily = by_period(trades.net_r, trades.entry_ms, start_ms, end_ms, DAY_MS)
        found[name] = asdict(deflated_sharpe(daily, trials))
    return found


def _regimes(panels: Mapping[str, SymbolPanel], params: StrategyParams) -> dict[str, Any]:
    """Share of time in each regime and transitions, all symbols together."""
    codes = [regime_codes(measure_regime(panel.bars, params), params) for panel in panels.values()]
    shares, transitions = regime_shares(codes)
    return {
        "names": [regime.value for regime in REGIMES],
        "shares": shares.tolist(),
        "transitions": transitions.tolist(),
    }


def _reference(panels: Mapping[str, SymbolPanel], windows: Windows) -> dict[str, Any]:
    """Deciles of each feature over the rows that were fitted, and how many fell into each bin."""
    samples = [pool(panels.values(), family, windows.start_ms, windows.fit_end_ms).features for family in FAMILIES]
    features = np.concatenate(samples)
    reference = {}
    for column, name in enumerate(FEATURE_NAMES):
        values = features[:, column].astype(np.float64)
        edges = decile_edges(values)
        reference[name] = {"edges": edges.tolist(), "shares": bin_shares(values, edges).tolist()}
    return reference


def plain(value: Any) -> Any:
    """JSON-able: tuples to lists, NumPy numbers to Python's, NaN and infinity (which JSON lacks) to None."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value
