"""Features: sixty or more, scale-free, causal, reproducible by a live window; a check catches each that is not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from tests.support.toy_market import toy_bars, without
from tradewind.core.feature_table import FEATURES, Feature
from tradewind.core.features import (
    FEATURE_NAMES,
    LIVE_WINDOW_BARS,
    compute_features,
    features_hash,
    longest_warmup_bars,
)
from tradewind.core.indicators import Series
from tradewind.core.leak_checks import check_future, check_truncation, check_warmup, differs, sample_rows
from tradewind.core.params import StrategyParams
from tradewind.core.types import Bars, FloatArray
from tradewind.errors import MissingData

PARAMS = StrategyParams()
LEADER = toy_bars("BTC/USDT", 6000, seed=1, tide=0.1)
BARS = toy_bars("ETH/USDT", 6000, seed=1, tide=0.1)


def scaled(bars: Bars, price: float, volume: float) -> Bars:
    return Bars(
        bars.symbol,
        bars.timeframe,
        bars.open_time_ms,
        bars.open * price,
        bars.high * price,
        bars.low * price,
        bars.close * price,
        bars.volume * volume,
    )


def test_the_table_is_large_enough_and_says_what_each_is() -> None:
    assert len(FEATURES) >= 60
    assert len(set(FEATURE_NAMES)) == len(FEATURES)
    groups = {feature.group for feature in FEATURES}
    assert groups == {"price", "volatility", "trend", "momentum", "volume", "shape", "time", "context", "leader"}
    assert {feature.source for feature in FEATURES} == {"15m", "1h", "4h", "leader", "clock"}
    assert max(4800, longest_warmup_bars()) <= LIVE_WINDOW_BARS


def test_nan_lies_inside_the_warmup_alone() -> None:
    values = compute_features(BARS, LEADER, PARAMS).values
    for column, feature in enumerate(FEATURES):
        known = np.flatnonzero(~np.isnan(values[:, column]))
        assert known[0] <= feature.warmup_bars - 1, feature.name
        assert not np.isnan(values[known[0] :, column]).any(), feature.name
    assert np.isfinite(values[longest_warmup_bars() - 1 :]).all()


def test_features_do_not_depend_on_the_units_of_price_and_volume() -> None:
    whole = compute_features(BARS, LEADER, PARAMS).values
    # Powers of two are exact: two moves of the same size stay a tie, which directional movement is decided by.
    other = compute_features(scaled(BARS, 1024.0, 2.0**-13), scaled(LEADER, 2.0**-7, 64.0), PARAMS).values
    wrong = differs(whole, other)
    assert not wrong.any(), [FEATURE_NAMES[column] for column in np.flatnonzero(wrong.any(axis=0))]


def test_no_feature_leaks() -> None:
    rows = sample_rows(BARS, 50, seed=3)
    assert check_truncation(BARS, LEADER, PARAMS, rows) == []
    assert check_future(BARS, LEADER, PARAMS, rows[::10]) == []


def test_the_declared_warmup_gives_the_value_of_the_whole_history() -> None:
    assert check_warmup(BARS, LEADER, PARAMS, sample_rows(BARS, 25, seed=4)) == []


def test_the_live_window_gives_the_value_of_the_whole_history_after_a_crash_and_a_gap() -> None:
    bars = scaled(BARS, 1.0, 1.0)
    bars.close[:800] *= 30  # a price that fell to a thirtieth long ago must leave no trace in running sums
    bars.open[:800] *= 30
    bars.high[:800] *= 30
    bars.low[:800] *= 30
    holed = without(bars, [5400, 5401, 5900])
    whole = compute_features(holed, LEADER, PARAMS).values[-1]
    window = holed.slice(len(holed) - LIVE_WINDOW_BARS, len(holed))
    live = compute_features(window, LEADER, PARAMS).values[-1]
    assert np.isfinite(live).all()
    assert not differs(whole, live).any()


def _future_return(series: Series) -> FloatArray:
    out = np.zeros(len(series))
    out[:-1] = np.diff(np.log(series.close))
    return out


def _against_all_history(series: Series) -> FloatArray:
    return series.close / series.close.mean() - 1


CANARIES = {"tomorrow": _future_return, "whole history": _against_all_history}


@pytest.mark.parametrize("compute", CANARIES.values(), ids=CANARIES.keys())
@pytest.mark.parametrize("check", [check_truncation, check_warmup, check_future])
def test_each_check_catches_a_feature_that_knows_the_future(
    check: Callable[..., list[object]], compute: Callable[[Series], FloatArray]
) -> None:
    canary = Feature("canary", "price", "15m", 20, 20, compute)
    leaks = check(BARS, LEADER, PARAMS, [3000, 4000], (FEATURES[0], canary))
    assert {leak.feature for leak in leaks} == {"canary"}  # type: ignore[attr-defined]


def test_a_warmup_declared_too_short_is_caught() -> None:
    ema = next(feature for feature in FEATURES if feature.name == "ema_gap_50")
    hasty = replace(ema, warmup_bars=80, source_bars=50)
    assert [leak.feature for leak in check_warmup(BARS, LEADER, PARAMS, [4000], (hasty,))] == ["ema_gap_50"]


def test_a_missing_leader_blocks_by_name() -> None:
    with pytest.raises(MissingData, match="BTC/USDT"):
        compute_features(BARS, LEADER.slice(0, len(LEADER) - 1), PARAMS)
    with pytest.raises(MissingData, match="BTC/USDT"):
        compute_features(BARS, LEADER.slice(0, 0), PARAMS)


def test_a_hole_in_the_leader_is_nan_in_its_features_and_nowhere_else() -> None:
    matrix = compute_features(BARS, without(LEADER, [5000]), PARAMS)
    unknown = np.isnan(matrix.values[5000])
    assert unknown[[name.startswith(("leader", "relative")) for name in FEATURE_NAMES]].all()
    assert not unknown[[not name.startswith(("leader", "relative")) for name in FEATURE_NAMES]].any()


def test_a_flat_and_silent_market_gives_numbers() -> None:
    flat = scaled(BARS, 1.0, 0.0)
    for column in (flat.open, flat.high, flat.low, flat.close):
        column[4000:] = column[3999]
    values = compute_features(flat, LEADER, PARAMS).values
    assert np.isfinite(values[longest_warmup_bars() - 1 :]).all()


def test_a_short_history_is_all_warmup() -> None:
    few = BARS.slice(0, 10)
    matrix = compute_features(few, LEADER.slice(0, 10), PARAMS)
    assert matrix.values.shape == (10, len(FEATURES))
    assert len(compute_features(BARS.slice(0, 0), LEADER, PARAMS).values) == 0


def test_the_hash_names_features_and_their_order() -> None:
    assert features_hash() == features_hash(FEATURE_NAMES)
    assert features_hash() != features_hash(FEATURE_NAMES[::-1])
    assert features_hash() != features_hash(FEATURE_NAMES[:-1])
