from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.trading import NOW, D, fill, instrument, order, position
from tradewind.core.ledger import (
    apply_fills,
    closed_trade,
    closing_reason,
    is_dust,
    lot_quantities,
    net_r,
    signed_quantity,
    total,
    written_off,
)
from tradewind.core.types import Fill, Minimums, OrderRole, OrderState, PositionStatus, Side

SOL = instrument()
OPENING = replace(
    position(), status=PositionStatus.OPENING, opened_at=None, quantity=D(0), entry_quantity=D(0), entry_price=None
)
ENTRY = order()
STOP = order("tws" + "0" * 32, role=OrderRole.STOP, is_buy=False, state=OrderState.WORKING, filled_quantity=D(0))
DONE_STOP = replace(STOP, state=OrderState.FILLED)


def buy(trade_id: str = "1", quantity: str = "10", price: str = "100", **changes: object) -> Fill:
    return fill(trade_id, is_buy=True, quantity=quantity, price=price, **changes)


def sell(trade_id: str = "9", quantity: str = "9.99", price: str = "105", **changes: object) -> Fill:
    return fill(trade_id, is_buy=False, quantity=quantity, price=price, client_order_id=STOP.client_order_id, **changes)


def test_a_fee_in_base_shrinks_what_is_held() -> None:
    after = apply_fills(OPENING, [buy(fee=D("0.01"), fee_asset="SOL")], [ENTRY, STOP], SOL)
    assert after.status is PositionStatus.OPEN
    assert (after.quantity, after.entry_quantity, after.entry_price) == (D("9.99"), D(10), D(100))
    assert after.fees_quote == D(1)
    assert after.realised_quote == 0


def test_closing_realises_the_cash_that_moved() -> None:
    fills = [buy(fee=D("0.01"), fee_asset="SOL"), sell(fee=D("1.04895"))]
    after = apply_fills(OPENING, fills, [ENTRY, DONE_STOP], SOL)
    assert after.status is PositionStatus.CLOSED
    assert after.quantity == 0
    assert after.realised_quote == D("9.99") * 105 - 1000 - D("1.04895")
    trade = closed_trade(after)
    assert trade is not None
    assert trade.net_quote == after.realised_quote
    assert trade.net_r == pytest.approx(float(after.realised_quote) / 25)


def test_an_entry_of_the_same_millisecond_closed_nothing_that_was_sold() -> None:
    orders = [ENTRY, DONE_STOP]
    assert closing_reason([sell("0d3f"), buy("f00d")], orders) == "stop"
    assert closing_reason([buy()], orders) == "entry", "dust: nothing was ever let go"
    assert closing_reason([], orders) == "not_filled"


def test_an_exit_is_told_by_its_reason() -> None:
    left = replace(STOP, role=OrderRole.EXIT, reason="time_stop")
    assert closing_reason([buy(), sell()], [ENTRY, left]) == "time_stop"
    assert closing_reason([buy(), sell()], [ENTRY]) == "exit", "sold by an order that is not in the ledger"


def test_a_part_carries_its_share_of_the_cost() -> None:
    fills = [buy(fee=D("1")), sell(quantity="5", price="102", fee=D("0.51"))]
    after = apply_fills(OPENING, fills, [ENTRY, STOP], SOL)
    assert after.status is PositionStatus.OPEN
    assert after.quantity == 5
    assert after.realised_quote == D(510) - D(500) - D("0.5") - D("0.51")


def test_a_short_wins_when_it_falls() -> None:
    short = replace(OPENING, side=Side.SHORT, initial_stop_price=D("102.5"))
    opened = fill("1", is_buy=False, quantity="10", price="100", fee=D(1))
    half = fill("2", is_buy=True, quantity="5", price="98", fee=D("0.5"))
    after = apply_fills(short, [opened, half], [replace(ENTRY, is_buy=False), STOP], SOL)
    assert after.realised_quote == D(10) - D("0.5") - D("0.5")
    assert signed_quantity(after) == -5
    rest = fill("3", is_buy=True, quantity="5", price="98")
    closed = apply_fills(short, [opened, half, rest], [replace(ENTRY, is_buy=False), DONE_STOP], SOL)
    assert closed.realised_quote == D(20) - D("1.5")
    assert net_r(closed) == pytest.approx(18.5 / 25)


def test_a_fee_in_a_third_asset_needs_its_price() -> None:
    fills = [buy(fee=D("0.002"), fee_asset="BNB")]
    with pytest.raises(KeyError, match="BNB"):
        apply_fills(OPENING, fills, [ENTRY, STOP], SOL)
    after = apply_fills(OPENING, fills, [ENTRY, STOP], SOL, {"BNB": D(500)})
    assert after.quantity == 10
    assert after.fees_quote == D(1)


def test_a_remainder_that_was_no_order_at_the_entrys_price_is_dust() -> None:
    fills = [buy(), sell(quantity="9.96", price="105")]
    after = apply_fills(OPENING, fills, [ENTRY, DONE_STOP], SOL)
    assert after.status is PositionStatus.DUST
    assert after.quantity == D("0.04")
    assert after.realised_quote == D("9.96") * 105 - 1000
    below_the_step = apply_fills(OPENING, [buy(price="9000"), sell(quantity="9.9995")], [ENTRY, DONE_STOP], SOL)
    assert below_the_step.status is PositionStatus.DUST


def test_what_was_an_order_at_the_entrys_price_stays_a_position() -> None:
    """The minimum is 5: 0.06 were bought for 6 and sell for 3 by now, which is a loss and no dust."""
    fills = [buy(), sell(quantity="9.94", price="50")]
    after = apply_fills(OPENING, fills, [ENTRY, DONE_STOP], SOL)
    assert after.status is PositionStatus.OPEN
    assert after.quantity == D("0.06")


def test_dust_is_judged_on_whole_steps() -> None:
    assert is_dust(D("0.04"), D(105), SOL)
    assert not is_dust(D("0.05"), D(105), SOL)
    assert not is_dust(D(0), D(105), SOL)
    assert is_dust(D("0.0009"), D(90000), SOL)


def test_a_minimum_that_grew_makes_no_dust() -> None:
    """It was an order when it was opened: what the exchange asks for later is its affair, and no end of a position."""
    opened = replace(OPENING, minimums=Minimums.of(SOL))
    grown = replace(SOL, min_notional_quote=D(5000), step_size=D(20), min_quantity=D(20))
    for today in (grown, replace(SOL, min_notional_quote=D(5000)), replace(SOL, step_size=D(20))):
        assert apply_fills(opened, [buy()], [ENTRY, DONE_STOP], today).status is PositionStatus.OPEN
        assert apply_fills(OPENING, [buy()], [ENTRY, DONE_STOP], today).status is PositionStatus.DUST
    shrunk = replace(SOL, min_notional_quote=D(1))
    rest = [buy(), sell(quantity="9.96", price="105")]
    assert apply_fills(opened, rest, [ENTRY, DONE_STOP], shrunk).status is PositionStatus.OPEN, "sold by today's rules"
    assert apply_fills(opened, rest, [ENTRY, DONE_STOP], grown).status is PositionStatus.DUST


def test_what_was_written_off_stays_closed_and_counts_what_its_fills_moved() -> None:
    held = apply_fills(OPENING, [buy(fee=D(1))], [ENTRY, STOP], SOL)
    closed = written_off(held, [buy(fee=D(1))], D(0), NOW)
    assert (closed.status, closed.exit_reason, closed.closed_at) == (PositionStatus.CLOSED, "written_off", NOW)
    assert (closed.quantity, closed.realised_quote) == (D(10), D(-1001))
    assert apply_fills(closed, [buy(fee=D(1))], [ENTRY, STOP], SOL) == closed
    late = apply_fills(closed, [buy(fee=D(1)), sell(quantity="4", price="50")], [ENTRY, DONE_STOP], SOL)
    assert (late.status, late.quantity, late.realised_quote) == (PositionStatus.CLOSED, D(6), D(-801))
    assert written_off(held, [buy(fee=D(1))], D(900), NOW).realised_quote == D(-101), "what the exchange paid for it"


def test_a_fee_in_a_third_asset_is_in_the_loss_of_what_was_written_off() -> None:
    bought = [buy(fee=D("0.002"), fee_asset="BNB")]
    held = apply_fills(OPENING, bought, [ENTRY, STOP], SOL, {"BNB": D(500)})
    assert written_off(held, bought, D(0), NOW).realised_quote == D(-1001)


def test_it_is_not_dust_while_an_exit_still_rests_nor_closed_while_an_entry_may_fill() -> None:
    fills = [buy(), sell(quantity="9.96", price="105")]
    assert apply_fills(OPENING, fills, [ENTRY, STOP], SOL).status is PositionStatus.OPEN
    working = replace(ENTRY, state=OrderState.WORKING)
    assert apply_fills(OPENING, [buy(), sell(quantity="10")], [working], SOL).status is PositionStatus.OPEN
    assert apply_fills(OPENING, [], [working], SOL).status is PositionStatus.OPENING


def test_an_entry_that_did_not_fill_is_over() -> None:
    expired = replace(ENTRY, state=OrderState.EXPIRED, filled_quantity=D(0))
    after = apply_fills(OPENING, [], [expired], SOL)
    assert (after.status, after.exit_reason, after.closed_at) == (PositionStatus.CLOSED, "not_filled", NOW)
    assert closed_trade(after) is None
    assert net_r(after) == 0


def test_closing_stays_closing_until_it_is_over() -> None:
    closing = replace(position(), status=PositionStatus.CLOSING)
    assert apply_fills(closing, [buy()], [ENTRY, STOP], SOL).status is PositionStatus.CLOSING


def test_two_fills_of_one_name_that_differ_are_not_believed() -> None:
    with pytest.raises(ValueError, match="called 1"):
        total([buy(), buy(price="101")], Side.LONG, SOL)


def test_lots_are_told_apart_by_their_orders() -> None:
    second = order("twe" + "1" * 32, lot=1)
    fills = [
        buy("1", "6"),
        buy("2", "4", client_order_id=second.client_order_id, fee=D("0.004"), fee_asset="SOL"),
        sell("3", "6"),
        buy("4", "7", client_order_id="web_1"),
    ]
    assert lot_quantities([ENTRY, second, STOP], fills, Side.LONG, SOL) == {0: D(0), 1: D("3.996")}


FILLS = st.lists(
    st.builds(
        lambda i, b, q, p, fee, asset: fill(
            str(i), is_buy=b, quantity=str(q), price=str(p), fee=fee, fee_asset=asset, at=NOW + timedelta(seconds=i)
        ),
        st.integers(1, 10_000),
        st.booleans(),
        st.decimals("0.001", "1000", places=3),
        st.decimals("0.01", "100000", places=2),
        st.decimals("0", "5", places=8),
        st.sampled_from(["USDT", "SOL", "BNB"]),
    ),
    max_size=12,
    unique_by=lambda f: f.trade_id,
)


@given(FILLS, st.randoms(), st.sampled_from(list(Side)))
@settings(deadline=None)
def test_order_and_repetition_change_nothing_and_money_is_conserved(
    fills: list[Fill], random: object, side: Side
) -> None:
    once = total(fills, side, SOL)
    shuffled = [*fills, *fills[:5]]
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    again = total(shuffled, side, SOL)
    assert again == once
    # What left the quote balance and what came into the base balance, to the last digit.
    signed = [(1 if f.is_buy else -1, f) for f in fills]
    assert once.cash_quote == -sum((s * f.quantity * f.price for s, f in signed), Decimal(0)) - sum(
        (f.fee for f in fills if f.fee_asset == "USDT"), Decimal(0)
    )
    base = sum((s * f.quantity for s, f in signed), Decimal(0)) - sum(
        (f.fee for f in fills if f.fee_asset == "SOL"), Decimal(0)
    )
    assert (once.entry_quantity - once.exit_quantity) * (1 if side is Side.LONG else -1) - once.base_fees == base
    assert sum(once.other_fees.values(), Decimal(0)) == sum((f.fee for f in fills if f.fee_asset == "BNB"), Decimal(0))


@given(
    st.lists(st.tuples(st.decimals("0.1", "5", places=3), st.decimals("50", "150", places=2)), min_size=1, max_size=6),
    st.decimals("90", "110", places=2),
)
@settings(deadline=None)
def test_partial_results_add_up_to_the_whole(exits: list[tuple[Decimal, Decimal]], price: Decimal) -> None:
    whole = sum((q for q, _ in exits), Decimal(0))
    fills = [buy("0", str(whole), str(price), at=NOW - timedelta(hours=1))]
    for i, (quantity, at) in enumerate(exits, start=1):
        fills.append(sell(str(i), str(quantity), str(at), at=NOW + timedelta(seconds=i)))
        after = apply_fills(OPENING, fills, [ENTRY, STOP], SOL)
        assert after.quantity == whole - sum((q for q, _ in exits[:i]), Decimal(0))
        so_far = sum((q * (p - price) for q, p in exits[:i]), Decimal(0))
        assert abs(after.realised_quote - so_far) < Decimal("1e-18")
    closed = apply_fills(OPENING, fills, [ENTRY, DONE_STOP], SOL)
    assert closed.status is PositionStatus.CLOSED
    assert closed.realised_quote == so_far
