from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest

from tests.support.trading import BAR, BAR_MS, PARAMS, STEP_MS, D, cycle, instrument, symbol_inputs
from tradewind.backtest.account import SimulatedAccount
from tradewind.backtest.booking import matching_settings
from tradewind.backtest.holding import Holding
from tradewind.core.decision import decide
from tradewind.core.ledger import total
from tradewind.core.matching_book import BarTicks
from tradewind.core.matching_rules import amount
from tradewind.core.matching_types import NewOrder, OrderKind, OrderSide
from tradewind.core.types import BracketSupport, Intent, OrderRole, OrderState, PositionStatus, RegimeFamily, Side

OPEN_MS = BAR_MS + STEP_MS


def intent() -> Intent:
    decided = decide(cycle(symbol_inputs()))[0].intent
    assert decided is not None
    return decided


def account(bracket: BracketSupport = BracketSupport.OTOCO, volume: float = 50_000.0) -> SimulatedAccount:
    rules = instrument(bracket=bracket)
    made = SimulatedAccount("test", {"SOL/USDT": rules}, D(10_000), matching_settings(PARAMS))
    feed_price(made, 100.0, OPEN_MS, volume)
    return made


def feed_price(made: SimulatedAccount, price: float, at_ms: int, volume: float = 50_000.0) -> None:
    made.feed_price("SOL/USDT", round(price * 100), int(volume * 1000), at_ms, at_ms)


def entered(made: SimulatedAccount) -> Holding:
    return made.enter(intent(), RegimeFamily.TRENDING, "trending_weak", OPEN_MS)


def bar(made: SimulatedAccount, number: int, *prices: float, volume: float = 50_000.0) -> None:
    at = OPEN_MS + number * STEP_MS
    opened, high, low, close = (round(price * 100) for price in prices)
    made.feed_bar("SOL/USDT", BarTicks(opened, high, low, close, int(volume * 1000)), at, at + STEP_MS - 1)


def resting(holding: Holding, role: OrderRole) -> list[tuple[int, Decimal]]:
    live = (OrderState.WORKING, OrderState.PARTIAL)
    return sorted((o.lot, o.quantity) for o in holding.orders.values() if o.role is role and o.state in live)


@pytest.mark.parametrize("bracket", [BracketSupport.OTOCO, BracketSupport.OPOCO, BracketSupport.EMULATED])
def test_a_filled_entry_is_protected_in_both_lots_at_once(bracket: BracketSupport) -> None:
    made = account(bracket)
    holding = entered(made)
    assert holding.position.status is PositionStatus.OPEN
    stops, targets = resting(holding, OrderRole.STOP), resting(holding, OrderRole.TARGET)
    assert [lot for lot, _ in stops] == [0, 1]
    assert stops == targets
    held = made.held_lots(holding)
    assert all(0 <= held[lot] - quantity < D("0.002") for lot, quantity in stops)
    assert not made.unprotected(holding)


def test_the_ledger_and_the_exchange_hold_the_same_to_the_last_digit() -> None:
    made = account()
    holding = entered(made)
    bar(made, 1, 100, 102.7, 99, 102)
    bar(made, 2, 102, 106, 101, 105)
    assert holding.position.exit_reason == "target"
    assert not holding.is_live
    totals = total(holding.fills, Side.LONG, instrument())
    balances = made.engine.book.accounts["test"].balances
    assert amount(balances["USDT"].total) == 10_000 + totals.cash_quote
    assert amount(balances["SOL"].total) == totals.held == holding.position.quantity
    assert holding.position.realised_quote == totals.cash_quote


def test_half_at_one_r_leaves_the_other_lot_protected() -> None:
    made = account()
    holding = entered(made)
    bar(made, 1, 100, 102.7, 99, 102.6)
    assert [lot for lot, _ in resting(holding, OrderRole.STOP)] == [1]
    assert holding.is_live
    made.protect(holding, D("100.30"), OPEN_MS + 2 * STEP_MS, "moved")
    assert [o.stop_price for o in holding.orders.values() if o.state is OrderState.WORKING and o.stop_price] == [
        D("100.30")
    ]
    generations = sorted(o.generation for o in holding.orders.values() if o.lot == 1 and o.role is OrderRole.STOP)
    assert generations == [0, 1]
    bar(made, 3, 102, 102, 100, 101)
    assert holding.position.exit_reason == "stop"
    assert holding.position.realised_quote > 0


def test_a_stop_that_the_price_is_through_already_leaves_at_market() -> None:
    made = account()
    holding = entered(made)
    feed_price(made, 99.0, OPEN_MS + STEP_MS)
    made.protect(holding, D("99.50"), OPEN_MS + STEP_MS, "moved")
    assert not holding.is_live
    exits = [o for o in holding.orders.values() if o.role is OrderRole.EXIT]
    assert {(o.state, o.reason) for o in exits} == {(OrderState.FILLED, "stop_through")}


def test_a_stop_in_a_book_too_thin_leaves_a_rest_that_is_seen_and_sold_later() -> None:
    made = account()
    holding = entered(made)
    bar(made, 1, 98, 98, 97, 97, volume=2.0)
    assert holding.is_live
    assert made.unprotected(holding)
    at = OPEN_MS + 2 * STEP_MS
    feed_price(made, 97.0, at)
    made.protect(holding, holding.position.stop_price, at, "healed")
    assert not holding.is_live


def test_a_lot_that_did_not_fill_ends_the_entry() -> None:
    made = account(volume=10.0)  # 1 on each level: the first lot finds too little under its limit
    holding = entered(made)
    assert holding.position.status is PositionStatus.CLOSED
    assert holding.position.exit_reason == "not_filled"
    second = {(o.state, o.reason) for o in holding.orders.values() if o.lot == 1}
    assert second == {(OrderState.EXPIRED, "the first lot is expired")}
    assert made.free_quote == 10_000


def test_a_second_lot_that_did_not_fill_leaves_the_first_one_whole() -> None:
    made = account(volume=20.0)
    holding = entered(made)
    entries = {o.lot: o.state for o in holding.orders.values() if o.role is OrderRole.ENTRY}
    assert entries == {0: OrderState.FILLED, 1: OrderState.EXPIRED}
    assert holding.is_live
    assert [lot for lot, _ in resting(holding, OrderRole.STOP)] == [0]
    assert not made.unprotected(holding)


def test_an_entry_without_the_money_is_refused_and_nothing_is_held() -> None:
    rules = instrument()
    made = SimulatedAccount("test", {"SOL/USDT": rules}, D(100), matching_settings(PARAMS))
    feed_price(made, 100.0, OPEN_MS)
    holding = entered(made)
    assert {(o.lot, o.state) for o in holding.orders.values()} == {(0, OrderState.REJECTED), (1, OrderState.EXPIRED)}
    assert holding.position.status is PositionStatus.CLOSED


def test_leaving_sells_every_lot_and_says_why() -> None:
    made = account()
    holding = entered(made)
    made.leave(holding, OPEN_MS + STEP_MS, "breaker")
    assert not holding.is_live
    assert holding.position.exit_reason == "breaker"
    assert resting(holding, OrderRole.STOP) == []
    assert amount(made.engine.book.accounts["test"].balance("USDT").locked) == 0


def test_one_account_counts_in_one_currency() -> None:
    two = {"SOL/USDT": instrument(), "ETH/BTC": instrument("ETH/BTC")}
    with pytest.raises(ValueError, match="one quote asset"):
        SimulatedAccount("test", two, D(1), matching_settings(PARAMS))


def test_each_market_has_its_own_fee() -> None:
    """As an account pays nothing where an exchange promotes a market, and its usual rate beside it."""
    markets = {
        "SOL/USDT": instrument(taker_fee_frac=D(0)),
        "ETH/USDT": instrument("ETH/USDT", taker_fee_frac=D("0.002")),
    }
    made = SimulatedAccount("test", markets, D(10_000), matching_settings(PARAMS))
    for symbol in markets:
        made.engine.on_price(symbol, 10_000, 50_000_000, OPEN_MS, OPEN_MS)
        made.engine.place("test", NewOrder(symbol, OrderSide.BUY, OrderKind.MARKET, symbol, lots=1000), OPEN_MS)
    balances = made.engine.book.accounts["test"].balances
    assert [made.engine.amount(balances[base].total) for base in ("SOL", "ETH")] == [D(1), D("0.998")]


def test_the_book_stands_around_the_last_price() -> None:
    book = account().book("SOL/USDT", BAR + timedelta(minutes=15))
    assert (book.bid, book.ask) == (D("99.99"), D("100.01"))
    assert replace(book, symbol="X").bid == book.bid
