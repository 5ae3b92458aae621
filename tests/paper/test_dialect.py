"""What the exchange answers to good and bad requests, in Binance's words."""

from __future__ import annotations

import hashlib
import hmac
import time
from decimal import Decimal

import ccxt
import pytest

from tests.support.paper_requests import RawClient
from tests.support.paper_server import PaperServerProcess

ORDER = "/api/v3/order"


@pytest.fixture(scope="module")
def client(paper_server: PaperServerProcess) -> RawClient:
    paper_server.admin.set_clock(1_760_000_040_000)
    return RawClient(paper_server.url, paper_server.create_account(USDT="100000", BTC="5"))


@pytest.fixture(scope="module")
def price(client: RawClient) -> Decimal:
    answer = client.public("/api/v3/ticker/price", symbol="BTCUSDT").json()
    return Decimal(answer["price"])


def at(price: Decimal, factor: str) -> str:
    return str((price * Decimal(factor)).quantize(Decimal("0.01")))


# ------------------------------------------------------------------------------------------------------ authentication
def test_signature_covers_query_and_body(client: RawClient) -> None:
    # Binance's mixed form: parameters split between query string and body, signed as one text without a separator.
    query = "omitZeroBalances=true"
    stamp = f"timestamp={int(time.time() * 1000)}"
    signature = hmac.new(client.account.api_secret.encode(), query.encode(), hashlib.sha256)
    signature.update(f"&{stamp}".encode())
    answer = client.raw(
        "GET",
        f"/api/v3/account?{query}&{stamp}&signature={signature.hexdigest().upper()}",
        **{"X-MBX-APIKEY": client.account.api_key},
    )
    assert answer.status_code == 200, answer.text

    query, body = "symbol=BTCUSDT&side=BUY&type=MARKET", f"quoteOrderQty=50&timestamp={int(time.time() * 1000)}"
    digest = hmac.new(client.account.api_secret.encode(), (query + body).encode(), hashlib.sha256).hexdigest()
    answer = client.raw(
        "POST", f"{ORDER}/test?{query}", f"{body}&signature={digest}", **{"X-MBX-APIKEY": client.account.api_key}
    )
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"secret": "wrong"}, 400, -1022),
        ({"timestamp": 1_500_000_000_000}, 400, -1021),
        ({"timestamp": int(time.time() * 1000) + 86_400_000}, 400, -1021),
        ({"api_key": "0" * 64}, 401, -2015),
        ({"api_key": "?"}, 401, -2014),
        ({"api_key": ""}, 401, -2014),
        ({"recvWindow": 60_001}, 400, -1131),
        ({"recvWindow": "x"}, 400, -1100),
        ({"timestamp": "soon"}, 400, -1100),
        ({"timestamp": ""}, 400, -1102),
    ],
)
def test_bad_credentials(client: RawClient, change: dict[str, object], status: int, code: int) -> None:
    answer = client.signed("GET", "/api/v3/account", **change)  # type: ignore[arg-type]
    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_microsecond_timestamp_is_accepted(client: RawClient) -> None:
    assert client.signed("GET", "/api/v3/account", timestamp=time.time_ns() // 1000).status_code == 200


def test_unsigned_request_misses_its_parameters(client: RawClient) -> None:
    answer = client.raw("GET", "/api/v3/account", **{"X-MBX-APIKEY": client.account.api_key})
    assert answer.json() == {
        "code": -1102,
        "msg": "Mandatory parameter 'timestamp' was not sent, was empty/null, or malformed.",
    }


def test_key_without_trading_rights(paper_server: PaperServerProcess, client: RawClient) -> None:
    reader = RawClient(paper_server.url, paper_server.admin.create_key(client.account.account_id, can_trade=False))
    assert reader.signed("GET", "/api/v3/account").json()["canTrade"] is False
    refused = reader.signed("POST", ORDER, symbol="BTCUSDT", side="BUY", type="MARKET", quantity="0.01")
    assert (refused.status_code, refused.json()["code"]) == (401, -2015)


# ---------------------------------------------------------------------------------------------------------- parameters
LIMIT = {
    "symbol": "BTCUSDT",
    "side": "BUY",
    "type": "LIMIT",
    "timeInForce": "GTC",
    "quantity": "0.01",
    "price": "40000",
}


@pytest.mark.parametrize(
    ("change", "code", "text"),
    [
        ({"symbol": "NOPEUSDT"}, -1121, "Invalid symbol."),
        ({"symbol": "btcusdt"}, -1100, "Illegal characters found in parameter 'symbol'"),
        ({"side": "HOLD"}, -1117, "Invalid side."),
        ({"type": "ICEBERG"}, -1116, "Invalid orderType."),
        ({"timeInForce": "GTX"}, -1115, "Invalid timeInForce."),
        ({"timeInForce": None}, -1102, "Mandatory parameter 'timeInForce' was not sent"),
        ({"price": None}, -1102, "Mandatory parameter 'price' was not sent"),
        ({"quantity": None}, -1102, "Mandatory parameter 'quantity' was not sent"),
        ({"side": None}, -1102, "Mandatory parameter 'side' was not sent"),
        ({"quantity": ""}, -1105, "Parameter 'quantity' was empty."),
        ({"quantity": "-1"}, -1100, "Illegal characters found in parameter 'quantity'"),
        ({"quantity": "1e-3"}, -1100, "Illegal characters found in parameter 'quantity'"),
        ({"quantity": "NaN"}, -1100, "Illegal characters found in parameter 'quantity'"),
        ({"quantity": "0"}, -1013, "Invalid quantity."),
        ({"price": "0.00"}, -1013, "Invalid price."),
        ({"quantity": "0.000000001"}, -1111, "Parameter 'quantity' has too much precision."),
        ({"quantity": "0.000015"}, -1013, "Filter failure: LOT_SIZE"),
        ({"quantity": "99999"}, -1013, "Filter failure: LOT_SIZE"),
        ({"price": "40000.001"}, -1013, "Filter failure: PRICE_FILTER"),
        ({"price": "1"}, -1013, "Filter failure: PERCENT_PRICE_BY_SIDE"),
        ({"quantity": "0.0001"}, -1013, "Filter failure: NOTIONAL"),
        ({"quantity": "4"}, -2010, "Account has insufficient balance for requested action."),
        ({"stopPrice": "39000"}, -1106, "Parameter 'stopPrice' sent when not required."),
        ({"newOrderRespType": "SOME"}, -1130, "Data sent for parameter 'newOrderRespType' is not valid."),
        ({"newClientOrderId": "a" * 37}, -1100, "Illegal characters found in parameter 'newClientOrderId'"),
        ({"strategyType": "1"}, -1134, "strategyType was less than 1000000."),
        ({"unknown": "1"}, -1104, "Not all sent parameters were read; read '8' parameter(s) but was sent '9'."),
        ({"type": "MARKET", "timeInForce": None}, -1106, "Parameter 'price' sent when not required."),
        ({"type": "STOP_LOSS", "timeInForce": None, "price": None}, -1102, "Param 'stopPrice' or 'trailingDelta'"),
        ({"type": "LIMIT_MAKER"}, -1106, "Parameter 'timeInForce' sent when not required."),
        ({"icebergQty": "0.001", "timeInForce": "IOC"}, -1014, "Unsupported order combination."),
    ],
)
def test_bad_order_parameters(client: RawClient, change: dict[str, str | None], code: int, text: str) -> None:
    before = client.signed("GET", "/api/v3/openOrders").json()
    sent = {k: v for k, v in {**LIMIT, **change}.items() if v is not None}
    for in_body in (False, True):
        answer = client.signed("POST", ORDER, in_body=in_body, **sent)
        assert answer.status_code == 400, answer.text
        assert answer.json()["code"] == code, answer.text
        assert answer.json()["msg"].startswith(text)
    assert client.signed("GET", "/api/v3/openOrders").json() == before


@pytest.mark.parametrize(
    ("target", "code"),
    [
        ("/api/v3/klines?symbol=BTCUSDT", -1102),
        ("/api/v3/klines?symbol=BTCUSDT&interval=7m", -1120),
        ("/api/v3/klines?symbol=BTCUSDT&interval=1h&limit=x", -1100),
        ("/api/v3/klines?symbol=BTCUSDT&interval=1h&startTime=-5", -1100),
        ("/api/v3/klines?symbol=BTCUSDT&interval=1h&startTime=99999999999999999999", -1108),
        ("/api/v3/klines?symbol=BTCUSDT&interval=1h&timeZone=15:00", -1130),
        ("/api/v3/ticker/price?symbol=BTCUSDT&symbols=%5B%22BTCUSDT%22%5D", -1128),
        ("/api/v3/ticker/price?symbols=BTCUSDT", -1100),
        ("/api/v3/ticker/price?symbols=%5B%22BTCUSDT%22,%22BTCUSDT%22%5D", -1151),
        ("/api/v3/ticker/price?symbol=BTCUSDT&symbol=ETHUSDT", -1101),
        ("/api/v3/ticker/price?symbolx=BTCUSDT", -1104),
        ("/api/v3/ticker?symbol=BTCUSDT&windowSize=8d", -1130),
        ("/api/v3/ticker", -1102),
        ("/api/v3/ticker/24hr?symbol=BTCUSDT&type=HUGE", -1139),
        ("/api/v3/ping?x=1", -1101),
        ("/api/v3/depth?symbol=", -1105),
        ("/api/v3/exchangeInfo?symbol=FOO", -1121),
    ],
)
def test_bad_public_requests(client: RawClient, target: str, code: int) -> None:
    answer = client.raw("GET", target)
    assert (answer.status_code, answer.json()["code"]) == (400, code), answer.text


def test_unknown_path_and_method(client: RawClient) -> None:
    assert client.raw("GET", "/api/v3/nothing").status_code == 404
    assert client.raw("PUT", "/api/v3/ping").status_code == 405


# -------------------------------------------------------------------------------------------------------------- orders
def test_response_types(client: RawClient, price: Decimal) -> None:
    def place(**more: str) -> dict[str, object]:
        sent = {**LIMIT, "price": at(price, "0.9"), **more}
        body: dict[str, object] = client.signed("POST", ORDER, **sent).json()
        client.signed("DELETE", ORDER, symbol="BTCUSDT", orderId=body["orderId"])
        return body

    ack, result, full = (place(newOrderRespType=kind) for kind in ("ACK", "RESULT", "FULL"))
    assert set(ack) == {"symbol", "orderId", "orderListId", "clientOrderId", "transactTime"}
    assert set(result) - set(ack) == {
        "price", "origQty", "executedQty", "origQuoteOrderQty", "cummulativeQuoteQty", "status", "timeInForce", "type",
        "side", "workingTime", "selfTradePreventionMode",
    }  # fmt: skip
    assert set(full) - set(result) == {"fills"}
    assert result["price"] == at(price, "0.9") + "000000"
    assert result["executedQty"] == "0.00000000"
    assert result["orderListId"] == -1
    default = place()
    assert "fills" in default  # LIMIT answers FULL unless told otherwise


def test_market_order_by_money(client: RawClient) -> None:
    body = client.signed("POST", ORDER, symbol="BTCUSDT", side="BUY", type="MARKET", quoteOrderQty="500").json()
    assert body["status"] == "FILLED"
    assert body["origQuoteOrderQty"] == "500.00000000"
    assert Decimal(body["origQty"]) == Decimal(body["executedQty"]) == sum(Decimal(f["qty"]) for f in body["fills"])
    spent = Decimal(body["cummulativeQuoteQty"])
    assert Decimal(499) < spent <= 500
    assert spent == sum(Decimal(f["qty"]) * Decimal(f["price"]) for f in body["fills"])
    commission = sum(Decimal(f["commission"]) for f in body["fills"])
    assert commission == pytest.approx(Decimal(body["executedQty"]) / 1000, rel=Decimal("0.01"))


def test_duplicate_id_while_open_then_accepted(client: RawClient, price: Decimal) -> None:
    sent = {**LIMIT, "price": at(price, "0.9"), "newClientOrderId": "once"}
    first = client.signed("POST", ORDER, **sent)
    again = client.signed("POST", ORDER, **sent)
    assert again.json() == {"code": -2010, "msg": "Duplicate order sent."}
    assert client.signed("DELETE", ORDER, symbol="BTCUSDT", origClientOrderId="once").json()["status"] == "CANCELED"
    third = client.signed("POST", ORDER, **sent)
    assert third.json()["orderId"] > first.json()["orderId"]
    newest = client.signed("GET", ORDER, symbol="BTCUSDT", origClientOrderId="once").json()
    assert newest["orderId"] == third.json()["orderId"]
    client.signed("DELETE", ORDER, symbol="BTCUSDT", orderId=newest["orderId"])


def test_unknown_orders(client: RawClient) -> None:
    assert client.signed("GET", ORDER, symbol="BTCUSDT", orderId=10**9).json() == {
        "code": -2013,
        "msg": "Order does not exist.",
    }
    assert client.signed("DELETE", ORDER, symbol="BTCUSDT", orderId=10**9).json() == {
        "code": -2011,
        "msg": "Unknown order sent.",
    }
    assert client.signed("GET", ORDER, symbol="BTCUSDT").json()["code"] == -1102
    assert client.signed("GET", "/api/v3/orderList", orderListId=10**9).json()["code"] == -2018


def test_triggers_and_makers_are_refused_when_they_would_act(client: RawClient, price: Decimal) -> None:
    stop = {"symbol": "BTCUSDT", "side": "SELL", "type": "STOP_LOSS", "quantity": "0.01"}
    assert client.signed("POST", ORDER, **stop, stopPrice=at(price, "1.01")).json() == {
        "code": -2010,
        "msg": "Order would trigger immediately.",
    }
    maker = {"symbol": "BTCUSDT", "side": "BUY", "type": "LIMIT_MAKER", "quantity": "0.01"}
    assert client.signed("POST", ORDER, **maker, price=at(price, "1.01")).json() == {
        "code": -2010,
        "msg": "Order would immediately match and take.",
    }


def test_cancel_replace(client: RawClient, price: Decimal) -> None:
    placed = client.signed("POST", ORDER, **{**LIMIT, "price": at(price, "0.9")}).json()
    new = {**LIMIT, "price": at(price, "0.91"), "cancelReplaceMode": "STOP_ON_FAILURE"}
    both = client.signed("POST", f"{ORDER}/cancelReplace", **new, cancelOrderId=placed["orderId"])
    assert both.status_code == 200
    assert both.json()["cancelResult"] == both.json()["newOrderResult"] == "SUCCESS"
    unknown = client.signed("POST", f"{ORDER}/cancelReplace", **new, cancelOrderId=placed["orderId"])
    assert (unknown.status_code, unknown.json()["code"]) == (400, -2022)
    assert unknown.json()["data"]["newOrderResult"] == "NOT_ATTEMPTED"
    resting = both.json()["newOrderResponse"]["orderId"]
    dear = {**new, "quantity": "3"}
    half = client.signed("POST", f"{ORDER}/cancelReplace", **dear, cancelOrderId=resting)
    assert (half.status_code, half.json()["code"]) == (409, -2021)
    assert half.json()["data"]["cancelResult"] == "SUCCESS"
    assert half.json()["data"]["newOrderResponse"]["code"] == -2010
    assert client.signed("GET", "/api/v3/openOrders", symbol="BTCUSDT").json() == []


def test_cancel_restrictions(client: RawClient, price: Decimal) -> None:
    order_id = client.signed("POST", ORDER, **{**LIMIT, "price": at(price, "0.9")}).json()["orderId"]
    where = {"symbol": "BTCUSDT", "orderId": order_id}
    assert client.signed("DELETE", ORDER, **where, cancelRestrictions="MAYBE").json()["code"] == -1145
    refused = client.signed("DELETE", ORDER, **where, cancelRestrictions="ONLY_PARTIALLY_FILLED").json()
    assert refused["msg"] == "Order was not canceled due to cancel restrictions."
    assert client.signed("DELETE", ORDER, **where, cancelRestrictions="ONLY_NEW").json()["status"] == "CANCELED"


# --------------------------------------------------------------------------------------------------------------- lists
@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"aboveType": "STOP_LOSS", "abovePrice": None, "aboveStopPrice": "1.02"}, -1197),
        ({"belowType": "LIMIT_MAKER", "belowStopPrice": None, "belowPrice": "0.98"}, -1168),
        ({"belowType": "TAKE_PROFIT"}, -1199),
        ({"aboveType": "LIMIT", "aboveTimeInForce": "GTC"}, -1158),
        ({"abovePrice": "0.99"}, -2010),
        ({"belowStopPrice": "1.01"}, -2010),
        ({"belowStopPrice": None}, -1102),
        ({"quantity": None}, -1102),
        ({"quantity": "50"}, -2010),
    ],
)
def test_bad_oco(client: RawClient, price: Decimal, change: dict[str, str | None], code: int) -> None:
    good: dict[str, str | None] = {
        "symbol": "BTCUSDT", "side": "SELL", "quantity": "0.1", "aboveType": "LIMIT_MAKER", "abovePrice": "1.02",
        "belowType": "STOP_LOSS", "belowStopPrice": "0.98",
    }  # fmt: skip
    sent = {k: v for k, v in {**good, **change}.items() if v is not None}
    sent = {k: at(price, v) if k.endswith("Price") else v for k, v in sent.items()}
    answer = client.signed("POST", "/api/v3/orderList/oco", **sent)
    assert answer.json().get("code") == code, answer.text
    assert client.signed("GET", "/api/v3/openOrderList").json() == []


def test_opo_only_sells_what_it_bought(client: RawClient, price: Decimal) -> None:
    sent = {
        "symbol": "BTCUSDT", "workingType": "LIMIT", "workingSide": "SELL", "workingPrice": at(price, "1.1"),
        "workingQuantity": "0.01", "workingTimeInForce": "GTC", "pendingSide": "BUY", "pendingType": "MARKET",
    }  # fmt: skip
    assert client.signed("POST", "/api/v3/orderList/opo", **sent).json()["code"] == -1117


def test_oto_shows_pending_until_the_working_order_fills(client: RawClient, price: Decimal) -> None:
    sent = {
        "symbol": "BTCUSDT", "workingType": "LIMIT", "workingSide": "BUY", "workingPrice": at(price, "1.01"),
        "workingQuantity": "0.02", "workingTimeInForce": "GTC", "pendingSide": "SELL", "pendingType": "LIMIT",
        "pendingPrice": at(price, "1.2"), "pendingQuantity": "0.01", "pendingTimeInForce": "GTC",
        "listClientOrderId": "list1", "workingClientOrderId": "w1", "pendingClientOrderId": "p1",
    }  # fmt: skip
    body = client.signed("POST", "/api/v3/orderList/oto", **sent).json()
    assert [r["status"] for r in body["orderReports"]] == ["FILLED", "PENDING_NEW"]
    assert body["contingencyType"] == "OTO"
    pending = client.signed("GET", ORDER, symbol="BTCUSDT", origClientOrderId="p1").json()
    assert pending["status"] == "NEW"
    by_id = client.signed("GET", "/api/v3/orderList", origClientOrderId="list1").json()
    assert by_id["listOrderStatus"] == "EXECUTING"
    gone = client.signed("DELETE", "/api/v3/orderList", symbol="BTCUSDT", listClientOrderId="list1").json()
    assert gone["listOrderStatus"] == "ALL_DONE"
    assert [r["status"] for r in gone["orderReports"]] == ["FILLED", "CANCELED"]


# ------------------------------------------------------------------------------------------------------ rules, account
def test_exchange_info_names_the_market(client: RawClient) -> None:
    answer = client.public("/api/v3/exchangeInfo", symbol="BTCUSDT")
    assert answer.headers["X-Tradewind-Market"] == "synthetic"
    body = answer.json()
    assert body["tradewindMarket"].startswith("synthetic")
    symbol = body["symbols"][0]
    assert symbol["otoAllowed"]
    assert symbol["opoAllowed"]
    assert {f["filterType"] for f in symbol["filters"]} >= {"PRICE_FILTER", "LOT_SIZE", "NOTIONAL", "MARKET_LOT_SIZE"}


def test_wallet_endpoints_that_clients_ask_at_start(client: RawClient) -> None:
    rights = client.signed("GET", "/sapi/v1/account/apiRestrictions").json()
    assert rights["enableWithdrawals"] is False
    assert {c["coin"] for c in client.signed("GET", "/sapi/v1/capital/config/getall").json()} == {"BTC", "ETH", "USDT"}
    assert client.signed("GET", "/sapi/v1/asset/tradeFee").json()[0]["takerCommission"] == "0.001"
    assert client.signed("GET", "/api/v3/account/commission", symbol="BTCUSDT").json()["standardCommission"]["taker"]
    assert [r["interval"] for r in client.signed("GET", "/api/v3/rateLimit/order").json()] == ["SECOND", "DAY"]


def test_ccxt_loads_with_its_own_defaults(paper_server: PaperServerProcess, client: RawClient) -> None:
    """Every market type, currencies, margin: what ccxt asks when nobody told it not to."""
    exchange = ccxt.binance({"apiKey": client.account.api_key, "secret": client.account.api_secret})
    for name, url in exchange.urls["api"].items():
        if isinstance(url, str) and url.startswith("https://"):
            exchange.urls["api"][name] = paper_server.url + "/" + url.split("/", 3)[3]
    assert {"BTC/USDT", "BTC/USDT:USDT"} <= set(exchange.load_markets())
    assert {"BTC", "ETH", "USDT"} == set(exchange.fetch_currencies())
    assert exchange.fetch_trading_fee("BTC/USDT")["taker"] == 0.001
    assert exchange.fetch_deposits() == exchange.fetch_withdrawals() == []
    held = client.signed("POST", "/sapi/v3/asset/getUserAsset").json()
    assert {row["asset"] for row in held} == {"BTC", "USDT"}
    assert client.raw("GET", "/sapi/v1/margin/allPairs").json()["code"] == -2014


def test_my_trades_combinations(client: RawClient) -> None:
    for extra, code in (
        ({"fromId": 0, "startTime": 0}, -1128),
        ({"startTime": 0, "endTime": 86_400_001}, -1127),
    ):
        assert client.signed("GET", "/api/v3/myTrades", symbol="BTCUSDT", **extra).json()["code"] == code
    trades = client.signed("GET", "/api/v3/myTrades", symbol="BTCUSDT", fromId=0).json()
    assert trades
    assert all(isinstance(t["price"], str) and isinstance(t["isBuyer"], bool) for t in trades)
