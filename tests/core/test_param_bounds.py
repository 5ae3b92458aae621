"""The strategy's values: what each may be, and that what is shipped and what is swept lies within that."""

from __future__ import annotations

import math
from dataclasses import asdict, fields, replace

import pytest

from tradewind.core.param_bounds import BadParameter, bounds, is_within, params_of, value_of
from tradewind.core.params import Geometry, StrategyParams
from tradewind.core.study import INTEGERS, SPACE

SHIPPED = StrategyParams()
# What the rest of the system collects and computes: no value of a file changes it.
FIXED = {"decision_timeframe", "context_timeframes"}


def test_every_parameter_has_bounds_beside_it() -> None:
    bare = {field.name for field in fields(StrategyParams)} - FIXED - {"trending", "ranging"}
    inner = {f"{table}.{field.name}" for table in ("trending", "ranging") for field in fields(Geometry)}
    assert set(bounds()) == bare | inner


def test_the_shipped_values_lie_within_their_bounds() -> None:
    given = {name: value_of(SHIPPED, name) for name in bounds() if "." not in name}
    tables = {"trending": asdict(SHIPPED.trending), "ranging": asdict(SHIPPED.ranging)}
    assert params_of({**given, **tables}, "BTC/USDT") == SHIPPED
    assert params_of({}, "BTC/USDT").hash == SHIPPED.hash


@pytest.mark.parametrize("name", sorted(SPACE.keys() | INTEGERS.keys()))
def test_what_a_study_proposes_lies_within_the_bounds(name: str) -> None:
    for value in {**SPACE, **INTEGERS}[name]:
        assert is_within(value, bounds()[name][1])


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("risk_frac", 5, "risk_frac = 5 lies outside (0, 0.05]"),
        ("risk_frac", 0, "lies outside (0, 0.05]"),
        ("risk_frac", math.nan, "lies outside (0, 0.05]"),
        ("risk_frac", math.inf, "lies outside (0, 0.05]"),
        ("risk_frac", "0.01", "must be a number in (0, 0.05]"),
        ("risk_frac", True, "must be a number"),
        ("risk_fraction", 0.01, "is no parameter; did you mean risk_frac?"),
        ("horizon_bars", 0, "lies outside [1, 2000]"),
        ("horizon_bars", 96.0, "must be a whole number"),
        ("trending", 2.5, "write [trending], and its values below"),
        ("trending", {"stop_atr": 0}, "trending.stop_atr = 0 lies outside (0, 20]"),
        ("ranging", {"target_r": 0.9}, "ranging.target_r = 0.9 lies outside [1, 20]"),
        ("decision_timeframe", "1h", "cannot be changed"),
        ("leader_symbol", "btcusdt", "must be a text like 'BTC/USDT'"),
        ("version", "my own", "must be a text"),
        ("max_daily_loss_frac", 1.5, "lies outside (0, 0.5]"),
        ("max_bar_age_s", 901, "lies outside (0, 900]"),
    ],
)
def test_a_value_that_may_not_be_is_refused_in_words(name: str, value: object, words: str) -> None:
    with pytest.raises(BadParameter) as refused:
        params_of({name: value}, "BTC/USDT")
    assert words in str(refused.value)
    assert refused.value.name.startswith(name)


def test_values_must_fit_each_other() -> None:
    with pytest.raises(BadParameter, match=r"risk_frac = 0.03 must not exceed max_open_risk_frac = 0.02"):
        params_of({"risk_frac": 0.03}, "BTC/USDT")
    with pytest.raises(BadParameter, match=r"max_open_risk_frac = 0.005 must not be less than risk_frac = 0.01"):
        params_of({"max_open_risk_frac": 0.005}, "BTC/USDT")
    with pytest.raises(BadParameter, match="adx_trend_exit"):
        params_of({"adx_trend_exit": 26}, "BTC/USDT")
    with pytest.raises(BadParameter, match=r"partial_target_r = 1.8 must not exceed ranging.target_r = 1.5"):
        params_of({"partial_target_r": 1.8}, "BTC/USDT")


def test_a_whole_number_is_the_same_value_as_its_float() -> None:
    assert params_of({"break_even_r": 1}, "BTC/USDT").hash == SHIPPED.hash


def test_the_leader_is_the_accounts_bitcoin_unless_another_is_named() -> None:
    assert params_of({}, "BTC/EUR") == replace(SHIPPED, leader_symbol="BTC/EUR")
    assert params_of({"leader_symbol": "ETH/EUR"}, "BTC/EUR").leader_symbol == "ETH/EUR"
    with pytest.raises(BadParameter, match="BTC/BTC is no market"):
        params_of({}, "BTC/BTC")
    assert params_of({"leader_symbol": "ETH/BTC"}, "BTC/BTC").leader_symbol == "ETH/BTC"
