"""Orders that were closed long ago live in the database alone, and every query still finds them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

from tests.support.paper_requests import RawClient
from tests.support.paper_server import PaperServerProcess
from tradewind.core.matching_lists import NewOrderList
from tradewind.core.matching_types import ListKind, NewOrder, OrderKind, OrderSide
from tradewind.paper.clock import MarketClock
from tradewind.paper.exchange import PaperExchange
from tradewind.paper.markets_synthetic import SyntheticMarket
from tradewind.paper.store import PaperStore

START = 1_760_000_040_000
BTC = "BTCUSDT"
ORDER = "/api/v3/order"


@pytest.fixture
def server(empty_postgres_url: str) -> Iterator[PaperServerProcess]:
    with PaperServerProcess(empty_postgres_url, kept_orders=10) as server:
        server.admin.set_clock(START)
        yield server


def test_every_query_finds_archived_orders(server: PaperServerProcess) -> None:
    client = RawClient(server.url, server.create_account(USDT="100000", BTC="5"))
    price = Decimal(client.public("/api/v3/ticker/price", symbol=BTC).json()["price"])

    def at(factor: str) -> str:
        return str((price * Decimal(factor)).quantize(Decimal("0.01")))

    resting = client.signed(
        "POST", ORDER, symbol=BTC, side="BUY", type="LIMIT", timeInForce="GTC", quantity="0.01", price=at("0.8"),
        newClientOrderId="resting",
    ).json()["orderId"]  # fmt: skip
    oco = client.signed(
        "POST", "/api/v3/orderList/oco", symbol=BTC, side="SELL", quantity="0.1", aboveType="LIMIT_MAKER",
        abovePrice=at("1.05"), belowType="STOP_LOSS", belowStopPrice=at("0.95"), listClientOrderId="list",
    ).json()  # fmt: skip
    client.signed("DELETE", "/api/v3/orderList", symbol=BTC, orderListId=oco["orderListId"])
    for i in range(40):
        sent = {"symbol": BTC, "side": "BUY" if i % 2 else "SELL", "type": "MARKET", "quantity": "0.01"}
        assert client.signed("POST", ORDER, **sent, newClientOrderId=f"m{i}").status_code == 200

    def history() -> list[Any]:
        asked: list[tuple[str, dict[str, Any]]] = [
            (ORDER, {"symbol": BTC, "origClientOrderId": "m0"}),
            (ORDER, {"symbol": BTC, "orderId": resting + 3}),
            (ORDER, {"symbol": BTC, "orderId": resting}),
            ("/api/v3/allOrders", {"symbol": BTC}),
            ("/api/v3/allOrders", {"symbol": BTC, "limit": 5}),
            ("/api/v3/allOrders", {"symbol": BTC, "orderId": 3, "limit": 5}),
            ("/api/v3/orderList", {"origClientOrderId": "list"}),
            ("/api/v3/orderList", {"orderListId": oco["orderListId"]}),
            ("/api/v3/allOrderList", {}),
            ("/api/v3/myTrades", {"symbol": BTC}),
            ("/api/v3/myTrades", {"symbol": BTC, "fromId": 2, "limit": 7}),
            ("/api/v3/myTrades", {"symbol": BTC, "orderId": resting + 3}),
            ("/api/v3/openOrders", {}),
        ]
        return [client.signed("GET", path, **sent).json() for path, sent in asked]

    found = history()
    assert [o["clientOrderId"] for o in found[3]][:1] == ["resting"]
    assert len(found[3]) == 43
    assert [o["clientOrderId"] for o in found[4]] == [f"m{i}" for i in range(35, 40)]
    assert [o["orderId"] for o in found[5]] == [3, 4, 5, 6, 7]
    assert found[6] == found[7]
    assert len(found[8]) == 1
    assert len(found[9]) == 40
    assert [t["id"] for t in found[10]] == list(range(2, 9))
    assert len(found[11]) == 1
    assert [o["orderId"] for o in found[12]] == [resting]
    assert client.signed("GET", ORDER, symbol="ETHUSDT", origClientOrderId="m0").json()["code"] == -2013
    stranger = RawClient(server.url, server.create_account(USDT="1"))
    assert stranger.signed("GET", ORDER, symbol=BTC, orderId=resting + 3).json()["code"] == -2013
    assert stranger.signed("GET", "/api/v3/orderList", orderListId=oco["orderListId"]).json()["code"] == -2018
    server.kill()
    server.start()
    assert history() == found
    state = server.admin.state()["accounts"][client.account.account_id]
    assert (len(state["orders"]), len(state["fills"])) == (43, 40)
    placed = client.signed("POST", ORDER, symbol=BTC, side="BUY", type="MARKET", quantity="0.01").json()
    assert placed["orderId"] == 44
    assert placed["fills"][0]["tradeId"] == 41


def test_memory_is_bounded_and_open_lists_stay_whole(empty_postgres_url: str) -> None:
    async def run() -> None:
        store = PaperStore(empty_postgres_url, lambda: None, kept_orders=20)
        exchange = PaperExchange(SyntheticMarket(("BTC/USDT",), 7), store)
        exchange.restore(await store.open(), START)
        exchange.set_clock(MarketClock.frozen(START, START), START)
        exchange.create_account({"USDT": Decimal(100_000)}, "a")
        exchange.refresh(BTC, START)
        last = exchange.engine.quotes[BTC].last_ticks
        legs = (
            NewOrder(BTC, OrderSide.BUY, OrderKind.LIMIT, "w", 1000, last + last // 100),
            NewOrder(BTC, OrderSide.SELL, OrderKind.LIMIT_MAKER, "t", 0, last + last // 10),
            NewOrder(BTC, OrderSide.SELL, OrderKind.STOP_LOSS, "s", 0, stop_ticks=last - last // 10),
        )
        bracket = exchange.engine.place_list("a", NewOrderList(ListKind.OPOCO, BTC, "l", legs), START)
        for i in range(200):
            exchange.engine.place("a", NewOrder(BTC, OrderSide.BUY, OrderKind.MARKET, f"m{i}", 100), START)
            await exchange.commit()
            assert len(exchange.engine.orders) <= 29
        assert all(i in exchange.engine.orders for i in bracket.order_ids)
        assert len(exchange.fills[("a", BTC)]) <= 30
        exchange.engine.cancel_list("a", bracket.list_id, START)
        for i in range(200, 240):
            exchange.engine.place("a", NewOrder(BTC, OrderSide.BUY, OrderKind.MARKET, f"m{i}", 100), START)
            await exchange.commit()
        assert bracket.list_id not in exchange.engine.lists
        await store.close()

    asyncio.run(run())
