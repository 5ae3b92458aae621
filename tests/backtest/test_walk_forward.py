"""Models take turns: each decides only after the end of its own data."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from tests.support.trading import BAR_MS, PARAMS, STEP_MS, instrument, random_bars
from tradewind.backtest.parallel import build_all
from tradewind.backtest.replay import ReplaySettings, replay
from tradewind.backtest.signals import ModelSpan, SymbolSeries
from tradewind.backtest.walk_forward import spans_of, walk_forward_series
from tradewind.core.ensemble import LoadedModel
from tradewind.core.features import FEATURE_NAMES
from tradewind.core.timeframes import from_ms
from tradewind.core.types import RegimeFamily

BARS = random_bars(count=6000, seed=3, volatility=0.006)
ENDS = {"early": BAR_MS - 2500 * STEP_MS, "late": BAR_MS - 1000 * STEP_MS}


def load(version: str) -> LoadedModel:
    """A model that says the same of every bar: the early one 0.6, the late one 0.7."""
    p_long = {"early": 0.6, "late": 0.7}[version]
    family = SimpleNamespace(
        probabilities=lambda features: np.tile([p_long, 0.1, 0.9 - p_long], (len(features), 1)),
        expected_r=lambda p: (p[:, 0], -p[:, 0]),
    )
    families = cast("dict[RegimeFamily, Any]", dict.fromkeys(RegimeFamily, family))
    return LoadedModel(version, from_ms(ENDS[version]), FEATURE_NAMES, families)


def made() -> SymbolSeries:
    return walk_forward_series(BARS, BARS, instrument(), spans_of(ENDS), load, PARAMS)


def test_of_two_that_end_together_one_decides_and_spans_ascend() -> None:
    assert spans_of({"b": 20, "a": 10, "c": 20}) == (ModelSpan(10, "a", 10), ModelSpan(20, "c", 20))


def test_nobody_decides_before_the_end_of_its_data() -> None:
    forecast = made().forecast
    times = BARS.open_time_ms
    assert np.isnan(forecast.p_long[times < ENDS["early"]]).all()
    for version, p_long, inside in (
        ("early", 0.6, (times >= ENDS["early"]) & (times < ENDS["late"])),
        ("late", 0.7, times >= ENDS["late"]),
    ):
        answered = np.flatnonzero(inside & np.isfinite(forecast.p_long))
        assert len(answered) > 0.5 * inside.sum()
        assert set(forecast.p_long[answered]) == {p_long}
        assert {forecast.version_at(int(row)) for row in answered} == {version}


def test_the_age_of_the_model_that_decides_is_judged() -> None:
    settings = ReplaySettings(models=spans_of(ENDS))
    result = replay({"SOL/USDT": made()}, PARAMS, int(BARS.open_time_ms[0]), BAR_MS, settings)
    versions = {d.prediction.model_version for d in result.decisions if d.prediction is not None}
    assert versions == {"early", "late"}
    for decision in result.decisions:
        (verdict,) = [v for v in decision.verdicts if v.filter == "model"]
        assert decision.prediction is not None
        assert verdict.numbers["age_s"] == (
            decision.bar.timestamp() + 900 - ENDS[decision.prediction.model_version] / 1000
        )
        assert cast("float", verdict.numbers["age_s"]) > 0


def test_many_at_once_are_the_same_as_one_by_one() -> None:
    seen: list[str] = []
    both = build_all(["SOL/USDT", "SOL/USDT"][:1], lambda _symbol: made(), seen.append)
    np.testing.assert_array_equal(both["SOL/USDT"].forecast.p_long, made().forecast.p_long)
    assert seen == ["SOL/USDT"]
