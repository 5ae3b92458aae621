"""The ensemble: slices in order, calibrated, deterministic, standing when one library fails, answering in one batch."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from tradewind.core import boosters
from tradewind.core.boosters import BoosterSettings
from tradewind.core.calibration import Calibrator, fit_calibrator
from tradewind.core.ensemble import (
    FitSettings,
    LoadedModel,
    NotEnoughRows,
    Sample,
    class_means,
    fit_family,
    slice_bounds,
)
from tradewind.core.resampling import BASE_MS
from tradewind.core.scoring import log_loss
from tradewind.core.types import FloatArray, Regime, RegimeFamily, RegimeState

SETTINGS = FitSettings(boosters=BoosterSettings(max_rounds=40, min_leaf_rows=40))
BAR = datetime(2025, 1, 1, tzinfo=UTC)


def sample(rows: int = 3000, *, strength: float = 2.0, seed: int = 0) -> Sample:
    """Labels that follow two of six columns, in unequal classes; each settles four bars later."""
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((rows, 6)).astype(np.float32)
    scores = np.column_stack([strength * features[:, 0], strength * features[:, 1], np.full(rows, 1.5)])
    labels = np.argmax(scores + rng.gumbel(size=(rows, 3)), axis=1)
    times = np.arange(rows, dtype=np.int64) * BASE_MS
    net_long = np.array([1.4, -1.1, -0.2])[labels]
    return Sample(
        features, times, times + 4 * BASE_MS, labels, np.full(rows, 0.5), net_long, np.array([-1.1, 1.4, -0.2])[labels]
    )


def test_the_ensemble_beats_the_base_rate_where_there_is_something_to_find() -> None:
    model = fit_family(RegimeFamily.TRENDING, sample(), SETTINGS)
    fresh = sample(seed=1)
    said = model.probabilities(fresh.features)
    assert {booster.library for booster in model.boosters} == {"lightgbm", "xgboost", "catboost"}
    assert said.shape == (3000, 3)
    assert said.sum(axis=1) == pytest.approx(1.0)
    base = np.tile(model.base_rates, (3000, 1))
    assert log_loss(said, fresh.labels) < log_loss(base, fresh.labels) - 0.1
    # Fitted with class weights, yet the mean says the true frequencies.
    assert said.mean(axis=0) == pytest.approx(np.bincount(fresh.labels) / 3000, abs=0.04)
    long, short = model.expected_r(said)
    best = np.argsort(long)[-300:]
    assert fresh.net_r_long[best].mean() == pytest.approx(long[best].mean(), abs=0.3)
    assert model.mean_net_r_long == pytest.approx((1.4, -1.1, -0.2))
    assert short.shape == (3000,)


def test_with_nothing_to_find_it_says_the_base_rate() -> None:
    model = fit_family(RegimeFamily.RANGING, sample(strength=0.0), SETTINGS)
    fresh = sample(strength=0.0, seed=1)
    said = model.probabilities(fresh.features)
    base = np.tile(model.base_rates, (3000, 1))
    assert log_loss(said, fresh.labels) == pytest.approx(log_loss(base, fresh.labels), abs=0.01)


def test_one_seed_gives_one_model_and_another_another() -> None:
    first, second = (fit_family(RegimeFamily.TRENDING, sample(), SETTINGS) for _ in range(2))
    rows = sample(seed=3).features
    assert np.abs(first.probabilities(rows) - second.probabilities(rows)).max() < 1e-9
    assert first.calibrator == second.calibrator
    other = replace(SETTINGS, boosters=replace(SETTINGS.boosters, seed=8))
    third = fit_family(RegimeFamily.TRENDING, sample(), other)
    assert np.abs(first.probabilities(rows) - third.probabilities(rows)).max() > 1e-4


def test_nothing_after_the_sample_and_no_label_across_a_slice_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = sample()
    stop_ms, calibrate_ms = slice_bounds(whole, SETTINGS)
    seen: list[tuple[FloatArray, FloatArray]] = []

    def watch(fit: boosters.Rows, stop: boosters.Rows, settings: BoosterSettings, _: object) -> boosters.Booster:
        seen.append((fit.features, stop.features))
        return boosters._fit_lightgbm(fit, stop, settings)

    monkeypatch.setattr(boosters, "_FITTERS", {"lightgbm": watch})
    fit_family(RegimeFamily.TRENDING, whole, replace(SETTINGS, libraries=("lightgbm",)))
    fit, stop = seen[0]
    place = {row.tobytes(): i for i, row in enumerate(whole.features)}
    fitted = np.array([place[row.tobytes()] for row in fit])
    stopped = np.array([place[row.tobytes()] for row in stop])
    assert (whole.t1_ms[fitted] < stop_ms).all()
    assert (whole.open_time_ms[stopped] > stop_ms).all()
    assert (whole.t1_ms[stopped] < calibrate_ms).all()
    assert whole.open_time_ms[stopped].min() > whole.t1_ms[fitted].max()


def test_a_library_that_fails_is_named_and_the_others_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> boosters.Booster:
        raise MemoryError("no room")

    monkeypatch.setattr(boosters, "_FITTERS", {**boosters._FITTERS, "xgboost": broken})
    model = fit_family(RegimeFamily.TRENDING, sample(), SETTINGS)
    assert [booster.library for booster in model.boosters] == ["lightgbm", "catboost"]
    assert model.failures == {"xgboost": "MemoryError: no room"}
    monkeypatch.setattr(boosters, "_FITTERS", dict.fromkeys(boosters.LIBRARIES, broken))
    with pytest.raises(RuntimeError, match="no library"):
        fit_family(RegimeFamily.TRENDING, sample(), SETTINGS)


def test_too_few_rows_or_a_class_that_never_came_is_said() -> None:
    with pytest.raises(NotEnoughRows, match="labelled rows"):
        fit_family(RegimeFamily.TRENDING, sample(200), SETTINGS)
    lame = sample()
    with pytest.raises(NotEnoughRows, match="2 of 3 classes"):
        fit_family(RegimeFamily.TRENDING, lame.take(lame.labels != 1), SETTINGS)


def test_a_class_that_never_came_is_worth_the_mean() -> None:
    labels = np.array([0, 0, 2])
    assert class_means(np.array([1.0, 3.0, -1.0]), labels, np.ones(3)) == pytest.approx((2.0, 1.0, -1.0))


def test_calibration_undoes_class_weights_and_overconfidence() -> None:
    rng = np.random.default_rng(5)
    base = np.array([0.12, 0.1, 0.78])
    truth = np.log(base) + rng.normal(0, 0.6, (20_000, 3))
    p = np.exp(truth) / np.exp(truth).sum(axis=1, keepdims=True)
    labels = np.array([rng.choice(3, p=row) for row in p])
    # What class-weighted, overconfident boosters would say of it.
    weighted = 2.0 * (truth - np.log(base))
    said = np.exp(weighted) / np.exp(weighted).sum(axis=1, keepdims=True)
    calibrator = fit_calibrator(said, labels, np.ones(20_000), base, np.full(3, 1 / 3))
    assert calibrator.slope == pytest.approx(0.5, abs=0.06)
    assert log_loss(calibrator.apply(said), labels) == pytest.approx(log_loss(p, labels), abs=0.003)
    assert Calibrator.from_dict(calibrator.to_dict()) == calibrator


def test_a_short_slice_moves_the_base_rates_little() -> None:
    base = np.full(3, 1 / 3)
    said = np.full((300, 3), 1 / 3)
    lucky = np.zeros(300, dtype=np.int64)  # only long wins, but 300 overlapping labels are about four outcomes
    calibrator = fit_calibrator(said, lucky, np.full(300, 0.013), base, base)
    assert calibrator.apply(said)[0, 0] < 0.36


def state(symbol: str, regime: Regime, family: RegimeFamily | None) -> RegimeState:
    return RegimeState(symbol, BAR, regime, family, 20.0, 1.0, 0.5, 0.5)


def test_a_loaded_model_answers_for_all_symbols_and_never_guesses() -> None:
    names = tuple("abcdef")
    model = fit_family(RegimeFamily.TRENDING, sample(), SETTINGS)
    loaded = LoadedModel("v1", BAR, names, {RegimeFamily.TRENDING: model})
    vector = np.array([2.0, -1.0, 0.0, 0.1, 0.2, 0.3])
    rows = {symbol: (BAR, vector) for symbol in ("A/USDT", "B/USDT", "C/USDT")}
    rows["D/USDT"] = (BAR, np.where(np.arange(6) == 3, np.nan, vector))
    regimes = {
        "A/USDT": state("A/USDT", Regime.TRENDING_WEAK, RegimeFamily.TRENDING),
        "B/USDT": state("B/USDT", Regime.CHAOTIC, None),
        "C/USDT": state("C/USDT", Regime.RANGING_QUIET, RegimeFamily.RANGING),
        "D/USDT": state("D/USDT", Regime.TRENDING_WEAK, RegimeFamily.TRENDING),
    }
    predictions = loaded.predict(rows, regimes)
    assert set(predictions) == {"A/USDT"}
    found = predictions["A/USDT"]
    p = model.probabilities(vector[None].astype(np.float32))[0]
    assert (found.p_long, found.p_short, found.p_neither) == pytest.approx(tuple(p))
    assert found.expected_r_long == pytest.approx(float(p @ np.array(model.mean_net_r_long)))
    assert (found.model_version, found.bar, found.family) == ("v1", BAR, RegimeFamily.TRENDING)
    assert len(found.features_sha256) == 64
    with pytest.raises(ValueError, match="5,"):
        loaded.predict({"A/USDT": (BAR, vector[:5])}, regimes)
