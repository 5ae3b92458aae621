"""Orders made smaller where they stand, and the old form of OCO."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from tests.support.paper_requests import RawClient
from tests.support.paper_server import PaperServerProcess

ORDER = "/api/v3/order"
AMEND = "/api/v3/order/amend/keepPriority"
BTC = "BTCUSDT"


@pytest.fixture(scope="module")
def client(paper_server: PaperServerProcess) -> RawClient:
    paper_server.admin.set_clock(1_760_000_040_000)
    return RawClient(paper_server.url, paper_server.create_account(USDT="100000", BTC="5"))


@pytest.fixture(scope="module")
def price(client: RawClient) -> Decimal:
    return Decimal(client.public("/api/v3/ticker/price", symbol=BTC).json()["price"])


def at(price: Decimal, factor: str) -> str:
    return str((price * Decimal(factor)).quantize(Decimal("0.01")))


def resting(client: RawClient, price: Decimal, **more: Any) -> dict[str, Any]:
    sent = {"symbol": BTC, "side": "BUY", "type": "LIMIT", "timeInForce": "GTC", "quantity": "0.05"}
    found: dict[str, Any] = client.signed("POST", ORDER, **sent, price=at(price, "0.9"), **more).json()
    return found


def locked(client: RawClient, asset: str) -> Decimal:
    balances = client.signed("GET", "/api/v3/account").json()["balances"]
    return Decimal(next(b["locked"] for b in balances if b["asset"] == asset))


def test_reduces_in_place_and_frees_the_money(client: RawClient, price: Decimal) -> None:
    assert client.public("/api/v3/exchangeInfo", symbol=BTC).json()["symbols"][0]["amendAllowed"] is True
    placed = resting(client, price, newClientOrderId="whole")
    before = locked(client, "USDT")
    body = client.signed("PUT", AMEND, symbol=BTC, orderId=placed["orderId"], newQty="0.02").json()
    assert set(body) == {"transactTime", "executionId", "amendedOrder"}
    amended = body["amendedOrder"]
    assert (amended["orderId"], amended["origClientOrderId"], amended["qty"]) == (
        placed["orderId"],
        "whole",
        "0.02000000",
    )
    assert amended["clientOrderId"] != "whole"
    assert locked(client, "USDT") == before * 2 / 5
    assert client.signed("GET", ORDER, symbol=BTC, origClientOrderId="whole").json()["code"] == -2013
    found = client.signed("GET", ORDER, symbol=BTC, origClientOrderId=amended["clientOrderId"]).json()
    assert (found["origQty"], found["status"]) == ("0.02000000", "NEW")
    again = client.signed(
        "PUT", AMEND, symbol=BTC, orderId=placed["orderId"], newQty="0.01", newClientOrderId=amended["clientOrderId"]
    ).json()
    assert again["amendedOrder"]["clientOrderId"] == amended["clientOrderId"]
    steps = client.signed("GET", "/api/v3/order/amendments", symbol=BTC, orderId=placed["orderId"]).json()
    assert [(s["origQty"], s["newQty"]) for s in steps] == [("0.05000000", "0.02000000"), ("0.02000000", "0.01000000")]
    later = client.signed(
        "GET",
        "/api/v3/order/amendments",
        symbol=BTC,
        orderId=placed["orderId"],
        fromExecutionId=steps[1]["executionId"],
    ).json()
    assert later == steps[1:]
    client.signed("DELETE", ORDER, symbol=BTC, orderId=placed["orderId"])


@pytest.mark.parametrize(
    ("quantity", "code", "text"),
    [
        ("0.05", -2038, "would change no state"),
        ("0.06", -2038, "quantity increase"),
        ("0", -1013, "Invalid quantity."),
        ("0.00001", -1013, "Filter failure: NOTIONAL"),
        ("0.000015", -1013, "Filter failure: LOT_SIZE"),
    ],
)
def test_refused_amendments_change_nothing(
    client: RawClient, price: Decimal, quantity: str, code: int, text: str
) -> None:
    placed = resting(client, price)
    answer = client.signed("PUT", AMEND, symbol=BTC, orderId=placed["orderId"], newQty=quantity)
    assert (answer.status_code, answer.json()["code"]) == (400, code)
    assert text in answer.json()["msg"]
    assert client.signed("GET", ORDER, symbol=BTC, orderId=placed["orderId"]).json()["origQty"] == "0.05000000"
    client.signed("DELETE", ORDER, symbol=BTC, orderId=placed["orderId"])
    assert client.signed("PUT", AMEND, symbol=BTC, orderId=placed["orderId"], newQty="0.01").json()["code"] == -2038
    assert client.signed("PUT", AMEND, symbol=BTC, newQty="0.01").json()["code"] == -1102
    assert locked(client, "USDT") == 0


@pytest.mark.parametrize(("side", "limit", "stop"), [("SELL", "1.05", "0.95"), ("BUY", "0.95", "1.05")])
def test_old_oco_and_both_legs_of_a_pair_shrink(
    client: RawClient, price: Decimal, side: str, limit: str, stop: str
) -> None:
    body = client.signed(
        "POST", "/api/v3/order/oco", symbol=BTC, side=side, quantity="0.1", price=at(price, limit),
        stopPrice=at(price, stop), stopLimitPrice=at(price, stop), stopLimitTimeInForce="GTC",
        limitClientOrderId=f"limit{side}", stopClientOrderId=f"stop{side}",
    ).json()  # fmt: skip
    kinds = {r["clientOrderId"]: r["type"] for r in body["orderReports"]}
    assert kinds == {f"limit{side}": "LIMIT_MAKER", f"stop{side}": "STOP_LOSS_LIMIT"}
    amended = client.signed("PUT", AMEND, symbol=BTC, origClientOrderId=f"stop{side}", newQty="0.04").json()
    assert amended["listStatus"]["orderListId"] == body["orderListId"]
    quantities = {o["origQty"] for o in client.signed("GET", "/api/v3/openOrders", symbol=BTC).json()}
    assert quantities == {"0.04000000"}
    if side == "SELL":
        assert locked(client, "BTC") == Decimal("0.04")
    client.signed("DELETE", "/api/v3/orderList", symbol=BTC, orderListId=body["orderListId"])
    assert locked(client, "BTC") == locked(client, "USDT") == 0


def test_ccxt_cancels_all_and_edits(paper_server: PaperServerProcess, client: RawClient, price: Decimal) -> None:
    exchange = paper_server.client(client.account)
    exchange.load_markets()
    placed = exchange.create_order("BTC/USDT", "limit", "buy", 0.05, float(at(price, "0.9")))
    edited = exchange.edit_order(placed["id"], "BTC/USDT", "limit", "buy", 0.04, float(at(price, "0.91")))
    assert edited["amount"] == 0.04
    assert edited["id"] != placed["id"]
    assert len(exchange.cancel_all_orders("BTC/USDT")) == 1
    assert exchange.fetch_open_orders("BTC/USDT") == []
