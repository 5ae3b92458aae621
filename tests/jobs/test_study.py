"""A study is resumable, keeps its trials, and says how much of the best is luck."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from tests.support.model_rig import SteppedClock
from tests.support.trading import BAR_MS, PARAMS, STEP_MS, instrument, random_bars
from tradewind.adapters.database import Database
from tradewind.adapters.study_store import PgStudyStore
from tradewind.backtest.signals import Forecast, SymbolSeries, symbol_series
from tradewind.core.study import Trial, overfitting_probability, plan_folds, with_values
from tradewind.errors import BadInput
from tradewind.jobs.study import StudySettings, run_study

CLOCK = SteppedClock(datetime(2024, 3, 6, tzinfo=UTC))
SETTINGS = StudySettings(("SOL/USDT",), BAR_MS - 7000 * STEP_MS, BAR_MS, folds=4, strategy_version="x")


@pytest.fixture
def store(database: Database) -> PgStudyStore:
    return PgStudyStore(database)


@pytest.fixture(scope="module")
def series() -> dict[str, SymbolSeries]:
    bars = random_bars(count=8000, volatility=0.006)
    rng = np.random.default_rng(4)
    p = np.where(rng.uniform(size=8000) < 0.04, rng.uniform(0.3, 0.7, 8000), 0.1)
    chance = Forecast(p, np.full(8000, 0.1), p - 0.3, np.full(8000, -0.5), "chance")
    return {"SOL/USDT": symbol_series(bars, instrument(), chance, PARAMS)}


def test_a_stopped_study_goes_on_and_ends_with_a_judgement(
    store: PgStudyStore, series: dict[str, SymbolSeries]
) -> None:
    first = run_study(store, CLOCK, "one", series, PARAMS, SETTINGS, 2)
    assert first["trials"] == 2
    before = store.trials("one")
    assert before[0].params["min_probability"] == PARAMS.min_probability, "it begins with the shipped values"
    said: list[Trial] = []
    report = run_study(store, CLOCK, "one", series, PARAMS, SETTINGS, 5, say=said.append)
    after = store.trials("one")
    assert after[:2] == before
    assert [trial.number for trial in said] == [2, 3, 4]
    assert len(after) == 5
    assert report["best"]["sharpe"] == max(trial.value or 0.0 for trial in after)
    assert report["holdout"]["trades"] >= 0
    assert 0 <= report["deflated_sharpe"] <= 1
    assert 0 <= report["overfitting_probability"] <= 1


def test_a_study_keeps_its_settings(store: PgStudyStore, series: dict[str, SymbolSeries]) -> None:
    run_study(store, CLOCK, "one", series, PARAMS, SETTINGS, 1)
    with pytest.raises(BadInput, match="seed"):
        run_study(store, CLOCK, "one", series, PARAMS, replace(SETTINGS, seed=8), 1)
    with pytest.raises(BadInput, match="ten days"):
        run_study(store, CLOCK, "two", series, PARAMS, replace(SETTINGS, folds=40), 1)


def test_no_fold_knows_a_trade_of_another() -> None:
    day = 86_400_000
    planned = plan_folds(0, 200 * day, 5, 0.25, 96)
    assert len(planned) == 6
    for (_, end), (start, _) in itertools.pairwise(planned):
        assert start - end >= 97 * STEP_MS
    assert planned[-1] == (150 * day, 200 * day)


def test_what_would_change_the_columns_is_not_swept() -> None:
    with pytest.raises(ValueError, match="atr_period"):
        with_values(PARAMS, {"atr_period_1h_bars": 7})
    assert with_values(PARAMS, {"cooldown_bars": 7.0}).cooldown_bars == 7


def test_noise_is_overfitted_half_of_the_time_and_skill_never() -> None:
    rng = np.random.default_rng(1)
    noise = [Trial(k, {}, 0.0, tuple(rng.normal(size=8).tolist())) for k in range(60)]
    assert 0.25 < overfitting_probability(noise) < 0.8
    skilled = [*noise, Trial(60, {}, 3.0, tuple((3 + rng.normal(size=8)).tolist()))]
    assert overfitting_probability(skilled) < 0.05
