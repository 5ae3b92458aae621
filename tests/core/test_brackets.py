from __future__ import annotations

from dataclasses import replace
from decimal import ROUND_FLOOR

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.trading import BAR, NOW, PARAMS, D, cycle, instrument, order, position, symbol_inputs
from tradewind.core.brackets import (
    entry_limit_price,
    floor_to_step,
    held_after_fee,
    initial_stop_price,
    next_generation,
    on_tick,
    plan_entry,
    plan_exit,
    plan_protection,
    slices,
    split_lots,
    target_price,
)
from tradewind.core.decision import decide
from tradewind.core.futures import make_brackets
from tradewind.core.orders import client_order_id, is_ours
from tradewind.core.params import Geometry
from tradewind.core.protection import is_through
from tradewind.core.types import BookTop, Intent, MarginRules, OrderRole, OrderState, Side

SOL = instrument()
GEOMETRY = Geometry(2.5, 2.0)
BOOK = BookTop("SOL/USDT", D("100"), D("100.01"), NOW)


def intent() -> Intent:
    decided = decide(cycle(symbol_inputs()))[0].intent
    assert decided is not None
    return decided


def test_the_entry_is_a_tenth_of_an_atr_through_the_price() -> None:
    assert entry_limit_price(Side.LONG, D("100"), 1.239, PARAMS, SOL) == D("100.12")
    assert entry_limit_price(Side.SHORT, D("100"), 1.239, PARAMS, SOL) == D("99.88")


def test_stop_and_targets_by_geometry() -> None:
    stop = initial_stop_price(Side.LONG, D("100"), 1.234, GEOMETRY, SOL)
    assert stop == D("96.91")  # 96.915, rounded away from the entry
    assert target_price(Side.LONG, D("100"), stop, 2.0, SOL) == D("106.18")
    short_stop = initial_stop_price(Side.SHORT, D("100"), 1.234, GEOMETRY, SOL)
    assert short_stop == D("103.09")
    assert target_price(Side.SHORT, D("100"), short_stop, 2.0, SOL) == D("93.82")


@given(
    st.decimals("0", "1000000", places=12),
    st.sampled_from(["1", "0.1", "0.001", "0.00000001", "5", "0.025"]),
)
def test_flooring_to_the_step_never_rounds_up_nor_loses_a_step(quantity: D, step: str) -> None:
    floored = floor_to_step(quantity, D(step))
    assert 0 <= quantity - floored < D(step)
    assert (floored / D(step)) % 1 == 0


def test_float_noise_does_not_lose_a_step() -> None:
    assert floor_to_step(D("0.3"), D("0.1")) == D("0.3")  # 0.3 / 0.1 is 2.9999999999999996 in floats


def test_what_can_be_sold_is_net_of_the_commission() -> None:
    assert held_after_fee(D("0.01"), instrument(step_size=D("0.00001"))) == D("0.00999")


def test_two_lots_where_each_is_over_the_minimum() -> None:
    lots = split_lots(D("1"), Side.LONG, D("100"), D("100.1"), D("97.5"), GEOMETRY, PARAMS, SOL)
    assert [(lot.lot, lot.quantity, lot.target_price) for lot in lots] == [
        (0, D("0.500"), D("102.50")),
        (1, D("0.500"), D("105.00")),
    ]


def test_one_lot_where_a_half_would_be_under_it_at_the_stop() -> None:
    # Half of 0.104 is worth 5.2 at the entry, but less than 5 at the stop after the commission.
    lots = split_lots(D("0.104"), Side.LONG, D("100"), D("100.1"), D("95"), GEOMETRY, PARAMS, SOL)
    assert [(lot.lot, lot.quantity, lot.target_price) for lot in lots] == [(0, D("0.104"), D("110.00"))]


def test_one_lot_where_a_half_would_be_under_it_at_the_limit_of_a_short() -> None:
    rules = instrument(min_notional_quote=D(100), margin=MarginRules(3, make_brackets([("0", "0.01", 50)])))
    for quantity, count in (("2.001", 1), ("2.004", 2)):  # halves of 1.000 and 1.002, worth 99.90 and 100.09
        lots = split_lots(D(quantity), Side.SHORT, D("100"), D("99.9"), D("102.5"), GEOMETRY, PARAMS, rules)
        assert len(lots) == count


@given(quantity=st.decimals("0.001", "5000", places=3), frac=st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]))
def test_lots_always_add_up_and_each_is_tradable_or_alone(quantity: D, frac: float) -> None:
    lots = split_lots(
        quantity, Side.LONG, D("100"), D("100.1"), D("97"), GEOMETRY, replace(PARAMS, partial_frac=frac), SOL
    )
    assert sum(lot.quantity for lot in lots) == quantity
    assert lots[-1].target_price == D("106.00")
    if len(lots) == 2:
        assert lots[0].target_price == D("103.00")
        assert all(held_after_fee(lot.quantity, SOL) * 97 >= 5 for lot in lots)


def test_the_rows_of_an_entry() -> None:
    made = intent()
    lists = plan_entry(made, SOL, NOW)
    assert len(lists) == len(made.lots) == 2
    ids = set()
    for legs, lot in zip(lists, made.lots, strict=True):
        entry, stop, target = legs.entry, legs.stop, legs.target
        assert (entry.is_buy, stop.is_buy, target.is_buy) == (True, False, False)
        assert (entry.order_type, stop.order_type, target.order_type) == ("LIMIT", "STOP_LOSS", "LIMIT_MAKER")
        assert (entry.price, stop.price, target.price) == (made.entry_limit_price, None, lot.target_price)
        assert (entry.stop_price, stop.stop_price, target.stop_price) == (None, made.stop_price, None)
        assert entry.quantity == lot.quantity
        assert stop.quantity == target.quantity == (lot.quantity * D("0.999")).quantize(D("0.001"), ROUND_FLOOR)
        for row in (entry, stop, target):
            assert row.state is OrderState.PLANNED
            assert row.list_client_id == legs.list_client_id
            assert row.position_id == made.intent_id
            assert is_ours(row.client_order_id)
            ids |= {row.client_order_id, row.list_client_id}
    assert len(ids) == 8
    assert plan_entry(made, SOL, NOW) == lists  # planned again, the same ids


def test_protection_is_floored_and_named_by_its_generation() -> None:
    held = position()
    pair = plan_protection(held, 1, D("4.9955"), D("99"), D("105"), 2, BOOK, SOL, NOW, "moved")
    assert pair is not None
    stop, target = pair
    assert stop.quantity == target.quantity == D("4.995")
    assert (stop.stop_price, target.price) == (D("99"), D("105"))
    assert stop.list_client_id == target.list_client_id
    assert stop.client_order_id == client_order_id("test", "1-x", "SOL/USDT", BAR, 1, OrderRole.STOP, 2)
    assert plan_protection(held, 1, D("0.0504"), D("99"), D("105"), 2, BOOK, SOL, NOW) is None  # 4.95 at the stop


def test_an_exit_of_dust_is_not_planned() -> None:
    assert plan_exit(position(), 0, D("0.04"), D("100"), 1, SOL, NOW, "flatten") is None
    made = plan_exit(position(), 0, D("9.9907"), D("100"), 1, SOL, NOW, "flatten")
    assert made is not None
    assert (made.order_type, made.quantity, made.is_buy, made.reason) == ("MARKET", D("9.990"), False, "flatten")
    short = plan_exit(position(side=Side.SHORT), 0, D("9"), D("100"), 1, SOL, NOW, "flatten")
    assert short is not None
    assert short.is_buy


@pytest.mark.parametrize(("existing", "expected"), [([], 0), ([0, 3, 1], 4)])
def test_generations_are_never_used_twice(existing: list[int], expected: int) -> None:
    rows = [order(generation=generation, lot=1) for generation in existing] + [order(generation=9, lot=0)]
    assert next_generation(rows, 1) == expected


@given(
    stop=st.decimals("90", "99.98", places=2),
    target=st.decimals("100.02", "120", places=2),
    tick=st.sampled_from(["0.01", "0.05", "0.1", "0.3", "1"]),
    side=st.sampled_from(list(Side)),
)
def test_a_coarser_tick_moves_stop_and_target_by_less_than_one_and_through_nothing(
    stop: D, target: D, tick: str, side: Side
) -> None:
    rules = instrument(tick_size=D(tick))
    book = BookTop("SOL/USDT", D("99.99"), D("100.01"), NOW)
    if side is Side.SHORT:
        stop, target = 200 - stop, 200 - target
    new_stop, new_target = on_tick(side, stop, target, book, rules)
    assert new_stop % D(tick) == new_target % D(tick) == 0
    assert abs(new_stop - stop) < D(tick)
    assert 0 <= (new_target - target) * (1 if side is Side.LONG else -1) < D(tick), "away from the price"
    assert not is_through(side, new_stop, new_target, book)
    nearer = (new_stop - stop) * (1 if side is Side.LONG else -1)
    assert nearer >= 0 or is_through(side, new_stop + (D(tick) if side is Side.LONG else -D(tick)), new_target, book)


@given(steps=st.integers(0, 100_000), most=st.decimals("0.001", "30", places=4))
def test_slices_are_even_on_the_step_and_add_up(steps: int, most: D) -> None:
    rules = instrument(max_market_quantity=most)
    quantity = steps * rules.step_size
    parts = slices(quantity, rules)
    assert sum(parts) == quantity
    assert all(0 < part <= most and part % rules.step_size == 0 for part in parts)
    assert not parts or max(parts) - min(parts) <= rules.step_size
    assert len(parts) == -(-steps // int(most / rules.step_size))
