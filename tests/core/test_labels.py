"""Labels: the bracket's barriers, the position rules' result, and nothing where the future is not whole."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.toy_market import toy_bars, without
from tradewind.core.labels import LONG_WINS, NEITHER, NO_LABEL, SHORT_WINS, average_uniqueness, label_bars
from tradewind.core.market_numbers import atr_1h
from tradewind.core.params import StrategyParams
from tradewind.core.position_kernels import walk_bracket
from tradewind.core.positions import STOPPED, Costs
from tradewind.core.regime import FAMILIES
from tradewind.core.resampling import BASE_MS
from tradewind.core.types import Bars

PARAMS = StrategyParams()
BARS = toy_bars("BTC/USDT", 3000, seed=9, tide=0.15)
ATR = atr_1h(BARS)
FAMILY = np.arange(3000) % 2


def reference_class(bars: Bars, t: int, family: int) -> int:
    """The slow, literal reading of the rule."""
    geometry = PARAMS.geometry(FAMILIES[family])
    r = geometry.stop_atr * ATR[t]
    entry = bars.open[t + 1]
    for side, sign in ((LONG_WINS, 1), (SHORT_WINS, -1)):
        stop, target = entry - sign * r, entry + sign * geometry.target_r * r
        for i in range(t + 1, t + 1 + PARAMS.horizon_bars):
            adverse = bars.low[i] if sign > 0 else bars.high[i]
            favourable = bars.high[i] if sign > 0 else bars.low[i]
            if sign * bars.open[i] >= sign * target:
                return side
            if sign * adverse <= sign * stop:
                break
            if sign * favourable >= sign * target:
                return side
    return NEITHER


def test_classes_follow_the_bracket() -> None:
    labels = label_bars(BARS, FAMILY, PARAMS)
    seen = set()
    for t in range(100, 2800, 37):
        assert labels.label[t] == reference_class(BARS, t, int(FAMILY[t])), t
        seen.add(int(labels.label[t]))
    assert seen == {LONG_WINS, SHORT_WINS, NEITHER}


def test_net_r_is_the_position_rules_own_result() -> None:
    labels = label_bars(BARS, FAMILY, PARAMS)
    costs = Costs.of(PARAMS)
    for t in range(100, 2800, 61):
        geometry = PARAMS.geometry(FAMILIES[int(FAMILY[t])])
        for sign, column in ((1.0, labels.net_r_long), (-1.0, labels.net_r_short)):
            event, end, net = walk_bracket(
                sign, t + 1, BARS.open, BARS.high, BARS.low, BARS.close, ATR[t], geometry.stop_atr, geometry.target_r,
                PARAMS.partial_target_r, PARAMS.partial_frac, PARAMS.horizon_bars, PARAMS.break_even_r,
                PARAMS.trail_atr, PARAMS.min_stop_move_atr, costs.fee_frac, costs.market_frac,
            )  # fmt: skip
            assert column[t] == pytest.approx(net)
            assert labels.t1_ms[t] >= BARS.open_time_ms[end] + BASE_MS
            if event == STOPPED and end == t + 1:
                assert net < -1, "a stop costs more than one R: fees and spread come on top"


def test_a_label_waits_for_its_whole_future() -> None:
    labels = label_bars(BARS, FAMILY, PARAMS)
    settled = labels.label != NO_LABEL
    assert not settled[-1]
    assert (labels.t1_ms[settled] <= BARS.open_time_ms[-1] + BASE_MS).all()
    assert (labels.t1_ms[settled] > BARS.open_time_ms[settled] + BASE_MS).all()
    assert (labels.t1_ms[settled] <= BARS.open_time_ms[settled] + (PARAMS.horizon_bars + 1) * BASE_MS).all()
    assert np.isnan(labels.net_r_long[~settled]).all()
    # With the data cut earlier, a label is either the same or not there yet.
    early = label_bars(BARS.slice(0, 2000), FAMILY[:2000], PARAMS)
    there = early.label != NO_LABEL
    assert np.array_equal(early.label[there], labels.label[:2000][there])
    assert np.array_equal(early.net_r_long[there], labels.net_r_long[:2000][there])
    waiting = ~there & settled[:2000]
    assert (labels.t1_ms[:2000][waiting] > BARS.open_time_ms[1999] + BASE_MS).all()


def test_a_missing_bar_before_the_outcome_leaves_no_label() -> None:
    hole = 1500
    holed = without(BARS, [hole])
    families = np.delete(FAMILY, hole)
    labels, whole = label_bars(holed, families, PARAMS), label_bars(BARS, FAMILY, PARAMS)
    crosses = (BARS.open_time_ms < BARS.open_time_ms[hole]) & (whole.t1_ms > BARS.open_time_ms[hole])
    assert crosses.any()
    assert (labels.label[np.delete(crosses, hole)] == NO_LABEL).all()
    before = np.delete(whole.label != NO_LABEL, hole) & (holed.open_time_ms < BARS.open_time_ms[hole] - 100 * BASE_MS)
    assert np.array_equal(labels.label[before], np.delete(whole.label, hole)[before])


def test_no_family_no_label() -> None:
    labels = label_bars(BARS, np.full(3000, -1), PARAMS)
    assert (labels.label == NO_LABEL).all()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 6), st.integers(2, 40)), min_size=1, max_size=40))
def test_uniqueness_is_the_mean_share_of_a_span(steps: list[tuple[int, int]]) -> None:
    starts = np.cumsum([step for step, _ in steps]) * BASE_MS
    ends = starts + np.array([length for _, length in steps]) * BASE_MS
    found = average_uniqueness(starts, ends)
    spans = [range(int(a) // BASE_MS + 1, int(b) // BASE_MS) for a, b in zip(starts, ends, strict=True)]
    for own, share in zip(spans, found, strict=True):
        expected = np.mean([1 / sum(bar in other for other in spans) for bar in own])
        assert share == pytest.approx(expected)
