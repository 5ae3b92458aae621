"""The jobs of `retrain_models` and of the drift report: stored candles in, a judged version out, champion or not."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any, Final

import numpy as np

from tradewind.core.dataset import SymbolPanel, bars_sha256, build_panel, first_complete_ms, pool
from tradewind.core.ensemble import FamilyModel, LoadedModel
from tradewind.core.features import FEATURE_NAMES, features_hash, longest_warmup_bars
from tradewind.core.ports import Ports
from tradewind.core.regime import FAMILIES, regime_warmup_bars
from tradewind.core.scoring import bin_shares, decile_edges
from tradewind.core.timeframes import from_ms, timeframe_ms, to_ms
from tradewind.core.types import Bars, RegimeFamily
from tradewind.core.validation import (
    Gate,
    TradeScores,
    TrainingParams,
    Windows,
    judge,
    passed,
    plan_windows,
    score_trades,
)
from tradewind.errors import BadInput, MissingData, ModelUnavailable
from tradewind.fingerprint import code_sha256
from tradewind.jobs.drift import measure_drift
from tradewind.jobs.judging import (
    best_single_features,
    chain_trades,
    fit_families,
    forecasts,
    require_instruments,
    score_families,
    walk_forward,
)
from tradewind.jobs.tuning import tune_families

__all__ = ["measure_drift", "retrain_models"]

ACTOR: Final = "retrain_models"


def retrain_models(ports: Ports, reason: str, training: TrainingParams | None = None) -> dict[str, Any]:
    """Train a challenger on the stored candles, judge it, and promote it when every gate passes.

    The version is named after its data, code and settings, so that the same training gives the same version. Returns a
    small report; the whole one lies in the manifest. A failure is recorded, raises an alert and touches no champion.

    Raises
    ------
    MissingData : no candles of the leader. BadInput : too little history. Whatever else a fit dies of.
    """
    training = training or TrainingParams()
    now = ports.clock.now()
    run_id = f"{now:%Y%m%dT%H%M%SZ}-{hashlib.sha256(reason.encode()).hexdigest()[:8]}"
    ports.model_store.start_training(run_id, reason, now)
    try:
        report = _train(ports, reason, training, now)
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
        ports.model_store.finish_training(run_id, "failed", {"error": said}, ports.clock.now())
        ports.alerts.raise_alert("warning", "training-failed", "Training failed; the champion stays", said)
        raise
    ports.model_store.finish_training(run_id, "done", report, ports.clock.now())
    ports.metrics.count("tradewind.training.done", promoted=str(report["promoted"]).lower())
    return report


def _train(ports: Ports, reason: str, training: TrainingParams, now: datetime) -> dict[str, Any]:
    bars = _load_bars(ports, training, now)
    instruments = ports.market_data.instruments(tuple(bars))
    require_instruments(tuple(bars), instruments)
    version = _version_name(bars, ports, training)
    if ports.model_store.has_version(version):
        return {"version": version, "promoted": False, "unchanged": True, "gates": {}}

    leader = bars[ports.params.leader_symbol]
    panels = {symbol: build_panel(series, leader, ports.params) for symbol, series in bars.items()}
    windows = _windows(panels, training)
    validation = walk_forward(panels, windows.folds, instruments, ports.params, training)
    tuned, tuning_report = tune_families(ports, panels, windows, training)
    models, skipped = fit_families(panels, windows.start_ms, windows.fit_end_ms, training.fit, tuned)
    if not models:
        raise BadInput(f"no family could be fitted ({skipped}): load more history")
    _alert_failed_libraries(ports, models)

    scores = score_families(
        models, panels, windows.promotion_start_ms, windows.promotion_end_ms, _incumbent_families(ports)
    )
    if "pooled" not in scores:
        raise BadInput("no settled label in the promotion window: load more recent history")
    trades = score_trades(
        chain_trades(
            panels,
            forecasts(version, models, panels),
            instruments,
            ports.params,
            windows.promotion_start_ms,
            windows.promotion_end_ms,
        ),
        training,
    )
    about = {"days": round(windows.promotion_days, 2), "shortened": windows.shortened}
    pooled = scores["pooled"]
    gates = judge(
        pooled["log_loss"], pooled["base_log_loss"], scores.get("incumbent_log_loss"), trades, training, about
    )
    metrics = _plain(
        {
            "promotion": {**scores, "trades": trades.to_dict(), **about},
            "walk_forward": validation,
            "best_single_feature": best_single_features(panels, windows.start_ms, windows.promotion_end_ms),
        }
    )
    manifest = {
        **_describe(ports, bars, training, windows, models, skipped),
        "reason": reason,
        "tuning": _plain(tuning_report),
        "created_at": now.isoformat(),
        "metrics": metrics,
    }
    ports.model_store.save(
        version,
        models,
        _reference(panels, windows),
        manifest,
        [Gate(gate.name, gate.passed, _plain(gate.numbers)) for gate in gates],
        trained_from=from_ms(windows.start_ms),
        trained_until=from_ms(windows.promotion_end_ms),
        at=now,
    )
    promoted = passed(gates)
    if promoted:
        ports.model_store.promote(version, ACTOR, ports.clock.now(), reason=reason)
    return _report(version, promoted, gates, trades, pooled, windows)


# ----------------------------------------------------------------------------------------------------------------- load
def _load_bars(ports: Ports, training: TrainingParams, now: datetime) -> dict[str, Bars]:
    """Closed bars of all symbols and the leader; symbols without enough of them are left out."""
    params = ports.params
    step_ms = timeframe_ms(params.decision_timeframe)
    end_ms = to_ms(now) - step_ms + 1
    wanted = tuple(dict.fromkeys((*ports.symbols, params.leader_symbol)))
    start_ms = to_ms(now - timedelta(days=training.history_days))
    bars = ports.market_store.read_bars(wanted, params.decision_timeframe, start_ms, end_ms)
    if len(bars[params.leader_symbol]) == 0:
        raise MissingData(f"{params.leader_symbol}, the market leader, has no 15m bars: load its history first")
    least = max(longest_warmup_bars(), regime_warmup_bars(params)) + params.horizon_bars
    kept = {symbol: series for symbol, series in bars.items() if len(series) > least}
    if params.leader_symbol not in kept:
        raise BadInput(f"{params.leader_symbol} has fewer than {least} 15m bars: load more history")
    return kept


def _windows(panels: Mapping[str, SymbolPanel], training: TrainingParams) -> Windows:
    start_ms = first_complete_ms(panels.values())
    if start_ms is None:
        raise BadInput("no bar has all its features: load more history, or fill its gaps")
    end_ms = max(int(panel.bars.open_time_ms[-1]) for panel in panels.values())
    try:
        return plan_windows(start_ms, end_ms, training)
    except ValueError as error:
        raise BadInput(str(error)) from error


def _version_name(bars: Mapping[str, Bars], ports: Ports, training: TrainingParams) -> str:
    last_ms = max(int(series.open_time_ms[-1]) for series in bars.values())
    inputs = "\n".join((bars_sha256(bars), code_sha256(), ports.params.hash, repr(training), features_hash()))
    return f"{from_ms(last_ms):%Y%m%dT%H%M}-{hashlib.sha256(inputs.encode()).hexdigest()[:10]}"


def _incumbent_families(ports: Ports) -> Mapping[RegimeFamily, FamilyModel] | None:
    """The champion to beat; one that cannot be used beats nobody."""
    try:
        champion = ports.model_store.champion()
    except ModelUnavailable:
        return None
    return champion.families if isinstance(champion, LoadedModel) else None


# ----------------------------------------------------------------------------------------------------------------- save
def _alert_failed_libraries(ports: Ports, models: Mapping[RegimeFamily, FamilyModel]) -> None:
    for family, model in models.items():
        for library, said in model.failures.items():
            title = f"{library} could not be fitted for the {family} family"
            ports.alerts.raise_alert("warning", f"training-{library}-{family}", title, said[:2000])


def _describe(
    ports: Ports,
    bars: Mapping[str, Bars],
    training: TrainingParams,
    windows: Windows,
    models: Mapping[RegimeFamily, FamilyModel],
    skipped: Mapping[str, str],
) -> dict[str, Any]:
    """What the version is made of; scores are added by the caller, files by the store."""
    described: dict[str, Any] = {
        "format": 1,
        "code_sha256": code_sha256(),
        "features": list(FEATURE_NAMES),
        "features_hash": features_hash(),
        "params_hash": ports.params.hash,
        "leader": ports.params.leader_symbol,
        "symbols": {symbol: len(series) for symbol, series in bars.items()},
        "bars_sha256": bars_sha256(bars),
        "training": asdict(training),
        "windows": asdict(windows),
        "skipped_families": dict(skipped),
        "families": {
            family.value: {
                "rows": model.rows,
                "base_rates": model.base_rates,
                "mean_net_r_long": model.mean_net_r_long,
                "mean_net_r_short": model.mean_net_r_short,
                "rounds": {booster.library: booster.rounds for booster in model.boosters},
                "calibrator": model.calibrator.to_dict(),
                "failures": dict(model.failures),
            }
            for family, model in models.items()
        },
    }
    return _plain(described)  # type: ignore[no-any-return]  # a dict stays one


def _reference(panels: Mapping[str, SymbolPanel], windows: Windows) -> dict[str, Any]:
    """Deciles of each feature over the rows that were fitted, and how many fell into each bin."""
    samples = [pool(panels.values(), family, windows.start_ms, windows.fit_end_ms).features for family in FAMILIES]
    features = np.concatenate(samples).astype(np.float64)
    reference = {}
    for column, name in enumerate(FEATURE_NAMES):
        edges = decile_edges(features[:, column])
        reference[name] = {"edges": edges.tolist(), "shares": bin_shares(features[:, column], edges).tolist()}
    return reference


def _plain(value: Any) -> Any:
    """JSON-able: tuples to lists, NumPy numbers to Python's, NaN and infinity (which JSON lacks) to None."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


def _report(
    version: str, promoted: bool, gates: list[Gate], trades: TradeScores, pooled: Mapping[str, Any], windows: Windows
) -> dict[str, Any]:
    return {
        "version": version,
        "promoted": promoted,
        "gates": {gate.name: gate.passed for gate in gates},
        "log_loss": pooled["log_loss"],
        "base_log_loss": pooled["base_log_loss"],
        "trades": trades.to_dict(),
        "promotion_days": round(windows.promotion_days, 2),
        "shortened": windows.shortened,
    }
