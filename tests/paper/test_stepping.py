"""The stepped clock: orders meet every bar in between, in order, over HTTP as in process."""

from __future__ import annotations

import random
import time
from decimal import Decimal

import pytest

from tests.support.paper_requests import RawClient
from tests.support.paper_server import PaperServerProcess
from tradewind.core.matching_types import NewOrder, OrderKind, OrderSide
from tradewind.paper.clock import MarketClock
from tradewind.paper.exchange import PaperExchange
from tradewind.paper.markets_synthetic import SyntheticMarket
from tradewind.paper.store import SavedState

START = 1_760_000_040_000
BTC = "BTCUSDT"
SYMBOLS = ("BTC/USDT", "ETH/USDT")


def local(seed: int = 7) -> PaperExchange:
    exchange = PaperExchange(SyntheticMarket(SYMBOLS, seed), None)
    exchange.restore(SavedState(), START)
    exchange.set_clock(MarketClock.frozen(START, START), START)
    exchange.create_account({"USDT": Decimal(100_000), "BTC": Decimal(5), "ETH": Decimal(50)}, "a")
    return exchange


def step_to(exchange: PaperExchange, market_ms: int) -> None:
    exchange.set_clock(MarketClock.frozen(market_ms, START), START)


def test_server_time_stays_on_the_wall(paper_server: PaperServerProcess) -> None:
    paper_server.admin.set_clock(START)
    client = RawClient(paper_server.url, paper_server.create_account(USDT="10"))
    before_ms = int(time.time() * 1000)
    assert before_ms <= client.public("/api/v3/time").json()["serverTime"] <= time.time() * 1000
    assert client.signed("GET", "/api/v3/account").status_code == 200
    rows = client.public("/api/v3/klines", symbol=BTC, interval="15m", limit=1).json()
    assert rows[0][0] <= START < rows[0][0] + 900_000


def test_one_long_step_equals_many_short_ones() -> None:
    """Whole base bars: how the hand was moved does not matter."""
    results = []
    for pieces in (1, 7, 96):
        exchange = local()
        exchange.refresh(BTC, START)
        last = exchange.engine.quotes[BTC].last_ticks
        rng = random.Random(5)
        for i in range(12):
            side = OrderSide.BUY if i % 2 else OrderSide.SELL
            offset = rng.uniform(0.002, 0.03)
            price = int(last * (1 - side * offset))
            exchange.engine.place("a", NewOrder(BTC, side, OrderKind.LIMIT, f"l{i}", 10_000, price), START)
        for i, drop in enumerate((0.01, 0.02)):
            stop = NewOrder(BTC, OrderSide.SELL, OrderKind.STOP_LOSS, f"s{i}", 5_000, stop_ticks=int(last * (1 - drop)))
            exchange.engine.place("a", stop, START)
        begin = START // 60_000 * 60_000 + 60_000
        step_to(exchange, begin)
        total = 96 * 900_000
        for k in range(pieces):
            step_to(exchange, begin + total * (k + 1) // pieces // 60_000 * 60_000)
        exchange.collect()
        results.append(exchange.fills[("a", BTC)])
    assert len(results[0]) >= 4
    assert results[0] == results[1] == results[2]
    assert [f.time_ms for f in results[0]] == sorted(f.time_ms for f in results[0])


def test_stop_rests_without_anyone_asking(paper_server: PaperServerProcess) -> None:
    """With a running clock the market meets resting orders by itself."""
    paper_server.admin.set_clock(START)
    account = paper_server.create_account(BTC="1")
    client = RawClient(paper_server.url, account)
    price = Decimal(client.public("/api/v3/ticker/price", symbol=BTC).json()["price"])
    tight = str((price * Decimal("0.9995")).quantize(Decimal("0.01")))
    sent = {"symbol": BTC, "side": "SELL", "type": "STOP_LOSS", "quantity": "0.5", "stopPrice": tight}
    assert client.signed("POST", "/api/v3/order", **sent).status_code == 200
    paper_server.admin.run(20_000)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        time.sleep(0.5)
        state = paper_server.admin.state()["accounts"][account.account_id]
        if state["orders"][0]["status"] == "FILLED":
            break
    assert state["orders"][0]["status"] == "FILLED"
    paper_server.admin.set_clock(START)


def test_shock_through_a_stop_and_it_is_labelled() -> None:
    with PaperServerProcess() as server:
        server.admin.set_clock(START)
        client = RawClient(server.url, server.create_account(BTC="1", USDT="10"))
        price = Decimal(client.public("/api/v3/ticker/price", symbol=BTC).json()["price"])
        sent = {
            "symbol": BTC, "side": "SELL", "type": "STOP_LOSS", "quantity": "0.5",
            "stopPrice": str((price * Decimal("0.97")).quantize(Decimal("0.01"))),
        }  # fmt: skip
        order_id = client.signed("POST", "/api/v3/order", **sent).json()["orderId"]
        server.admin.shock(-0.08)
        found = client.signed("GET", "/api/v3/order", symbol=BTC, orderId=order_id).json()
        assert found["status"] == "FILLED"
        paid = Decimal(found["cummulativeQuoteQty"]) / Decimal(found["executedQty"])
        assert paid < price * Decimal("0.93")  # gapped through the stop to the next price
        server.admin.step_ms(120_000)
        rows = client.public("/api/v3/klines", symbol=BTC, interval="1m", startTime=START - 120_000).json()
        assert [r[11] for r in rows].count("injected shock") == 1


def test_going_back_in_time_moves_only_the_hand() -> None:
    exchange = local()
    exchange.refresh(BTC, START)
    exchange.engine.place("a", NewOrder(BTC, OrderSide.BUY, OrderKind.MARKET, "m", 1000), START)
    step_to(exchange, START + 3_600_000)
    step_to(exchange, START)
    exchange.collect()
    assert len(exchange.fills[("a", BTC)]) == 1
    assert exchange.processed_ms == START


@pytest.mark.parametrize("speed", [-1, 1e9])
def test_bad_speed_is_refused(paper_server: PaperServerProcess, speed: float) -> None:
    with pytest.raises(Exception, match="speed must lie"):
        paper_server.admin.run(speed)
