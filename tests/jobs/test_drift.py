"""Drift: a market like the training's is quiet, another one is told; results worse than luck allows are told too."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.support.model_rig import ModelRig
from tests.support.toy_market import toy_bars
from tradewind.core.boosters import BoosterSettings
from tradewind.core.ensemble import FitSettings
from tradewind.core.types import Bars
from tradewind.core.validation import TrainingParams
from tradewind.jobs.drift import CALIBRATION_ALARM, MIN_TRADES, PSI_MOVED, measure_drift
from tradewind.jobs.training import retrain_models

SYMBOLS = ("BTC/USDT", "ETH/USDT")
TRAINED = 10_000
FOUR_WEEKS = 28 * 96
TRAINING = TrainingParams(folds=0, min_history_days=40, fit=FitSettings(boosters=BoosterSettings(max_rounds=25)))


def market(symbol: str, change: Mapping[str, float]) -> Bars:
    """Bars that are what they were until the training's end; then `wild` widens moves, `busy` makes volumes jump."""
    bars = toy_bars(symbol, TRAINED + FOUR_WEEKS, seed=5, tide=0.2)
    steps = np.diff(np.log(bars.close), prepend=np.log(bars.open[0]))
    steps[TRAINED:] *= change.get("wild", 1.0)
    factor = np.exp(np.log(bars.open[0]) + np.cumsum(steps)) / bars.close
    volume = bars.volume.copy()
    volume[TRAINED:] *= np.exp(change.get("busy", 0.0) * np.random.default_rng(1).standard_normal(FOUR_WEEKS))
    prices = {name: np.round(getattr(bars, name) * factor, 6) for name in ("open", "high", "low", "close")}
    return replace(bars, **prices, volume=volume)


@dataclass
class Traded:
    """A ledger of closed trades with what was expected of each."""

    realised: np.ndarray
    expected_r: float

    def closed_trades(self, since: datetime) -> list[Any]:
        return [SimpleNamespace(position_id=str(i), net_r=r) for i, r in enumerate(self.realised)]

    def intent(self, intent_id: str) -> Any:
        return SimpleNamespace(expected_r=self.expected_r)


@pytest.fixture
def rig(postgres_url: str, tmp_path: Path) -> Iterator[ModelRig]:
    rig = ModelRig(postgres_url, tmp_path, {symbol: market(symbol, {}).slice(0, TRAINED) for symbol in SYMBOLS})
    version = retrain_models(rig, "test", TRAINING)["version"]
    rig.database.execute("UPDATE model_gates SET passed = true")
    rig.model_store.promote(version, "test", rig.clock.now())
    yield rig
    rig.close()


def go_on(rig: ModelRig, **change: float) -> dict[str, Any]:
    """Let four more weeks pass and measure; returns the stored report."""
    for symbol in SYMBOLS:
        rig.market_store.insert_candles([market(symbol, change).slice(TRAINED, TRAINED + FOUR_WEEKS)])
    rig.clock.at += timedelta(minutes=15 * FOUR_WEEKS)
    measure_drift(rig)
    row = rig.database.row("SELECT alarmed, report FROM drift_reports ORDER BY at DESC LIMIT 1")
    assert row is not None
    return {"alarmed": row["alarmed"], **row["report"]}


def test_a_market_that_goes_on_as_it_was_is_quiet(rig: ModelRig) -> None:
    report = go_on(rig)
    assert report["reasons"] == []
    assert not report["alarmed"]
    assert report["psi_moved_share"] < 0.3
    assert max(report["calibration_error"].values()) < CALIBRATION_ALARM
    assert rig.database.row("SELECT 1 FROM alerts WHERE key = 'model-drift'") is None


def test_another_market_is_told_feature_by_feature(rig: ModelRig) -> None:
    report = go_on(rig, wild=10.0, busy=4.0)
    assert "features" in report["reasons"]
    assert report["psi"]["volume_ratio_20"] > PSI_MOVED
    assert report["psi"]["natr"] > PSI_MOVED
    assert report["psi"]["day_sin"] < PSI_MOVED
    alert = rig.database.row("SELECT body FROM alerts WHERE key = 'model-drift'")
    assert alert is not None
    assert "features" in alert["body"]


@pytest.mark.parametrize(
    ("mean_r", "count", "alarm"), [(0.3, 60, False), (-0.6, 60, True), (-0.6, MIN_TRADES - 1, False)]
)
def test_results_below_what_was_expected_by_more_than_chance_are_told(
    rig: ModelRig, mean_r: float, count: int, alarm: bool
) -> None:
    rig.trading_store = Traded(np.random.default_rng(2).normal(mean_r, 1.0, count), 0.3)  # type: ignore[assignment]
    report = measure_drift(rig)
    assert ("results" in report["reasons"]) is alarm
