"""Leaving at market: in slices that the exchange takes, once for what is held, and never by giving protection away."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from decimal import Decimal

import pytest

from tests.support.trading_rig import Rig
from tradewind.adapters.ccxt_trading import CcxtTrading
from tradewind.core.brackets import floor_to_step
from tradewind.core.types import (
    BookTop,
    ExchangeOrder,
    Instrument,
    Order,
    OrderRole,
    OrderState,
    Position,
    PositionStatus,
)
from tradewind.errors import NotFlatYet, OrderRejected, ProtectionPending
from tradewind.jobs.positions import manage_positions
from tradewind.jobs.protection import converge_protection, exit_position
from tradewind.jobs.safety import flatten
from tradewind.jobs.settling import refresh
from tradewind.jobs.trading import place_brackets

CLOSED = (PositionStatus.CLOSED, PositionStatus.DUST)
STEP = Decimal("0.00001")


def enter(rig: Rig, symbol: str = "BTC/USDT", *, notional: int = 2400, two_lots: bool = False) -> Position:
    rig.step()
    rig.make_ready()
    intent = rig.decide(
        symbol, notional=Decimal(notional), stop_frac=Decimal("0.3"), target_frac=Decimal("0.3"), two_lots=two_lots
    )
    assert place_brackets(rig, intent.intent_id)["outcome"] == "filled"
    return held(rig, intent.intent_id)


def held(rig: Rig, position_id: str) -> Position:
    found = rig.trading_store.position(position_id)
    assert found is not None
    return found


def close(rig: Rig, position: Position) -> None:
    with rig.trading_store.position_lock(position.position_id):
        closing = replace(held(rig, position.position_id), status=PositionStatus.CLOSING, exit_reason="time_stop")
        rig.trading_store.save_position(closing, "closing", rig.clock.now())


def exits(rig: Rig, position: Position) -> list[Order]:
    return [o for o in rig.trading_store.orders_of(position.position_id) if o.role is OrderRole.EXIT]


def resting(rig: Rig) -> list[str]:
    return sorted(order["clientOrderId"] for order in rig.exchange_orders())


# -------------------------------------------------------------------------------------------------------------- slices
class SmallMarketOrders(CcxtTrading):
    """The same market with a MARKET_LOT_SIZE of 0.01."""

    most = Decimal("0.01")
    until_killed = 99

    def instruments(self, symbols: Sequence[str]) -> dict[str, Instrument]:
        found = super().instruments(symbols)
        return {symbol: replace(rules, max_market_quantity=self.most) for symbol, rules in found.items()}

    def send_order(self, order: Order, instrument: Instrument) -> ExchangeOrder:
        if order.role is OrderRole.EXIT:
            if order.quantity > self.most:
                raise OrderRejected("Filter failure: MARKET_LOT_SIZE", -1013)
            self.until_killed -= 1
            if self.until_killed < 0:
                raise KeyboardInterrupt
        return super().send_order(order, instrument)


def test_an_exit_above_the_largest_market_order_goes_in_slices(rig: Rig) -> None:
    position = enter(rig)
    rig.exchange = SmallMarketOrders(rig.client, rig.account)
    assert flatten(rig, "a person")["flat"]
    sent = exits(rig, position)
    assert len(sent) == 4  # 0.038 in parts of at most 0.01
    assert all(order.quantity <= Decimal("0.01") and order.state is OrderState.FILLED for order in sent)
    assert sum(order.quantity for order in sent) == floor_to_step(position.quantity, STEP)
    assert len({order.generation for order in sent}) == len(sent)
    assert held(rig, position.position_id).status in CLOSED
    rig.assert_agrees()


@pytest.mark.parametrize("sent_before", [0, 1, 2])
def test_a_kill_between_two_slices_sells_nothing_twice(make_rig: Callable[..., Rig], sent_before: int) -> None:
    rig = make_rig({"USDT": "10000", "BTC": "1"})  # coins that a doubled slice would sell
    position = enter(rig)
    rig.exchange = dying = SmallMarketOrders(rig.client, rig.account)
    dying.until_killed = sent_before
    with pytest.raises(KeyboardInterrupt):
        flatten(rig, "a person")
    assert len([order for order in exits(rig, position) if order.state is OrderState.FILLED]) == sent_before
    rig.exchange = SmallMarketOrders(rig.client, rig.account)
    # The slice that died with its task may still arrive: what it leaves is sold, and it itself is waited for.
    with pytest.raises(NotFlatYet):
        flatten(rig, "a person")
    rig.database.execute("UPDATE orders SET sent_at = sent_at - interval '60 seconds' WHERE state = 'unknown'")
    assert flatten(rig, "a person")["flat"]
    sold = sum(order.filled_quantity for order in exits(rig, position))
    assert sold == floor_to_step(position.quantity, STEP)
    assert rig.holds("BTC") - held(rig, position.position_id).quantity == 1
    rig.assert_agrees()


# ----------------------------------------------------------------------------------------------------------- unresolved
class LateExits(CcxtTrading):
    """An exchange that answers a market order before it acts on it, as okx, bybit and bitget do."""

    waiting: dict[str, Order] = {}  # noqa: RUF012
    told_filled = Decimal(0)

    def send_order(self, order: Order, instrument: Instrument) -> ExchangeOrder:
        if order.role is not OrderRole.EXIT:
            return super().send_order(order, instrument)
        self.waiting = {**self.waiting, order.client_order_id: order}
        return self._working(order)

    def find_order(self, symbol: str, client_order_id: str, known: Order | None = None) -> ExchangeOrder | None:
        if client_order_id in self.waiting:
            return self._working(self.waiting[client_order_id])
        return super().find_order(symbol, client_order_id, known)

    def _working(self, order: Order) -> ExchangeOrder:
        return ExchangeOrder(
            order.client_order_id, "1", None, order.symbol, order.is_buy, "MARKET", OrderState.WORKING,
            order.quantity, Decimal(0), None, None, self._at(order.symbol).at,
        )  # fmt: skip

    def _at(self, symbol: str) -> BookTop:
        return self.book_tops([symbol])[symbol]

    def act(self, rig: Rig) -> None:
        """Now it acts on what it took."""
        waiting, self.waiting = self.waiting, {}
        for order in waiting.values():
            CcxtTrading.send_order(self, order, rig.exchange.instruments([order.symbol])[order.symbol])


def test_an_exit_that_still_works_holds_a_second_one_back(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig({"USDT": "10000", "BTC": "1"})
    position = enter(rig)
    rig.exchange = slow = LateExits(rig.client, rig.account)
    close(rig, position)
    for _ in range(3):
        manage_positions(rig)
        assert len(exits(rig, position)) == 1, "it is on its way: a second one would sell the account's own coins"
    slow.act(rig)
    manage_positions(rig)
    assert len(exits(rig, position)) == 1
    assert held(rig, position.position_id).status in CLOSED
    assert rig.holds("BTC") - held(rig, position.position_id).quantity == 1
    assert resting(rig) == []
    rig.assert_agrees()


# ------------------------------------------------------------------------------------------------------------ too small
class HigherMinimum(CcxtTrading):
    """The exchange has raised its least notional to what the position was worth when it was bought."""

    least = Decimal(5)

    def instruments(self, symbols: Sequence[str]) -> dict[str, Instrument]:
        found = super().instruments(symbols)
        return {symbol: replace(rules, min_notional_quote=self.least) for symbol, rules in found.items()}


def test_what_a_fall_made_too_small_to_sell_keeps_its_stop_and_is_no_dust(rig: Rig) -> None:
    position = enter(rig)
    before = resting(rig)
    rig.exchange = raised = HigherMinimum(rig.client, rig.account)
    raised.least = Decimal(2350)
    rig.admin.shock(-0.04, "BTC/USDT")
    with pytest.raises(NotFlatYet, match=r"\./tradewind write-off"):
        flatten(rig, "a person")
    found = held(rig, position.position_id)
    assert (found.status, found.quantity) == (PositionStatus.CLOSING, position.quantity)
    assert resting(rig) == before
    assert exits(rig, position) == []
    rig.admin.shock(0.05, "BTC/USDT")
    assert flatten(rig, "a person")["flat"]
    rig.assert_agrees()


@pytest.mark.parametrize(("bid", "ask"), [("0", "0"), ("0", "70000"), ("70000", "69000"), ("NaN", "NaN")])
@pytest.mark.parametrize("is_closing", [False, True])
def test_what_is_no_price_takes_no_stop_away(rig: Rig, bid: str, ask: str, is_closing: bool) -> None:
    position = enter(rig)
    before = resting(rig)
    with rig.trading_store.position_lock(position.position_id):
        stop = floor_to_step(rig.bid() * Decimal("0.98"), Decimal("0.01"))
        moved = replace(held(rig, position.position_id), stop_price=stop)
        rig.trading_store.save_position(moved, "stop_moved", rig.clock.now())
        rules = rig.exchange.instruments(["BTC/USDT"])["BTC/USDT"]
        book = BookTop("BTC/USDT", Decimal(bid), Decimal(ask), rig.clock.now())
        situation = refresh(rig, position.position_id, rules, book)
        act = (
            (lambda: exit_position(rig, situation, "x")) if is_closing else lambda: converge_protection(rig, situation)
        )
        with pytest.raises(ProtectionPending, match="no price"):
            act()
    assert resting(rig) == before
    assert exits(rig, position) == []


# ----------------------------------------------------------------------------------------------------------- small lots
def test_rests_of_two_lots_that_are_too_small_alone_are_protected_and_sold_together(rig: Rig) -> None:
    position = enter(rig, two_lots=True)
    for order in rig.exchange_orders():  # the exchange has ended the stops, as after a maintenance
        if order["type"] == "STOP_LOSS":
            rig.exchange.cancel_order("BTC/USDT", order["clientOrderId"])
    rig.exchange = raised = HigherMinimum(rig.client, rig.account)
    raised.least = Decimal(1500)  # each half was bought for 1,200
    report = manage_positions(rig)
    assert report["clean"], report
    (stop,) = [order for order in rig.exchange_orders() if order["type"] == "STOP_LOSS"]
    assert Decimal(stop["origQty"]) == floor_to_step(position.quantity, STEP)
    assert flatten(rig, "a person")["flat"]
    assert resting(rig) == []
    assert held(rig, position.position_id).status in CLOSED
    rig.assert_agrees()
