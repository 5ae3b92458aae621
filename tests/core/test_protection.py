"""What is done about one lot: protection is never made smaller, and no price of today takes it away."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.support.trading import NOW, D, instrument, order, position
from tradewind.core.brackets import floor_to_step
from tradewind.core.futures import make_brackets
from tradewind.core.protection import (
    Move,
    Step,
    covered,
    holds_nothing,
    is_fine,
    next_step,
    pooled,
    sellable,
    spare,
    to_protect,
    unresolved,
)
from tradewind.core.types import Balance, BookTop, Instrument, MarginRules, Minimums, Order, OrderRole, OrderState, Side

SOL = instrument()
CONTRACT = instrument(margin=MarginRules(3, make_brackets([("0", "0.01", 50)])))
HELD, TARGET = D("9.99"), D("105")


def book(bid: str = "100", ask: str | None = None) -> BookTop:
    return BookTop("SOL/USDT", D(bid), D(ask if ask is not None else bid), NOW)


NO_PRICES = [book("0"), book("NaN"), book("0", "101"), book("101", "0"), book("101", "100"), book("Infinity")]


def leg(role: OrderRole, quantity: str = "9.99", **changes: object) -> Order:
    made = order(
        "tws" + "0" * 32,
        role=role,
        is_buy=False,
        quantity=D(quantity),
        filled_quantity=D(0),
        state=OrderState.WORKING,
        stop_price=D("97.5") if role is OrderRole.STOP else None,
        price=None if role is OrderRole.STOP else TARGET,
        list_client_id="twl" + "0" * 32,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def pair(quantity: str = "9.99", **changes: object) -> list[Order]:
    return [leg(OrderRole.STOP, quantity, **changes), leg(OrderRole.TARGET, quantity)]


def step(orders: list[Order], **changes: object) -> Step:
    given_ = {
        "lot": 0,
        "held": HELD,
        "share": HELD,
        "position": position(),
        "target": TARGET,
        "book": book(),
        "instrument": SOL,
    } | changes
    return next_step(orders, **given_)  # type: ignore[arg-type]


# --------------------------------------------------------------------------------------------------------------- steps
def test_what_rests_as_wanted_is_kept_whatever_the_book_says() -> None:
    for seen in (book(), book("60"), book("0.01"), *NO_PRICES):
        assert step(pair(), book=seen) == Step(Move.KEEP)


def test_a_moved_stop_is_placed_and_one_that_is_passed_leaves() -> None:
    moved = position(stop_price=D("99"))
    assert step(pair(), position=moved) == Step(Move.PLACE, HELD)
    assert step(pair(), position=moved, book=book("98.5")) == Step(Move.LEAVE)
    assert step(pair(), position=moved, book=book("105")) == Step(Move.LEAVE)
    assert step([], book=book()) == Step(Move.PLACE, HELD)


@pytest.mark.parametrize("seen", NO_PRICES)
def test_what_is_no_price_moves_nothing_and_keeps_nothing_from_being_placed(seen: BookTop) -> None:
    kept = step(pair(), position=position(stop_price=D("99")), book=seen)
    assert kept.move is Move.KEEP
    assert "no price" in kept.words
    assert step([], book=seen) == Step(Move.PLACE, HELD)


def test_a_new_stop_for_less_than_the_old_one_covers_is_not_placed() -> None:
    kept = step(pair(), share=D("4"), position=position(stop_price=D("99")))
    assert kept.move is Move.KEEP
    assert "covers 9.99 and is left" in kept.words
    # What the old one does not cover may be covered by a new one, as far as it is there.
    assert step(pair("3"), share=D("4")) == Step(Move.PLACE, D("4.000"))


def test_a_stop_for_more_than_the_exchange_takes_is_not_placed() -> None:
    small = instrument(max_market_quantity=D("5"))
    moved = position(stop_price=D("99"))
    assert step(pair(), position=moved, instrument=small).move is Move.KEEP
    assert step([], instrument=small) == Step(Move.LEAVE), "what cannot be protected is left, in slices"


def test_dust_alone_is_cleared_and_never_by_a_price() -> None:
    for seen in (book(), book("0.01"), *NO_PRICES):
        for held, move in (("0.04", Move.CLEAR), ("0", Move.CLEAR), ("0.06", Move.KEEP)):
            own = position(quantity=D(held))
            assert step(pair("0.06"), held=D(held), share=D(held), position=own, book=seen).move is move


def test_more_than_dust_and_too_little_for_a_stop_keeps_what_rests() -> None:
    """0.0505 is worth 5.05 at the entry and 4.92 at the stop: a target filled in part may rest for it."""
    rests = [leg(OrderRole.TARGET, "0.0505", state=OrderState.PARTIAL)]
    assert step(rests, held=D("0.0505"), share=D("0.0505"), instrument=instrument(step_size=D("0.0001"))) == Step(
        Move.KEEP
    )


def test_a_tick_that_became_coarser_moves_nothing_by_itself() -> None:
    coarse = instrument(tick_size=D("0.2"))
    resting = position(stop_price=D("97.47"))
    assert step(pair(stop_price=D("97.47")), position=resting, instrument=coarse) == Step(Move.KEEP)
    assert step(pair(stop_price=D("97.6")), position=resting, instrument=coarse) == Step(Move.KEEP)
    assert step(pair(stop_price=D("97.2")), position=resting, instrument=coarse) == Step(Move.PLACE, HELD)


def test_legs_that_take_in_dust_of_earlier_positions_are_fine() -> None:
    """Where the exchange sizes the legs from the proceeds it takes the commission from free dust of ours."""
    legs = pair("10")
    assert not is_fine(legs, 0, HELD, position(), SOL)
    assert step(legs, over=D("0.01")) == Step(Move.KEEP)
    assert step(legs, over=D("0.009")) == Step(Move.PLACE, HELD)


def test_what_reduces_a_contract_may_be_of_any_notional() -> None:
    tiny = position(side=Side.SHORT, quantity=D("0.002"), entry_price=D("100"), stop_price=D("104"))
    found = step([], held=D("0.002"), share=D("0.002"), position=tiny, target=D("90"), instrument=CONTRACT, book=book())
    assert found == Step(Move.PLACE, D("0.002"))
    assert not holds_nothing(D("0.002"), tiny, CONTRACT)
    assert holds_nothing(D("0.0009"), tiny, CONTRACT)


quantities = st.decimals("0", "12", places=4)
prices = st.sampled_from([book(), book("98"), book("97.5"), book("106"), book("60"), book("0.01"), *NO_PRICES])


@given(
    held=quantities,
    share=quantities,
    stopped=quantities,
    filled=st.decimals("0", "1", places=2),
    has_target=st.booleans(),
    has_stop=st.booleans(),
    stop=st.sampled_from(["97.5", "99", "101"]),
    seen=prices,
    over=st.sampled_from(["0", "0.01", "5"]),
    rules=st.sampled_from([SOL, CONTRACT, instrument(max_market_quantity=D(5)), instrument(tick_size=D("0.3"))]),
)
def test_whatever_is_seen_protection_never_becomes_smaller(
    held: D, share: D, stopped: D, filled: D, has_target: bool, has_stop: bool, stop: str, seen: BookTop, over: str,
    rules: Instrument,
) -> None:  # fmt: skip
    own = position(stop_price=D(stop), quantity=held)
    orders = [leg(OrderRole.STOP, str(stopped), filled_quantity=stopped * filled)] if has_stop else []
    orders += [leg(OrderRole.TARGET, str(stopped))] if has_target else []
    found = step(orders, held=held, share=share, position=own, book=seen, over=D(over), instrument=rules)
    amount = floor_to_step(held, rules.step_size)
    before = min(covered(orders, 0), amount)
    if found.move is Move.PLACE:
        assert before <= found.quantity <= floor_to_step(min(held, share), rules.step_size)
        assert found.quantity <= rules.max_market_quantity
    elif found.move is Move.CLEAR:
        assert holds_nothing(amount, own, rules)
    elif found.move is Move.LEAVE:
        assert not holds_nothing(amount, own, rules)
        assert seen.bid.is_finite() or not orders
    if found.words:
        assert found.move is Move.KEEP
    for other in NO_PRICES:
        blind = step(orders, held=held, share=share, position=own, book=other, over=D(over), instrument=rules)
        assert (blind.move is Move.CLEAR) == (found.move is Move.CLEAR), "a price cleared what rests"
        assert blind.move is not Move.LEAVE or not orders


# ---------------------------------------------------------------------------------------------------- what is there
def share_of(total: str, *, locked: str = "0", quantity: str = "9.99", **changes: object) -> Decimal:
    given_ = {
        "position": position(quantity=D(quantity)),
        "orders": [],
        "balance": Balance("SOL", D(total) - D(locked), D(locked)),
        "baseline": D(0),
        "others": D(0),
        "instrument": SOL,
    } | changes
    return sellable(**given_)  # type: ignore[arg-type]


def test_the_position_comes_before_the_baseline() -> None:
    """Of a baseline of 2 the person sold 1.5, or fees took them: what fills prove is sold whole."""
    assert share_of("10.49", baseline=D(2)) == HELD
    assert share_of("9", baseline=D(2)) == 9
    assert share_of("0", baseline=D(2)) == 0


def test_while_an_exit_may_have_sold_the_baseline_is_not_touched() -> None:
    exit_ = order("twx" + "0" * 32, role=OrderRole.EXIT, state=OrderState.UNKNOWN, quantity=D(6), filled_quantity=D(0))
    assert unresolved([exit_]) == 6
    # It was executed: 3.99 of ours and the 2 of the baseline are left. Or it was not, and the person sold 6.
    assert share_of("5.99", baseline=D(2), orders=[exit_]) == D("3.99")
    assert share_of("11.99", baseline=D(2), orders=[exit_]) == HELD
    assert share_of("11.99", baseline=D(2), orders=[replace(exit_, state=OrderState.FILLED)]) == HELD
    # So may a pair that was sent and not answered: its stop and its target would sell the same.
    sent = [replace(own, state=OrderState.UNKNOWN) for own in pair("6")]
    assert share_of("5.99", baseline=D(2), orders=sent) == D("3.99")


def test_coins_that_a_persons_order_has_locked_are_not_there() -> None:
    assert share_of("11.99", locked="4", baseline=D(2)) == D("7.99")
    ours = pair("4", list_client_id="twl" + "0" * 32)
    assert share_of("11.99", locked="4", baseline=D(2), orders=ours) == HELD, "what our own pair locks comes back"


def test_a_contract_can_be_reduced_as_far_as_its_net_quantity_goes() -> None:
    short = position(side=Side.SHORT, quantity=D(3))
    net = Balance("SOL", D("-2"), D(0))
    assert share_of("0", position=short, balance=net, instrument=CONTRACT) == 2
    assert share_of("0", position=short, balance=Balance("SOL", D(2), D(0)), instrument=CONTRACT) == 0


@given(first=quantities, second=quantities, total=quantities)
def test_two_positions_never_sell_the_same_coins(first: D, second: D, total: D) -> None:
    """An adopted purchase may stand beside a position of the strategy's in the same asset."""
    shares = [
        share_of(str(total), quantity=str(own), others=other) for own, other in ((first, second), (second, first))
    ]
    assert sum(shares) <= total + D("1e-20")
    if first + second <= total:
        assert shares == [first, second]


def test_only_what_fills_left_is_dust_of_ours() -> None:
    there = Balance("SOL", D("12.05"), D(0))
    assert spare(there, D(2), D("10.04"), HELD, SOL) == D("0.05")
    assert spare(there, D(2), D("12"), HELD, SOL) == D("0.06"), "no more than lies there over the baseline"
    assert spare(there, D(0), D("9.99"), HELD, SOL) == 0, "the rest was paid in by a person"
    assert spare(there, D(0), D("12.05"), HELD, CONTRACT) == 0


# ---------------------------------------------------------------------------------------------------------------- lots
def test_rests_of_two_lots_that_are_dust_alone_leave_together() -> None:
    own = position(quantity=D("0.07"))
    assert pooled({0: D("0.03"), 1: D("0.04")}, own, SOL) == {0: 0, 1: D("0.07")}
    assert pooled({0: D("0.01"), 1: D("0.03")}, own, SOL) == {0: D("0.01"), 1: D("0.03")}, "dust in all"
    assert pooled({0: D("0.03"), 1: D("0.09")}, own, SOL) == {0: D("0.03"), 1: D("0.09")}, "each on its own"
    assert pooled({0: D("0.03"), 1: D("-0.03")}, own, SOL) == {0: D("0.03"), 1: 0}


def test_a_stop_is_wanted_for_what_no_exit_at_the_exchange_is_about_to_sell() -> None:
    lots, own = {0: D("0.03"), 1: D("0.04")}, position(quantity=D("0.07"))
    assert to_protect(lots, own, SOL, []) == {0: 0, 1: D("0.07")}
    assert to_protect(lots, own, SOL, pair("0.03")) == lots, "a stop rests: each keeps its own"
    leaving = order("twx" + "0" * 32, role=OrderRole.EXIT, lot=0, quantity=D(6), filled_quantity=D(2))
    for state, wanted in ((OrderState.PARTIAL, "5.99"), (OrderState.WORKING, "5.99"), (OrderState.UNKNOWN, "9.99")):
        orders = [replace(leaving, state=state)]
        assert to_protect({0: HELD}, position(), SOL, orders) == {0: D(wanted)}, "what may not have arrived is no exit"


def test_a_minimum_that_grew_takes_no_stop_away() -> None:
    """Lots that could be entered yesterday are dust alone today: their stops rest, and together they are none."""
    own = position(quantity=D("0.12"))
    grown = instrument(min_notional_quote=D(10))
    assert step(pair("0.06"), held=D("0.06"), share=D("0.06"), position=own, instrument=grown) == Step(Move.KEEP)
    moved = replace(own, stop_price=D("99"))
    assert step(pair("0.06"), held=D("0.06"), share=D("0.06"), position=moved, instrument=grown) == Step(Move.KEEP)


def test_a_step_that_grew_takes_no_stop_away() -> None:
    """9.99 are less than one step of 20 by now: nothing could be placed anew, and what rests is all there is."""
    grown = instrument(step_size=D(20), min_quantity=D(20))
    opened = position(minimums=Minimums.of(SOL))
    assert step(pair(), position=opened, instrument=grown) == Step(Move.KEEP)
    assert is_fine(pair(), 0, D("9.99"), opened, grown)


@given(st.dictionaries(st.integers(0, 3), quantities, min_size=1, max_size=4))
def test_pooling_neither_makes_nor_loses_anything(lots: dict[int, D]) -> None:
    assume(any(lots.values()))
    assert sum(pooled(lots, position(), SOL).values()) == sum(lots.values())
