from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal as D
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.trading import BAR_MS, PARAMS, STEP_MS, position, random_bars
from tradewind.core.codec import decode, encode
from tradewind.core.params import PositionRules
from tradewind.core.position_kernels import break_even_price, manage_close, meet_bar, unit_result, walk_bracket
from tradewind.core.positions import (
    HOLD,
    MOVE_STOP,
    NOTHING,
    STOPPED,
    TARGETED,
    TIMED_OUT,
    UNFINISHED,
    Costs,
    ExitNow,
    Hold,
    MoveStop,
    bars_held,
    manage_on_close,
    round_to_tick,
    stop_failed,
)
from tradewind.core.types import Side

TICK = D("0.01")
RULES = PARAMS.position_rules
COSTS = Costs(0.001, 0.0003)


def act(close: str, held: int = 5, **changes: object) -> Hold | MoveStop | ExitNow:
    return manage_on_close(replace(position(), **changes), D(close), held, RULES, COSTS, TICK)


def test_under_one_r_nothing_moves() -> None:
    assert act("102.49") == Hold(D("102.49"))


def test_at_one_r_the_stop_goes_to_where_its_fill_pays_everything_back() -> None:
    action = act("102.5")
    assert isinstance(action, MoveStop)
    assert action.best_close == D("102.5")
    # Bought 1 at 100 with fee, sold at the stop less market cost and fee: not under zero, by less than a tick's worth.
    won = unit_result(1.0, 100.0, float(action.price), True, COSTS.fee_frac, COSTS.market_frac)
    assert 0 <= won < 0.011


def test_break_even_of_a_short_mirrors_that_of_a_long() -> None:
    price = break_even_price(-1.0, 100.0, COSTS.fee_frac, COSTS.market_frac)
    assert unit_result(-1.0, 100.0, price, True, COSTS.fee_frac, COSTS.market_frac) == pytest.approx(0, abs=1e-9)
    assert price < 100


def test_it_trails_the_best_close_and_not_the_present_one() -> None:
    moved = act("106", stop_price=D("100.24"), best_close=D("104"))
    assert moved == MoveStop(D("103.50"), D("106"))
    assert act("105.8", stop_price=D("103.50"), best_close=D("106")) == Hold(D("106"))


def test_a_best_close_of_one_r_counts_also_after_the_price_has_come_back() -> None:
    # The close at +1R was seen, but its move could not be made then.
    assert act("101", best_close=D("102.5")) == MoveStop(D("100.24"), D("102.5"))


def test_a_move_under_a_quarter_atr_is_not_worth_a_replacement() -> None:
    assert act("106.24", stop_price=D("103.50"), best_close=D("106")) == Hold(D("106.24"))
    assert act("106.25", stop_price=D("103.50"), best_close=D("106")) == MoveStop(D("103.75"), D("106.25"))


def test_the_stop_is_never_put_through_the_close() -> None:
    # One R is smaller than the costs: break-even lies over the close.
    tight = {"initial_stop_price": D("99.9"), "stop_price": D("99.9"), "atr_quote": 0.04}
    assert act("100.12", **tight) == Hold(D("100.12"))


def test_the_horizon_ends_it() -> None:
    assert isinstance(act("101", held=95), Hold)
    assert act("101", held=96) == ExitNow("time_stop", D("101"))


def test_no_fill_nothing_to_manage() -> None:
    with pytest.raises(ValueError, match="no fill"):
        act("101", entry_price=None)


def test_bars_are_counted_by_time_from_the_decision() -> None:
    assert bars_held(position(), BAR_MS + STEP_MS, STEP_MS) == 1
    assert bars_held(position(), BAR_MS + 96 * STEP_MS, STEP_MS) == 96


def test_a_failed_stop_is_two_r_against_the_entry() -> None:
    assert not stop_failed(position(), D("95.01"), RULES)
    assert stop_failed(position(), D("95"), RULES)
    short = position(side=Side.SHORT, initial_stop_price=D("102.5"))
    assert stop_failed(short, D("105"), RULES)
    assert not stop_failed(short, D("95"), RULES)
    assert not stop_failed(position(entry_price=None), D("1"), RULES)


@pytest.mark.parametrize(
    ("bar", "expected"),
    [
        ((100, 101, 99, 100), (NOTHING, 0.0)),
        ((100, 101, 97, 100), (STOPPED, 97.0)),
        ((100, 105, 99, 100), (TARGETED, 105.0)),
        ((100, 106, 96, 100), (STOPPED, 97.0)),  # both inside: the adverse one first
        ((96, 98, 95, 97), (STOPPED, 96.0)),  # gapped through: the open
        ((107, 108, 106, 107), (TARGETED, 105.0)),  # a resting limit fills at its own price
        ((107, 108, 90, 95), (TARGETED, 105.0)),  # the open came first
    ],
)
def test_how_a_bracket_meets_a_bar(bar: tuple[float, ...], expected: tuple[int, float]) -> None:
    assert meet_bar(1.0, *map(float, bar[:3]), 97.0, 105.0) == expected
    # The mirror image for a short.
    open_, high, low, _ = (200 - value for value in bar)
    event, price = meet_bar(-1.0, float(open_), float(low), float(high), 103.0, 95.0)
    assert (event, price) == (expected[0], 200 - expected[1] if expected[0] else 0.0)


PRICES = st.floats(50, 150)


@given(
    closes=st.lists(PRICES, min_size=1, max_size=60),
    entry=st.floats(90, 110),
    distance=st.floats(0.5, 10),
    atr=st.floats(0.2, 5),
    sign=st.sampled_from([1.0, -1.0]),
    tick=st.sampled_from([0.0, 0.01, 0.5]),
)
@settings(max_examples=200, deadline=None)
def test_a_stop_only_ever_moves_towards_profit_and_never_through_the_close(
    closes: list[float], entry: float, distance: float, atr: float, sign: float, tick: float
) -> None:
    stop = initial = entry - sign * distance
    best = entry
    for held, close in enumerate(closes, start=1):
        action, new_stop, new_best = manage_close(
            sign, entry, initial, stop, best, close, atr, held, 1000, 1.0, 2.5, 0.25, 0.001, 0.0003, tick
        )
        assert sign * (new_best - best) >= 0
        if action == MOVE_STOP:
            assert sign * (new_stop - stop) >= 0.25 * atr - 1e-9
            assert sign * (close - new_stop) > 0
            assert sign * (new_best - entry) >= distance - 1e-9
        else:
            assert action == HOLD
            assert new_stop == stop
        stop, best = new_stop, new_best


@given(
    closes=st.lists(st.integers(80, 130), min_size=1, max_size=40),
    distance=st.integers(1, 8),
    atr=st.sampled_from([0.5, 1.0, 2.0]),
)
@settings(max_examples=100, deadline=None)
def test_a_short_is_the_mirror_of_a_long_without_costs(closes: list[int], distance: int, atr: float) -> None:
    long_stop, long_best, short_stop, short_best = 100.0 - distance, 100.0, 100.0 + distance, 100.0
    for held, close in enumerate(map(float, closes), start=1):
        rest = (atr, held, 96, 1.0, 2.5, 0.25, 0.0, 0.0, 0.0)
        went_long = manage_close(1.0, 100.0, 100.0 - distance, long_stop, long_best, close, *rest)
        went_short = manage_close(-1.0, 100.0, 100.0 + distance, short_stop, short_best, 200.0 - close, *rest)
        assert went_long[0] == went_short[0]
        assert went_long[1] == pytest.approx(200 - went_short[1])
        assert went_long[2] == pytest.approx(200 - went_short[2])
        _, long_stop, long_best = went_long
        _, short_stop, short_best = went_short


def walk(
    opens: np.ndarray, highs: np.ndarray, lows: np.ndarray, closes: np.ndarray, **changes: float
) -> tuple[int, int, float]:
    given_ = {
        "atr": 1.0,
        "stop_atr": 2.5,
        "target_r": 2.0,
        "partial_r": 1.0,
        "partial_frac": 0.5,
        "horizon_bars": 96,
        "break_even_r": 1.0,
        "trail_atr": 2.5,
        "min_stop_move_atr": 0.25,
        "fee_frac": 0.0,
        "market_frac": 0.0,
    } | changes
    event, at, net = walk_bracket(1.0, 0, opens, highs, lows, closes, *given_.values())
    return int(event), int(at), float(net)


def flat(count: int, price: float = 100.0) -> list[np.ndarray]:
    return [np.full(count, price) for _ in range(4)]


def test_a_walk_without_an_event_leaves_at_the_horizon_or_stays_unfinished() -> None:
    assert walk(*flat(96)) == (TIMED_OUT, 95, 0.0)
    assert walk(*flat(95))[0] == UNFINISHED


def test_a_walk_into_the_stop_loses_one_r_plus_costs() -> None:
    opens, highs, lows, closes = flat(5)
    lows[3] = 97.0
    assert walk(opens, highs, lows, closes) == (STOPPED, 3, -1.0)
    event, _, net = walk(opens, highs, lows, closes, fee_frac=0.001, market_frac=0.0003)
    assert event == STOPPED
    assert -1.12 < net < -1.08  # two fees of 0.1 % and two market costs of 0.03 % on a distance of 2.5 %


def test_half_is_taken_at_one_r_and_the_rest_at_the_target() -> None:
    opens, highs, lows, closes = flat(5)
    highs[1], highs[3] = 102.5, 105.0
    assert walk(opens, highs, lows, closes) == (TARGETED, 3, pytest.approx(0.5 * 1 + 0.5 * 2))


def test_after_the_close_at_one_r_the_rest_is_out_at_break_even() -> None:
    opens, highs, lows, closes = flat(6)
    highs[1] = closes[1] = opens[2] = highs[2] = closes[2] = lows[2] = 102.6
    opens[3] = highs[3] = 102.6
    lows[3] = 99.0
    event, at, net = walk(opens, highs, lows, closes)
    # Trailed to 100.1 behind the best close of 102.6; half had left at +1R.
    assert (event, at) == (STOPPED, 3)
    assert net == pytest.approx(0.5 * 1 + 0.5 * 0.1 / 2.5)


def test_a_moved_stop_acts_from_the_next_bar() -> None:
    opens, highs, lows, closes = flat(6)
    highs[1] = closes[1] = 104.0  # the bar that earns the move also dips under the new stop
    lows[1] = 99.0
    opens[2:], highs[2:], closes[2:], lows[2:] = 104.0, 104.0, 104.0, 103.0
    assert walk(opens, highs, lows, closes)[0] == UNFINISHED


def test_the_kernel_sees_nothing_after_the_exit() -> None:
    bars = random_bars(count=400)
    columns = [np.ascontiguousarray(c) for c in (bars.open, bars.high, bars.low, bars.close)]
    event, at, net = walk(*columns, atr=0.8)
    assert event in (STOPPED, TARGETED, TIMED_OUT)
    changed = [c.copy() for c in columns]
    for column in changed:
        column[at + 1 :] = 1.0
    assert walk(*changed, atr=0.8) == (event, at, net)


def test_the_order_edge_rounds_exactly() -> None:
    assert round_to_tick(D("1.2349"), D("0.01"), up=False) == D("1.23")
    assert round_to_tick(D("1.2301"), D("0.01"), up=True) == D("1.24")
    assert round_to_tick(D("1.23"), D("0.01"), up=True) == D("1.23")


@given(close=st.decimals("100", "140", places=2), best=st.decimals("100", "140", places=2))
@settings(max_examples=100, deadline=None)
def test_the_wrapper_stays_on_the_tick_and_keeps_the_exact_best_close(close: D, best: D) -> None:
    action = manage_on_close(position(best_close=best), close, 3, RULES, COSTS, TICK)
    assert action.best_close == max(close, best)
    if isinstance(action, MoveStop):
        assert action.price % TICK == 0
        assert action.price < close


def test_time_stop_is_counted_also_over_missing_bars() -> None:
    late = position(bar=position().bar - timedelta(minutes=15 * 96))
    assert bars_held(late, BAR_MS, STEP_MS) == 96


@pytest.mark.parametrize(
    "wrong",
    [{"horizon_bars": 0}, {"trail_atr": -1.0}, {"failed_stop_r": 0.0}, {"spread_bps": float("nan")}, {"fee_frac": "x"}],
)
def test_rules_that_no_position_can_follow_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must be a finite number|at least one bar"):
        replace(RULES, **wrong)
    with pytest.raises(ValueError, match="timeframe"):
        replace(RULES, decision_timeframe="17m")


def test_stored_rules_read_back_the_same_and_strangers_are_refused() -> None:
    assert decode(PositionRules, encode(RULES)) == RULES
    assert replace(PARAMS, max_positions=1, risk_frac=0.5).position_rules == RULES, "the other parameters are not in it"
    with pytest.raises(ValueError, match="no field"):
        decode(PositionRules, {**encode(RULES), "trail_r": 1})
