from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from tests.support.trading import BAR, PARAMS, instrument, random_bars
from tradewind.backtest.signals import Forecast, model_series, moment, symbol_series
from tradewind.core.ensemble import LoadedModel
from tradewind.core.features import FEATURE_NAMES, compute_features
from tradewind.core.regime import classify_regimes
from tradewind.core.types import RegimeFamily, SentimentState


def family(scale: float) -> Any:
    """Stands for a fitted family: a plain function of the features, another one for each family."""

    def probabilities(features: np.ndarray) -> np.ndarray:
        score = 1 / (1 + np.exp(-scale * np.nan_to_num(features.astype(np.float64)).mean(axis=1)))
        return np.column_stack((score / 2, (1 - score) / 2, np.full(len(score), 0.5)))

    return SimpleNamespace(
        probabilities=probabilities,
        expected_r=lambda p: (p @ np.array([1.2, -1.1, -0.2]), p @ np.array([-1.1, 1.2, -0.2])),
    )


MODEL = LoadedModel(
    "v3",
    BAR - timedelta(days=90),
    FEATURE_NAMES,
    cast("dict[RegimeFamily, Any]", {RegimeFamily.TRENDING: family(3.0), RegimeFamily.RANGING: family(-2.0)}),
)
BARS = random_bars(count=6500, seed=2)
LEADER = random_bars("BTC/USDT", count=6500, seed=4)


def test_the_columns_say_what_the_model_says_bar_by_bar() -> None:
    series = model_series(BARS, LEADER, instrument(), MODEL, PARAMS)
    features = compute_features(BARS, LEADER, PARAMS)
    seen: Counter[RegimeFamily] = Counter()
    for row in [*range(0, 6500, 397), *range(6300, 6500, 7)]:
        state = series.regime_at(row)
        at = moment(int(BARS.open_time_ms[row]))
        expected = MODEL.predict({"SOL/USDT": (at, features.values[row])}, {"SOL/USDT": state} if state else {})
        found = series.prediction_at(row, state.family if state is not None else None)
        if "SOL/USDT" not in expected:
            assert found is None
            continue
        assert found is not None
        wanted = expected["SOL/USDT"]
        seen[wanted.family] += 1
        assert (found.family, found.bar, found.model_version) == (wanted.family, wanted.bar, "v3")
        names = ("p_long", "p_short", "p_neither", "expected_r_long", "expected_r_short")
        assert [getattr(found, n) for n in names] == pytest.approx([getattr(wanted, n) for n in names], rel=1e-12)
    assert len(seen) == 2


def test_the_regime_is_the_one_that_live_would_have_stored() -> None:
    series = model_series(BARS, LEADER, instrument(), MODEL, PARAMS)
    stored = {state.bar: state for state in classify_regimes(BARS, PARAMS)}
    assert stored
    for row in range(0, 6500, 101):
        assert series.regime_at(row) == stored.get(moment(int(BARS.open_time_ms[row])))


def test_a_column_of_another_length_is_refused() -> None:
    column = np.zeros(len(BARS))
    with pytest.raises(ValueError, match="p_short"):
        symbol_series(BARS, instrument(), Forecast(column, column[1:], column, column, "v"), PARAMS)


def test_the_newest_score_known_at_a_moment() -> None:
    column = np.zeros(len(BARS))
    scores = tuple(
        SentimentState("SOL/USDT", BAR + timedelta(minutes=20 * i), i / 10, 1.0, "ok", "lexicon") for i in range(5)
    )
    series = symbol_series(BARS, instrument(), Forecast(column, column, column, column, "v"), PARAMS, scores)
    assert series.sentiment_at(BAR - timedelta(seconds=1)) is None
    assert series.sentiment_at(BAR) == scores[0]
    assert series.sentiment_at(BAR + timedelta(minutes=59)) == scores[2]
    assert series.sentiment_at(BAR + timedelta(days=9)) == scores[4]


def test_news_of_a_closes_own_moment_waits_for_the_next_bar() -> None:
    """A cycle may read just before what is aggregated at its close is stored, or just after."""
    column = np.zeros(len(BARS))
    row = 5000
    close = moment(int(BARS.open_time_ms[row])) + timedelta(minutes=15)
    early, late = (
        SentimentState("SOL/USDT", as_of, -0.5, 1.0, "ok", "lexicon")
        for as_of in (close - timedelta(microseconds=1), close)
    )
    series = symbol_series(BARS, instrument(), Forecast(column, column, column, column, "v"), PARAMS, (early, late))
    assert series.inputs_at(row, timedelta(hours=2)).sentiment == early
    assert series.inputs_at(row + 1, timedelta(hours=2)).sentiment == late


def test_a_replay_asks_of_the_bars_what_live_asks() -> None:
    """Bars without volume, which live would not have traded on, were traded on in a backtest."""
    volume = BARS.volume.copy()
    volume[5000:5005] = 0.0
    dead = replace(BARS, volume=volume)
    column = np.zeros(len(BARS))
    series = symbol_series(dead, instrument(), Forecast(column, column, column, column, "v"), PARAMS)
    fit = {row: series.quality_at(row) for row in (4999, 5003, 5004, 5000 + 191, 5000 + 192)}
    assert {row: verdict is not None and verdict.passed for row, verdict in fit.items()} == {
        4999: True, 5003: True, 5004: False, 5191: False, 5192: True,
    }  # fmt: skip
    at_5004 = series.inputs_at(5004, timedelta(hours=1)).quality
    assert at_5004 is not None
    assert (at_5004.bar, at_5004.findings) == (moment(int(BARS.open_time_ms[5004])), {"zero_volume": {"run_bars": 5}})


def test_the_bars_after_it_change_no_verdict() -> None:
    column = np.zeros(len(BARS))
    forecast = Forecast(column, column, column, column, "v")
    rng = np.random.default_rng(5)
    later = {n: np.where(np.arange(6500) > 5500, v * rng.uniform(0, 9), v) for n, v in (("volume", BARS.volume),)}
    whole = symbol_series(BARS, instrument(), forecast, PARAMS)
    other = symbol_series(replace(BARS, **later), instrument(), forecast, PARAMS)
    assert [whole.quality_at(row) for row in range(5300, 5501, 20)] == [
        other.quality_at(row) for row in range(5300, 5501, 20)
    ]
