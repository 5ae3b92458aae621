"""The drift report: do the inputs, the probabilities and the results still look as they did in training?"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

import numpy as np

from tradewind.core.dataset import SymbolPanel, build_panel, pool
from tradewind.core.ensemble import LoadedModel
from tradewind.core.features import FEATURE_NAMES, LIVE_WINDOW_BARS
from tradewind.core.labels import CLASS_NAMES
from tradewind.core.ports import Ports
from tradewind.core.scoring import bin_shares, calibration_error, population_stability
from tradewind.core.timeframes import timeframe_ms, to_ms
from tradewind.errors import ModelUnavailable
from tradewind.jobs.fetching import market_symbols

WINDOW_DAYS: Final = 28  # two weeks and less are mostly one weather: slow features always look moved
PSI_MOVED: Final = 0.25
MOVED_SHARE_ALARM: Final = 0.4
CALIBRATION_ALARM: Final = 0.12
MIN_LABELS: Final = 500
MIN_TRADES: Final = 20


def measure_drift(ports: Ports) -> dict[str, Any]:
    """Compare the last four weeks with the champion's training, store the report, and say whether it is alarming.

    Alarms: many features' PSI above 0.25; calibration error on settled labels above its limit; realised R of closed
    trades below what was expected of them by more than chance. An alarm starts a training, never a promotion. Without a
    champion there is nothing to compare and nothing is stored.
    """
    now = ports.clock.now()
    try:
        model = ports.model_store.champion()
    except ModelUnavailable as error:
        return {"alarmed": False, "version": None, "reason": str(error)}
    if not isinstance(model, LoadedModel):
        return {"alarmed": False, "version": None, "reason": "no champion"}
    panels = _recent_panels(ports)
    since_ms = to_ms(now - timedelta(days=WINDOW_DAYS))

    report: dict[str, Any] = {
        "window_days": WINDOW_DAYS,
        **_feature_drift(panels, ports.model_store.reference(model.version), since_ms),
        **_calibration(model, panels, since_ms, to_ms(now)),
        **_results(ports, since_days=WINDOW_DAYS),
    }
    reasons = [name for name in ("features", "calibration", "results") if report[f"{name}_alarm"]]
    alarmed = bool(reasons)
    report["reasons"] = reasons

    ports.model_store.insert_drift(now, model.version, alarmed, report)
    if alarmed:
        body = f"model {model.version}: {', '.join(reasons)}; a training is started, the champion stays until beaten"
        ports.alerts.raise_alert("warning", "model-drift", "The market no longer looks like the training", body)
    return {"alarmed": alarmed, "version": model.version, "reasons": reasons}


def _recent_panels(ports: Ports) -> list[SymbolPanel]:
    params = ports.params
    step_ms = timeframe_ms(params.decision_timeframe)
    count = LIVE_WINDOW_BARS + WINDOW_DAYS * 96
    end_ms = to_ms(ports.clock.now()) - step_ms + 1
    bars = ports.market_store.read_last_bars(market_symbols(ports), params.decision_timeframe, end_ms, count)
    leader = bars[params.leader_symbol]
    return [build_panel(bars[symbol], leader, params) for symbol in ports.symbols if len(bars[symbol]) and len(leader)]


def _feature_drift(panels: list[SymbolPanel], reference: dict[str, Any], since_ms: int) -> dict[str, Any]:
    parts = [panel.features[panel.complete & (panel.bars.open_time_ms >= since_ms)] for panel in panels]
    rows = np.concatenate(parts).astype(np.float64) if parts else np.empty((0, len(FEATURE_NAMES)))
    if len(rows) < MIN_LABELS:
        return {"features_alarm": False, "rows": len(rows), "psi": {}}
    psi = {}
    for column, name in enumerate(FEATURE_NAMES):
        expected = reference[name]
        shares = bin_shares(rows[:, column], np.array(expected["edges"]))
        psi[name] = population_stability(np.array(expected["shares"]), shares)
    moved = sum(value > PSI_MOVED for value in psi.values()) / len(psi)
    return {"features_alarm": moved > MOVED_SHARE_ALARM, "rows": len(rows), "psi": psi, "psi_moved_share": moved}


def _calibration(model: LoadedModel, panels: list[SymbolPanel], since_ms: int, end_ms: int) -> dict[str, Any]:
    """Calibration error per class over the settled labels of the window, families together."""
    said, labels = [], []
    for family, fitted in model.families.items():
        sample = pool(panels, family, since_ms, end_ms) if panels else None
        if sample is not None and len(sample):
            said.append(fitted.probabilities(sample.features))
            labels.append(sample.labels)
    settled = sum(len(part) for part in labels)
    if settled < MIN_LABELS:
        return {"calibration_alarm": False, "labels": settled, "calibration_error": {}}
    p, y = np.concatenate(said), np.concatenate(labels)
    errors = {name: calibration_error(p[:, c], (y == c).astype(np.float64)) for c, name in enumerate(CLASS_NAMES)}
    return {
        "calibration_alarm": max(errors.values()) > CALIBRATION_ALARM,
        "labels": settled,
        "calibration_error": errors,
    }


def _results(ports: Ports, since_days: int) -> dict[str, Any]:
    """Realised against expected R of the trades closed in the window."""
    closed = ports.trading_store.closed_trades(ports.clock.now() - timedelta(days=since_days))
    realised = np.array([trade.net_r for trade in closed], dtype=np.float64)
    expected = np.array([ports.trading_store.intent(trade.position_id).expected_r for trade in closed])
    if len(closed) < MIN_TRADES:
        return {"results_alarm": False, "trades": len(closed)}
    gap = realised - expected
    # Two standard errors: worse than expected by more than chance.
    bound = float(gap.mean() + 2 * gap.std(ddof=1) / np.sqrt(len(gap)))
    return {
        "results_alarm": bound < 0,
        "trades": len(closed),
        "realised_r": float(realised.mean()),
        "expected_r": float(expected.mean()),
    }
