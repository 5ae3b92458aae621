"""The job of `retrain_models`: stored candles in, a judged version out, champion or not."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from tradewind.backtest.instruments import judged_fees
from tradewind.core.boosters import BoosterSettings
from tradewind.core.ensemble import LoadedModel
from tradewind.core.features import longest_warmup_bars
from tradewind.core.ports import Ports
from tradewind.core.regime import regime_warmup_bars
from tradewind.core.timeframes import from_ms, timeframe_ms, to_ms
from tradewind.core.types import Bars
from tradewind.core.validation import TrainingParams
from tradewind.errors import BadInput, MissingData, ModelUnavailable
from tradewind.jobs.challenger import Challenger, Rival, make_challenger, version_name
from tradewind.jobs.drift import measure_drift
from tradewind.jobs.fetching import market_symbols

__all__ = ["measure_drift", "retrain_models"]

ACTOR: Final = "retrain_models"


def retrain_models(ports: Ports, reason: str, training: TrainingParams | None = None) -> dict[str, Any]:
    """Train a challenger on the stored candles, judge it, and promote it when every gate passes.

    The version is named after its data, code and settings, so that the same training gives the same version. Returns a
    small report; the whole one lies in the manifest. A failure is recorded, raises an alert and touches no champion.

    Raises
    ------
    MissingData : no candles of the leader. BadInput : too little history, or the strategy's values cannot be used.
    Whatever else a fit dies of.
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
    if error := ports.params_error:
        raise BadInput(error)
    bars = _load_bars(ports, training, now)
    version = version_name(bars, ports.params, training)
    if ports.model_store.has_version(version):
        return {"version": version, "promoted": False, "unchanged": True, "gates": {}}
    published = ports.market_data.instruments(tuple(bars))
    instruments = {symbol: judged_fees(rules, ports.params) for symbol, rules in published.items()}
    rival = _rival(ports)

    challenger = make_challenger(bars, instruments, ports.params, training, rival)

    _alert_failures(ports, challenger)
    ports.model_store.save(
        version,
        challenger.models,
        challenger.reference,
        {**challenger.manifest, "reason": reason, "created_at": now.isoformat()},
        challenger.gates,
        trained_from=from_ms(challenger.windows.start_ms),
        trained_until=from_ms(challenger.windows.promotion_end_ms),
        at=now,
    )
    if challenger.passed:
        ports.model_store.promote(version, ACTOR, ports.clock.now(), reason=reason)
    return _report(challenger)


# ----------------------------------------------------------------------------------------------------------------- load
def _load_bars(ports: Ports, training: TrainingParams, now: datetime) -> dict[str, Bars]:
    """Closed bars of all symbols and the leader; symbols without enough of them are left out."""
    params = ports.params
    step_ms = timeframe_ms(params.decision_timeframe)
    end_ms = to_ms(now) - step_ms + 1
    start_ms = to_ms(now - timedelta(days=training.history_days))
    bars = ports.market_store.read_bars(market_symbols(ports), params.decision_timeframe, start_ms, end_ms)
    if len(bars[params.leader_symbol]) == 0:
        raise MissingData(f"{params.leader_symbol}, the market leader, has no 15m bars: load its history first")
    least = max(longest_warmup_bars(), regime_warmup_bars(params)) + params.horizon_bars
    kept = {symbol: series for symbol, series in bars.items() if len(series) > least}
    if params.leader_symbol not in kept:
        raise BadInput(f"{params.leader_symbol} has fewer than {least} 15m bars: load more history")
    return kept


def _rival(ports: Ports) -> Rival:
    """The champion to beat and where its search ended; one that cannot be used beats nobody."""
    trials = ports.model_store.trials()
    try:
        champion = ports.model_store.champion()
    except ModelUnavailable:
        return Rival(trials=trials)
    if not isinstance(champion, LoadedModel):
        return Rival(trials=trials)
    manifest = ports.model_store.version(champion.version)["manifest"]
    return Rival(champion.families, _settings_of(manifest), trials)


def _settings_of(manifest: Mapping[str, Any]) -> dict[str, dict[str, BoosterSettings]]:
    """What each family's libraries were fitted with: where a search ended, else what the training was given."""
    given = manifest["training"]["fit"]["boosters"]
    tuning = manifest.get("tuning", {})
    return {
        family: {
            library: BoosterSettings(**tuning.get(family, {}).get(library, {"settings": given})["settings"])
            for library in about["rounds"]
        }
        for family, about in manifest["families"].items()
    }


# ----------------------------------------------------------------------------------------------------------------- save
def _alert_failures(ports: Ports, challenger: Challenger) -> None:
    """One alert for each library that could not be fitted, and one where a search ran out of time."""
    for family, model in challenger.models.items():
        for library, said in model.failures.items():
            title = f"{library} could not be fitted for the {family} family"
            ports.alerts.raise_alert("warning", f"training-{library}-{family}", title, said[:2000])
    hurried = [
        f"{library} of the {family} family after {found['trials']} trials"
        for family, libraries in challenger.manifest["tuning"].items()
        for library, found in libraries.items()
        if found["aborted_by_time"]
    ]
    if hurried:
        title = "The search for settings was cut off by its time limit"
        ports.alerts.raise_alert("info", "training-tuning-cut", title, "; ".join(hurried))


def _report(challenger: Challenger) -> dict[str, Any]:
    pooled, windows = challenger.pooled, challenger.windows
    return {
        "version": challenger.version,
        "promoted": challenger.passed,
        "gates": {gate.name: gate.passed for gate in challenger.gates},
        "log_loss": pooled["log_loss"],
        "base_log_loss": pooled["base_log_loss"],
        "trades": challenger.trades.to_dict(),
        "promotion_days": round(windows.promotion_days, 2),
        "shortened": windows.shortened,
    }
