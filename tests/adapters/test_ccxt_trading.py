"""Orders over HTTP: what is sent is exactly what was planned, and each way a send can end is told apart."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from tests.support.paper_server import PaperServerProcess
from tradewind.adapters.ccxt_client import CcxtClient, ClientConfig
from tradewind.adapters.ccxt_orders import exchange_order
from tradewind.adapters.ccxt_trading import CcxtTrading
from tradewind.core.brackets import floor_to_step, plan_entry
from tradewind.core.ports import BracketLegs
from tradewind.core.timeframes import from_ms, to_ms
from tradewind.core.types import BracketLot, BracketSupport, Instrument, Intent, Order, OrderRole, OrderState, Side
from tradewind.errors import InsufficientBalance, NotSupported, OrderRejected, OutcomeUnknown

SYMBOL = "BTC/USDT"
NOW = datetime(2024, 3, 5, 12, 0, 5, tzinfo=UTC)


@pytest.fixture(scope="module")
def server() -> Iterator[PaperServerProcess]:
    with PaperServerProcess() as server:
        server.admin.set_clock(to_ms(NOW))
        yield server


@pytest.fixture
def exchange(server: PaperServerProcess) -> Iterator[CcxtTrading]:
    account = server.create_account()
    config = ClientConfig(
        base_url=server.url,
        api_key=account.api_key,
        api_secret=account.api_secret,
        timeout_s=1.0,
        weight_per_minute=0.0,
    )
    yield CcxtTrading(CcxtClient(config), "main")
    server.admin.clear_faults()


@pytest.fixture
def instrument(exchange: CcxtTrading) -> Instrument:
    return exchange.instruments([SYMBOL])[SYMBOL]


_bars = iter(range(10_000))


def bracket(exchange: CcxtTrading, instrument: Instrument, quantity: str = "0.01", limit: str = "1.002") -> BracketLegs:
    """A bracket that fills at once, under ids of its own."""
    ask = exchange.book_tops([SYMBOL])[SYMBOL].ask
    tick = instrument.tick_size
    price = floor_to_step(ask * Decimal(limit), tick)
    intent = Intent(
        intent_id="intent",
        account="main",
        strategy_version="1",
        symbol=SYMBOL,
        side=Side.LONG,
        bar=NOW + timedelta(minutes=15 * next(_bars)),
        entry_limit_price=price,
        stop_price=floor_to_step(ask * Decimal("0.98"), tick),
        lots=(BracketLot(0, Decimal(quantity), floor_to_step(ask * Decimal("1.03"), tick)),),
        atr_quote=400.0,
        risk_quote=Decimal(10),
        notional_quote=Decimal(quantity) * price,
        expected_r=0.5,
        expires_at=NOW,
    )
    return plan_entry(intent, instrument, NOW)[0]


def states(exchange: CcxtTrading, legs: BracketLegs) -> list[OrderState | None]:
    found = [exchange.find_order(SYMBOL, order.client_order_id) for order in (legs.entry, legs.stop, legs.target)]
    return [order.state if order is not None else None for order in found]


@pytest.mark.parametrize("support", [BracketSupport.OPOCO, BracketSupport.OTOCO])
def test_bracket_rests_once_its_entry_is_filled(
    exchange: CcxtTrading, instrument: Instrument, support: BracketSupport
) -> None:
    legs = bracket(exchange, instrument)
    reports = exchange.send_bracket(legs, replace(instrument, bracket=support))
    assert reports[0].client_order_id == legs.entry.client_order_id
    assert {report.client_order_id for report in reports} == {
        legs.entry.client_order_id,
        legs.stop.client_order_id,
        legs.target.client_order_id,
    }
    assert states(exchange, legs) == [OrderState.FILLED, OrderState.WORKING, OrderState.WORKING]
    stop = exchange.find_order(SYMBOL, legs.stop.client_order_id)
    assert stop is not None
    assert (stop.order_type, stop.stop_price, stop.quantity) == (
        "STOP_LOSS",
        legs.stop.stop_price,
        Decimal("0.00999"),
    )


def test_entry_that_cannot_fill_whole_is_over_and_leaves_no_leg(exchange: CcxtTrading, instrument: Instrument) -> None:
    legs = bracket(exchange, instrument, limit="0.99")
    exchange.send_bracket(legs, instrument)
    assert states(exchange, legs)[0] is OrderState.EXPIRED
    assert exchange.open_orders([SYMBOL]) == []


def test_the_same_bracket_again_is_found_not_doubled(exchange: CcxtTrading, instrument: Instrument) -> None:
    legs = bracket(exchange, instrument)
    exchange.send_bracket(legs, instrument)
    held = exchange.balances()["BTC"].total
    again = exchange.send_bracket(legs, instrument)
    assert {order.client_order_id: order.state for order in again}[legs.entry.client_order_id] is OrderState.FILLED
    assert exchange.balances()["BTC"].total == held


def test_refusal_and_unknown_are_told_apart(
    server: PaperServerProcess, exchange: CcxtTrading, instrument: Instrument
) -> None:
    too_much = bracket(exchange, instrument, quantity="5")
    with pytest.raises(InsufficientBalance):
        exchange.send_bracket(too_much, instrument)
    assert states(exchange, too_much) == [None, None, None]
    for action, is_there in (
        ("error_after", True),
        ("drop_after", True),
        ("hang_after", True),
        ("error_before", False),
    ):
        legs = bracket(exchange, instrument)
        server.admin.add_fault(
            action, method="POST", path="/api/v3/orderList/*", times=1, **({"seconds": 2} if "hang" in action else {})
        )
        with pytest.raises(OutcomeUnknown) as raised:
            exchange.send_bracket(legs, instrument)
        assert raised.value.client_order_id == legs.entry.client_order_id
        assert (states(exchange, legs)[0] is OrderState.FILLED) is is_there, action


def protection(
    entry: Order, instrument: Instrument, bid: Decimal, stop_at: str, generation: int
) -> tuple[Order, Order]:
    base = replace(
        entry,
        is_buy=False,
        quantity=Decimal("0.00999"),
        price=None,
        list_client_id=f"twl{generation:032x}",
        generation=generation,
    )
    stop = replace(
        base,
        client_order_id=f"tws{generation:032x}",
        role=OrderRole.STOP,
        order_type="STOP_LOSS",
        stop_price=floor_to_step(bid * Decimal(stop_at), instrument.tick_size),
    )
    target = replace(
        base,
        client_order_id=f"twt{generation:032x}",
        role=OrderRole.TARGET,
        order_type="LIMIT_MAKER",
        price=floor_to_step(bid * Decimal("1.05"), instrument.tick_size),
    )
    return stop, target


def test_protection_is_cancelled_and_placed_anew(exchange: CcxtTrading, instrument: Instrument) -> None:
    legs = bracket(exchange, instrument)
    exchange.send_bracket(legs, instrument)
    cancelled = exchange.cancel_list(SYMBOL, legs.list_client_id)
    over = {order.client_order_id: order.state for order in cancelled}
    assert over[legs.stop.client_order_id] is OrderState.CANCELLED
    assert over[legs.target.client_order_id] is OrderState.CANCELLED
    bid = exchange.book_tops([SYMBOL])[SYMBOL].bid
    reports = exchange.send_protection(*protection(legs.entry, instrument, bid, "0.97", 1), instrument)
    assert {report.state for report in reports} == {OrderState.WORKING}
    # A second cancellation of the first list finds it over and says how it ended.
    assert {order.state for order in exchange.cancel_list(SYMBOL, legs.list_client_id)} >= {OrderState.CANCELLED}
    # Cancelling one leg takes the other with it.
    exchange.cancel_order(SYMBOL, f"tws{1:032x}")
    assert exchange.open_orders([SYMBOL]) == []
    assert exchange.cancel_order(SYMBOL, f"tws{1:032x}").state is OrderState.CANCELLED


def test_protection_that_is_already_through_is_refused(exchange: CcxtTrading, instrument: Instrument) -> None:
    legs = bracket(exchange, instrument)
    exchange.send_bracket(legs, instrument)
    exchange.cancel_list(SYMBOL, legs.list_client_id)
    bid = exchange.book_tops([SYMBOL])[SYMBOL].bid
    with pytest.raises(OrderRejected):
        exchange.send_protection(*protection(legs.entry, instrument, bid, "1.01", 2), instrument)
    assert exchange.open_orders([SYMBOL]) == []


def test_unknown_ids_are_answered_with_nothing(exchange: CcxtTrading) -> None:
    assert exchange.find_order(SYMBOL, "twe" + "0" * 32) is None
    assert exchange.cancel_list(SYMBOL, "twl" + "0" * 32) == []
    with pytest.raises(OrderRejected):
        exchange.cancel_order(SYMBOL, "twe" + "0" * 32)


def test_fills_carry_our_ids_also_in_another_process(
    server: PaperServerProcess, exchange: CcxtTrading, instrument: Instrument
) -> None:
    legs = bracket(exchange, instrument)
    exchange.send_bracket(legs, instrument)
    fresh = CcxtTrading(CcxtClient(exchange._client.config), "main")
    fills = fresh.fills_since(SYMBOL, NOW - timedelta(minutes=1))
    assert {fill.client_order_id for fill in fills} == {legs.entry.client_order_id}
    assert sum((fill.quantity for fill in fills), Decimal(0)) == Decimal("0.01")
    assert sum((fill.fee for fill in fills), Decimal(0)) == Decimal("0.00001")
    assert {fill.fee_asset for fill in fills} == {"BTC"}
    after = from_ms(server.admin.clock().market_ms) + timedelta(minutes=1)
    assert fresh.fills_since(SYMBOL, after) == []


def test_no_bracket_where_none_is_native_and_no_short_on_spot(exchange: CcxtTrading, instrument: Instrument) -> None:
    legs = bracket(exchange, instrument)
    with pytest.raises(NotSupported):
        exchange.send_bracket(legs, replace(instrument, bracket=BracketSupport.EMULATED))
    with pytest.raises(NotSupported):
        exchange.send_bracket(replace(legs, entry=replace(legs.entry, is_buy=False)), instrument)


def test_statuses() -> None:
    report = {
        "clientOrderId": "a",
        "orderId": 1,
        "side": "SELL",
        "type": "STOP_LOSS",
        "origQty": "1.5",
        "executedQty": "0.5",
        "price": "0.00000000",
        "stopPrice": "9.5",
        "transactTime": to_ms(NOW),
    }
    pending = exchange_order(report | {"status": "PENDING_NEW"}, SYMBOL)
    assert pending.state is OrderState.SENT, "accepted, and protecting nothing yet"
    assert (pending.price, pending.stop_price, pending.at) == (None, Decimal("9.5"), NOW)
    assert exchange_order(report | {"status": "EXPIRED_IN_MATCH"}, SYMBOL).state is OrderState.EXPIRED
    assert exchange_order(report | {"status": "FROZEN"}, SYMBOL).state is OrderState.UNKNOWN, "and no error for all"
