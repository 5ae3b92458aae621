"""Training end to end: a market with a tide gets a champion, one without never does, and failures touch nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from tests.support.model_rig import ModelRig
from tests.support.toy_market import toy_bars
from tradewind.core import boosters
from tradewind.core.boosters import BoosterSettings
from tradewind.core.ensemble import FitSettings, LoadedModel
from tradewind.core.features import compute_features
from tradewind.core.regime import classify_regimes
from tradewind.core.types import Bars
from tradewind.core.validation import TrainingParams
from tradewind.errors import BadInput, MissingData
from tradewind.jobs.regime import detect_regime
from tradewind.jobs.training import measure_drift, retrain_models

SYMBOLS = ("BTC/USDT", "ETH/USDT", "SOL/USDT", "XRP/USDT", "BNB/USDT")
TRAINING = TrainingParams(
    folds=1, promotion_share=0.35, min_history_days=40, fit=FitSettings(boosters=BoosterSettings(max_rounds=50))
)
Make = Callable[[dict[str, Bars]], ModelRig]


def market(seed: int, tide: float, count: int = 13_000, symbols: tuple[str, ...] = SYMBOLS) -> dict[str, Bars]:
    return {symbol: toy_bars(symbol, count, seed=seed, tide=tide) for symbol in symbols}


@pytest.fixture
def make(postgres_url: str, tmp_path: Path) -> Iterator[Make]:
    rigs: list[ModelRig] = []

    def build(bars: dict[str, Bars]) -> ModelRig:
        rigs.append(ModelRig(postgres_url, tmp_path, bars))
        return rigs[-1]

    yield build
    for rig in rigs:
        rig.close()


def test_a_market_with_structure_gets_a_champion_that_answers(make: Make) -> None:
    bars = market(3, 0.25)
    rig = make(bars)
    training = replace(TRAINING, folds=2, fold_days=17)
    report = retrain_models(rig, "test", training)
    assert report["promoted"], report
    assert all(report["gates"].values())
    assert report["trades"]["trades"] >= 50
    assert report["log_loss"] < report["base_log_loss"]
    assert report["shortened"]

    champion = rig.model_store.champion()
    assert isinstance(champion, LoadedModel)
    assert champion.version == report["version"]
    assert champion.trained_until == rig.clock.now() - timedelta(minutes=15)
    stored = rig.model_store.version(champion.version)
    manifest = stored["manifest"]
    assert {gate["gate"] for gate in stored["gates"]} == set(report["gates"])
    walked = manifest["metrics"]["walk_forward"]
    assert len(walked["folds"]) == 2
    assert all(fold["log_loss_gain"] > 0 for fold in walked["folds"])
    assert all({"classes", "trades", "brier", "resolution"} <= set(fold) for fold in walked["folds"])
    assert walked["pooled"]["log_loss"] < min(walked["pooled"]["members"].values()) + 0.01
    assert 0 <= walked["overfitting"]["probability"] <= 1
    assert manifest["selection"]["trials"] == 1
    assert manifest["selection"]["promotion"]["probability"] > 0.5
    assert sum(manifest["metrics"]["regimes"]["shares"]) == pytest.approx(1.0)
    assert manifest["windows"]["fit_end_ms"] < manifest["windows"]["promotion_start_ms"]
    assert set(manifest["families"]) == {"trending", "ranging"}

    rows, regimes = {}, {}
    for symbol, series in bars.items():
        window = series.slice(len(series) - 4800, len(series))
        lead = bars["BTC/USDT"].slice(len(series) - 4800, len(series))
        states = classify_regimes(window, rig.params)
        rows[symbol] = (states[-1].bar, compute_features(window, lead, rig.params).values[-1])
        regimes[symbol] = states[-1]
    predictions = champion.predict(rows, regimes)
    assert set(predictions) == {symbol for symbol, state in regimes.items() if state.family is not None}
    for prediction in predictions.values():
        assert prediction.p_long + prediction.p_short + prediction.p_neither == pytest.approx(1.0)

    # The same data, code and settings are the same version: nothing is trained or promoted twice.
    again = retrain_models(rig, "again", training)
    assert again == {"version": report["version"], "promoted": False, "unchanged": True, "gates": {}}
    states = rig.database.rows("SELECT state, reason FROM training_runs ORDER BY reason")
    assert [(row["reason"], row["state"]) for row in states] == [("again", "done"), ("test", "done")]

    drift = measure_drift(rig)
    assert drift["version"] == champion.version
    row = rig.database.row("SELECT * FROM drift_reports")
    assert row is not None
    assert row["alarmed"] == drift["alarmed"]
    assert set(row["report"]["calibration_error"]) == {"long_wins", "short_wins", "neither"}
    assert len(row["report"]["psi"]) == len(champion.feature_names)


@pytest.mark.parametrize("seed", [1, 2])
def test_a_market_without_structure_never_gets_one(make: Make, seed: int) -> None:
    rig = make(market(seed, 0.0, symbols=SYMBOLS[:3]))
    report = retrain_models(rig, "test", TRAINING)
    assert not report["promoted"]
    assert rig.model_store.champion() is None
    stored = rig.model_store.version(report["version"])
    assert stored["state"] == "challenger"
    assert not all(gate["passed"] for gate in stored["gates"])
    assert measure_drift(rig)["alarmed"] is False


def test_one_seed_gives_one_training(make: Make, tmp_path: Path) -> None:
    bars = market(4, 0.2, 9000, SYMBOLS[:2])
    rig = make(bars)
    digests, answers = [], []
    for name in ("one", "two"):
        rig.model_store = type(rig.model_store)(rig.database, (tmp_path / name).as_uri())
        version = retrain_models(rig, name, TRAINING)["version"]
        manifest = rig.model_store.version(version)["manifest"]
        digests.append(hashlib.sha256(json.dumps(manifest["metrics"], sort_keys=True).encode()).hexdigest())
        features = compute_features(bars["ETH/USDT"], bars["BTC/USDT"], rig.params).values[-500:].astype(np.float32)
        families = rig.model_store.load(version).families.values()
        answers.append(np.concatenate([family.probabilities(features) for family in families]))
        for table in ("model_gates", "model_events", "models"):
            rig.database.execute(f"DELETE FROM {table}")
    assert digests[0] == digests[1]
    assert np.abs(answers[0] - answers[1]).max() < 1e-9


def test_a_failed_training_keeps_the_champion_and_says_so(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = make(market(3, 0.25, 9000, SYMBOLS[:2]))
    report = retrain_models(rig, "first", TRAINING)
    rig.database.execute("UPDATE model_gates SET passed = true")
    rig.model_store.promote(report["version"], "test", rig.clock.now())

    def broken(*_: object) -> boosters.Booster:
        raise MemoryError("no room")

    monkeypatch.setattr(boosters, "_FITTERS", dict.fromkeys(boosters.LIBRARIES, broken))
    with pytest.raises(RuntimeError, match="no library"):
        retrain_models(rig, "second", replace(TRAINING, seed=8))
    champion = rig.model_store.champion()
    assert champion is not None
    assert champion.version == report["version"]
    run = rig.database.row("SELECT state, report FROM training_runs WHERE reason = 'second'")
    assert run is not None
    assert run["state"] == "failed"
    assert "no room" in run["report"]["error"]
    assert rig.database.row("SELECT 1 FROM alerts WHERE key = 'training-failed'") is not None


def test_one_library_failing_leaves_the_others_and_an_alarm(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> boosters.Booster:
        raise OSError("libgomp is gone")

    monkeypatch.setattr(boosters, "_FITTERS", {**boosters._FITTERS, "catboost": broken})
    rig = make(market(3, 0.25, 9000, SYMBOLS[:2]))
    report = retrain_models(rig, "test", TRAINING)
    loaded = rig.model_store.load(report["version"])
    for model in loaded.families.values():
        assert [booster.library for booster in model.boosters] == ["lightgbm", "xgboost"]
    keys = {row["key"] for row in rig.database.rows("SELECT key FROM alerts")}
    assert {"training-catboost-trending", "training-catboost-ranging"} <= keys


def test_a_search_is_budgeted_recorded_and_goes_on_from_the_champions_settings(make: Make) -> None:
    rig = make(market(3, 0.25, 9000, SYMBOLS[:2]))
    settings = FitSettings(libraries=("lightgbm",), boosters=BoosterSettings(max_rounds=25))
    training = replace(TRAINING, folds=0, fit=settings)
    report = retrain_models(rig, "tuned", replace(training, tuning_trials=3))
    tuning = rig.model_store.version(report["version"])["manifest"]["tuning"]
    assert set(tuning) == {"trending", "ranging"}
    for libraries in tuning.values():
        for found in libraries.values():
            assert found["trials"] == found["finished"] == 3
            assert not found["aborted_by_time"]
            assert found["best"] <= found["first"]

    rig.database.execute("UPDATE model_gates SET passed = true")
    rig.model_store.promote(report["version"], "test", rig.clock.now())
    later = retrain_models(rig, "tuned again", replace(training, tuning_trials=1))
    again = rig.model_store.version(later["version"])["manifest"]["tuning"]
    for family, libraries in again.items():
        for library, found in libraries.items():
            assert found["settings"] == pytest.approx(tuning[family][library]["settings"])

    hurried = replace(training, tuning_trials=40, tuning_timeout_s=0.001)
    version = retrain_models(rig, "hurried", hurried)["version"]
    for libraries in rig.model_store.version(version)["manifest"]["tuning"].values():
        assert all(found["aborted_by_time"] for found in libraries.values())
    assert rig.database.row("SELECT 1 FROM alerts WHERE key = 'training-tuning-cut'") is not None
    # Each version counts one, and each trial another.
    assert rig.model_store.trials() == sum(
        1 + sum(found["trials"] for libraries in stored["manifest"]["tuning"].values() for found in libraries.values())
        for stored in rig.model_store.versions()
    )


def test_too_little_history_and_a_missing_leader_are_said(make: Make) -> None:
    bars = market(1, 0.0, 6000, SYMBOLS[:2])
    rig = make(bars)
    with pytest.raises(BadInput, match="days of usable history"):
        retrain_models(rig, "short", TRAINING)
    rig.params = replace(rig.params, leader_symbol="DOGE/USDT")
    with pytest.raises(MissingData, match="DOGE/USDT"):
        retrain_models(rig, "leaderless", TRAINING)


def test_regimes_are_stored_once_and_continue_where_they_ended(make: Make) -> None:
    bars = market(2, 0.1, 6000, SYMBOLS[:2])
    rig = make(bars)
    now = rig.clock.now()
    first = detect_regime(rig, now - timedelta(hours=30))
    assert first["stored"] > 0
    assert detect_regime(rig, now - timedelta(hours=30))["stored"] == 0
    second = detect_regime(rig)
    assert second["stored"] == 2 * 120
    last = rig.state_store.last_regimes(rig.symbols, now, rig.params.hash)
    for symbol, series in bars.items():
        assert last[symbol].bar == now - timedelta(minutes=15)
        window = series.slice(len(series) - 4800, len(series))
        assert last[symbol].regime is classify_regimes(window, rig.params)[-1].regime
    short = make(market(2, 0.1, 300, ("LTC/USDT",)))
    assert detect_regime(short)["without_history"] == ["LTC/USDT"]
