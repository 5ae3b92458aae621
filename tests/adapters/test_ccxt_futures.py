"""The futures adapter against a paper exchange: what it sends, and what it makes of the answers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from tests.support.futures import futures_account
from tests.support.paper_server import PaperServerProcess
from tests.support.trading import order as an_order
from tradewind.adapters.ccxt_client import ClientConfig
from tradewind.adapters.ccxt_exchange import CcxtMarketData
from tradewind.adapters.ccxt_futures import CcxtFuturesTrading
from tradewind.adapters.ccxt_futures_client import CcxtFuturesClient
from tradewind.core.orders import client_order_id
from tradewind.core.ports import BracketLegs
from tradewind.core.timeframes import to_ms
from tradewind.core.types import BracketSupport, Instrument, MarketStatus, Order, OrderRole, OrderState
from tradewind.errors import NotSupported, OrderRejected, OutcomeUnknown, UnknownSymbol
from tradewind.wiring import Wiring

D = Decimal
BTC = "BTC/USDT"
NOW = datetime(2024, 3, 5, 12, 0, 5, tzinfo=UTC)


@pytest.fixture(scope="module")
def server() -> Iterator[PaperServerProcess]:
    with PaperServerProcess() as running:
        running.admin.set_clock(to_ms(NOW))
        yield running


def connect(server: PaperServerProcess, account: Any = None, **options: Any) -> CcxtFuturesTrading:
    account = account or futures_account(server)
    config = ClientConfig(
        market_type="usdm", base_url=server.url, api_key=account.api_key, api_secret=account.api_secret,
        weight_per_minute=0.0, symbols=(BTC,), **options,
    )  # fmt: skip
    return CcxtFuturesTrading(CcxtFuturesClient(config, leverage=3), "test")


@pytest.fixture
def exchange(server: PaperServerProcess) -> CcxtFuturesTrading:
    return connect(server)


def make(
    exchange: CcxtFuturesTrading, role: OrderRole, *, is_buy: bool, quantity: str = "0.02", number: int = 0
) -> Order:
    """An order of a role at sensible prices of this moment."""
    book = exchange.book_tops([BTC])[BTC]
    kinds = {
        OrderRole.ENTRY: ("LIMIT", (book.ask * D("1.002") if is_buy else book.bid * D("0.998")), None),
        OrderRole.EXIT: ("MARKET", None, None),
        OrderRole.STOP: ("STOP_MARKET", None, book.bid * (D("1.03") if is_buy else D("0.97"))),
        OrderRole.TARGET: ("TAKE_PROFIT_MARKET", None, book.bid * (D("0.95") if is_buy else D("1.05"))),
    }
    kind, price, stop = kinds[role]
    cent = D("0.01")
    return an_order(
        client_order_id("test", "v", BTC, NOW, 0, role, number),
        symbol=BTC,
        role=role,
        is_buy=is_buy,
        order_type=kind,
        quantity=D(quantity),
        price=None if price is None else price.quantize(cent),
        stop_price=None if stop is None else stop.quantize(cent),
        state=OrderState.SENT,
        filled_quantity=D(0),
    )


def rules(exchange: CcxtFuturesTrading) -> Instrument:
    return exchange.instruments([BTC])[BTC]


def test_rules_carry_margin_and_go_by_our_symbol(exchange: CcxtFuturesTrading) -> None:
    instrument = rules(exchange)
    assert (instrument.symbol, instrument.bracket) == (BTC, BracketSupport.EMULATED)
    assert instrument.margin is not None
    assert instrument.margin.leverage == 3
    assert instrument.margin.brackets[0].rate == D("0.004")
    assert instrument.delisted_at is None
    assert exchange.instruments(["DOGE/USDT"]) == {}
    assert exchange.book_tops(["DOGE/USDT"]) == {}
    assert exchange.market_status("DOGE/USDT") is MarketStatus.DELISTED
    assert exchange.market_status(BTC) is MarketStatus.TRADING
    with pytest.raises(UnknownSymbol):
        exchange.find_order("DOGE/USDT", "twe-1")


def test_without_a_key_strict_brackets_are_assumed(server: PaperServerProcess) -> None:
    client = CcxtFuturesClient(ClientConfig(market_type="usdm", base_url=server.url, weight_per_minute=0.0))
    margin = client.instruments([BTC])[BTC].margin
    assert margin is not None
    assert margin.brackets[0].rate == D("0.05")


def test_market_data_of_futures(server: PaperServerProcess, exchange: CcxtFuturesTrading) -> None:
    data = CcxtMarketData(exchange._client)
    bars = data.candles(BTC, "15m", to_ms(NOW - timedelta(days=20)), to_ms(NOW))
    assert len(bars) == 20 * 96
    assert data.book_tops([BTC])[BTC].bid < data.book_tops([BTC])[BTC].ask
    started = time.monotonic()
    error_ms = abs(data.clock_offset_ms())
    assert error_ms <= (time.monotonic() - started) * 1000 + 1, "an answer is no older than its way took"


def test_a_short_is_told_as_a_negative_holding_and_its_proceeds(exchange: CcxtFuturesTrading) -> None:
    before = exchange.balances()
    entry = make(exchange, OrderRole.ENTRY, is_buy=False)
    report = exchange.send_order(entry, rules(exchange))
    assert (report.state, report.filled_quantity) == (OrderState.FILLED, D("0.02"))
    after = exchange.balances()
    (fill,) = exchange.fills_since(BTC, NOW - timedelta(minutes=1))
    assert fill.client_order_id == entry.client_order_id
    assert after["BTC"].total == D("-0.02")
    assert after["USDT"].total == before["USDT"].total + fill.quantity * fill.price - fill.fee
    assert after["USDT"].free < before["USDT"].free
    exchange.send_order(make(exchange, OrderRole.EXIT, is_buy=True), rules(exchange))
    assert "BTC" not in exchange.balances()


def test_an_entry_that_cannot_fill_whole_is_refused(exchange: CcxtFuturesTrading) -> None:
    entry = make(exchange, OrderRole.ENTRY, is_buy=True)
    below = replace(entry, price=(entry.price or D(0)) * D("0.98") // D("0.01") * D("0.01"))
    with pytest.raises(OrderRejected) as refused:
        exchange.send_order(below, rules(exchange))
    assert refused.value.code == -5021
    assert exchange.find_order(BTC, entry.client_order_id) is None


def test_what_leaves_is_reduce_only(exchange: CcxtFuturesTrading) -> None:
    with pytest.raises(OrderRejected) as refused:
        exchange.send_order(make(exchange, OrderRole.EXIT, is_buy=False), rules(exchange))
    assert refused.value.code == -2022
    assert exchange.balances().keys() == {"USDT"}


def test_leverage_and_margin_are_set_before_the_first_entry(exchange: CcxtFuturesTrading) -> None:
    exchange.send_order(make(exchange, OrderRole.ENTRY, is_buy=True), rules(exchange))
    (config,) = exchange._client.read("fapiprivate_get_symbolconfig", {"symbol": "BTCUSDT"})
    assert (config["marginType"], str(config["leverage"])) == ("ISOLATED", "3")


def test_protection_is_two_conditional_orders_found_cancelled_and_followed(
    exchange: CcxtFuturesTrading, server: PaperServerProcess
) -> None:
    exchange.send_order(make(exchange, OrderRole.ENTRY, is_buy=True), rules(exchange))
    stop, target = (make(exchange, role, is_buy=False) for role in (OrderRole.STOP, OrderRole.TARGET))
    reports = exchange.send_protection(stop, target, rules(exchange))
    assert [r.state for r in reports] == [OrderState.WORKING] * 2
    assert {o.client_order_id for o in exchange.open_orders([BTC])} == {stop.client_order_id, target.client_order_id}
    again = exchange.send_protection(stop, target, rules(exchange))
    assert [r.exchange_order_id for r in again] == [r.exchange_order_id for r in reports], "a duplicate is looked up"
    assert exchange.cancel_order(BTC, target.client_order_id).state is OrderState.CANCELLED
    assert exchange.cancel_order(BTC, target.client_order_id).state is OrderState.CANCELLED, "as it ended"
    server.admin.shock(-0.05, BTC)
    server.admin.step_ms(60_000)
    found = exchange.find_order(BTC, stop.client_order_id)
    assert found is not None
    assert (found.state, found.filled_quantity) == (OrderState.FILLED, D("0.02"))
    last = exchange.fills_since(BTC, NOW - timedelta(minutes=1))[-1]
    assert last.client_order_id == stop.client_order_id, "the fill goes by the conditional order's id"


def test_a_refused_target_is_reported_beside_the_stop_that_rests(exchange: CcxtFuturesTrading) -> None:
    exchange.send_order(make(exchange, OrderRole.ENTRY, is_buy=True), rules(exchange))
    stop, target = (make(exchange, role, is_buy=False) for role in (OrderRole.STOP, OrderRole.TARGET))
    through = replace(target, stop_price=stop.stop_price)
    reports = exchange.send_protection(stop, through, rules(exchange))
    assert [r.state for r in reports] == [OrderState.WORKING, OrderState.REJECTED]
    other_id = client_order_id("test", "v", BTC, NOW, 0, OrderRole.STOP, 7)
    wrong = replace(stop, client_order_id=other_id, stop_price=target.stop_price)
    with pytest.raises(OrderRejected):
        exchange.send_protection(wrong, target, rules(exchange))


def test_an_unanswered_send_is_an_unknown_outcome(server: PaperServerProcess) -> None:
    exchange = connect(server, timeout_s=1.0)
    exchange.send_order(make(exchange, OrderRole.ENTRY, is_buy=True), rules(exchange))
    server.admin.add_fault("hang_after", method="POST", path="/fapi/v1/order", times=1, seconds=3)
    leave = make(exchange, OrderRole.EXIT, is_buy=False)
    with pytest.raises(OutcomeUnknown):
        exchange.send_order(leave, rules(exchange))
    found = exchange.find_order(BTC, leave.client_order_id)
    assert found is not None
    assert found.state is OrderState.FILLED
    server.admin.clear_faults()


def test_funding_is_a_payment_and_results_are_not(exchange: CcxtFuturesTrading, server: PaperServerProcess) -> None:
    since = datetime.fromtimestamp(server.admin.clock().market_ms / 1000, UTC)
    exchange.send_order(make(exchange, OrderRole.ENTRY, is_buy=False), rules(exchange))
    server.admin.step(33)
    payments = exchange.payments_since(since)
    assert payments
    assert {(p.kind, p.asset, p.symbol) for p in payments} == {("funding_fee", "USDT", BTC)}
    assert len({p.payment_id for p in payments}) == len(payments)


def test_there_are_no_lists(exchange: CcxtFuturesTrading) -> None:
    legs = [
        make(exchange, role, is_buy=role is OrderRole.ENTRY)
        for role in (OrderRole.ENTRY, OrderRole.STOP, OrderRole.TARGET)
    ]
    with pytest.raises(NotSupported):
        exchange.send_bracket(BracketLegs("l", *legs), rules(exchange))
    with pytest.raises(NotSupported):
        exchange.cancel_list(BTC, "l")


def test_the_setting_chooses_the_side(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from tradewind.settings import load_settings

    monkeypatch.setenv("TRADEWIND_MARKET_TYPE", "usdm")
    wiring = Wiring(load_settings(home_dir=tmp_path))
    assert isinstance(wiring.exchange, CcxtFuturesTrading)
    assert wiring.settings.identity["market_type"] == "usdm"
