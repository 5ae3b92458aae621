"""Injected faults do what they say: the call happens or not, and the answer comes or not."""

from __future__ import annotations

import time
from collections.abc import Iterator
from decimal import Decimal

import ccxt
import httpx
import pytest

from tests.support.paper_requests import RawClient
from tests.support.paper_server import PaperServerProcess
from tradewind.errors import BadInput
from tradewind.paper.faults import Faults

ORDER = "/api/v3/order"
MARKET = {"symbol": "BTCUSDT", "side": "BUY", "type": "MARKET", "quantity": "0.01"}


@pytest.fixture
def server(paper_server: PaperServerProcess) -> Iterator[PaperServerProcess]:
    paper_server.admin.set_clock(1_760_000_040_000)
    yield paper_server
    paper_server.admin.clear_faults()


@pytest.fixture
def client(server: PaperServerProcess) -> RawClient:
    return RawClient(server.url, server.create_account(USDT="100000", BTC="5"))


def orders(client: RawClient) -> list[str]:
    return [o["clientOrderId"] for o in client.signed("GET", "/api/v3/allOrders", symbol="BTCUSDT").json()]


@pytest.mark.parametrize(
    ("action", "status", "code", "carried_out"),
    [
        ("error_before", 502, -1000, False),
        ("error_after", 502, -1000, True),
        ("timeout_before", 504, -1007, False),
        ("timeout_after", 504, -1007, True),
        ("rate_limited", 429, -1003, False),
        ("banned", 418, -1003, False),
        ("skewed", 400, -1021, False),
    ],
)
def test_answer_and_effect(
    server: PaperServerProcess, client: RawClient, action: str, status: int, code: int, carried_out: bool
) -> None:
    server.admin.add_fault(action, method="POST", path=ORDER, nth=1)
    answer = client.signed("POST", ORDER, **MARKET, newClientOrderId="first")
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    if status in (418, 429):
        assert int(answer.headers["Retry-After"]) > 0
    assert orders(client) == (["first"] if carried_out else [])
    assert client.signed("POST", ORDER, **MARKET, newClientOrderId="second").status_code == 200


@pytest.mark.parametrize(("action", "carried_out"), [("refuse", False), ("drop_after", True)])
def test_cut_connection(server: PaperServerProcess, client: RawClient, action: str, carried_out: bool) -> None:
    server.admin.add_fault(action, method="POST", path=ORDER, times=1)
    with pytest.raises(httpx.RemoteProtocolError):
        client.signed("POST", ORDER, **MARKET, newClientOrderId="cut")
    assert orders(client) == (["cut"] if carried_out else [])


def test_ccxt_takes_a_dropped_answer_for_an_unknown_outcome(server: PaperServerProcess) -> None:
    account = server.create_account(USDT="10000")
    exchange = server.client(account)
    exchange.load_markets()
    server.admin.add_fault("drop_after", method="POST", path=ORDER, times=1)
    with pytest.raises(ccxt.NetworkError):
        exchange.create_order("BTC/USDT", "market", "buy", 0.01, params={"newClientOrderId": "lost"})
    found = exchange.fetch_order(None, "BTC/USDT", {"origClientOrderId": "lost"})
    assert found["status"] == "closed"


def test_hang_after_accepting(server: PaperServerProcess, client: RawClient) -> None:
    server.admin.add_fault("hang_after", method="POST", path=ORDER, times=1, seconds=1.5)
    begun = time.monotonic()
    with pytest.raises(httpx.RemoteProtocolError):
        client.signed("POST", ORDER, **MARKET, newClientOrderId="slow")
    assert time.monotonic() - begun >= 1.5
    assert orders(client) == ["slow"]


def test_delay_comes_before_the_deed(server: PaperServerProcess, client: RawClient) -> None:
    server.admin.add_fault("delay", path="/api/v3/time", seconds=0.3, seconds_max=0.4, times=1)
    begun = time.monotonic()
    assert client.public("/api/v3/time").status_code == 200
    assert time.monotonic() - begun >= 0.3


def test_partial_fill(server: PaperServerProcess, client: RawClient) -> None:
    server.admin.add_fault("partial_fill", method="POST", path=ORDER, frac=0.25, times=1)
    price = Decimal(client.public("/api/v3/ticker/price", symbol="BTCUSDT").json()["price"])
    body = client.signed(
        "POST", ORDER, symbol="BTCUSDT", side="BUY", type="LIMIT", timeInForce="GTC", quantity="0.04",
        price=str((price * Decimal("1.01")).quantize(Decimal("0.01"))),
    ).json()  # fmt: skip
    assert (body["status"], body["executedQty"]) == ("PARTIALLY_FILLED", "0.01000000")


def test_rejected_leg_leaves_the_other(server: PaperServerProcess, client: RawClient) -> None:
    price = Decimal(client.public("/api/v3/ticker/price", symbol="BTCUSDT").json()["price"])

    def at(factor: str) -> str:
        return str((price * Decimal(factor)).quantize(Decimal("0.01")))

    server.admin.add_fault("reject_leg", method="POST", path="/api/v3/orderList/*", leg=2, times=1)
    body = client.signed(
        "POST", "/api/v3/orderList/opoco", symbol="BTCUSDT", workingType="LIMIT", workingSide="BUY",
        workingPrice=at("1.01"), workingQuantity="0.01", workingTimeInForce="FOK", pendingSide="SELL",
        pendingAboveType="LIMIT_MAKER", pendingAbovePrice=at("1.05"), pendingBelowType="STOP_LOSS",
        pendingBelowStopPrice=at("0.95"),
    ).json()  # fmt: skip
    states = [
        client.signed("GET", ORDER, symbol="BTCUSDT", orderId=r["orderId"]).json()["status"]
        for r in body["orderReports"]
    ]
    assert states == ["FILLED", "NEW", "REJECTED"]


def test_candle_faults(server: PaperServerProcess, client: RawClient) -> None:
    def klines() -> list[list[object]]:
        rows: list[list[object]] = client.public("/api/v3/klines", symbol="BTCUSDT", interval="15m", limit=10).json()
        return rows

    good = klines()
    server.admin.add_fault("missing_candles", path="/api/v3/klines", from_ms=good[4][0], to_ms=good[6][0], times=1)
    assert klines() == good[:4] + good[6:]
    server.admin.add_fault("late_candles", path="/api/v3/klines", bars=2, times=1, symbol="BTCUSDT")
    assert client.public("/api/v3/klines", symbol="ETHUSDT", interval="15m", limit=10).json()
    assert klines() == good[:-2]
    server.admin.add_fault("corrected_candle", path="/api/v3/klines", price_frac=0.01, times=1)
    changed = klines()
    assert changed[-2] != good[-2]
    assert float(str(changed[-2][4])) == pytest.approx(float(str(good[-2][4])) * 1.01)
    assert klines() == good


def test_rules_by_count_and_by_seeded_chance(server: PaperServerProcess, client: RawClient) -> None:
    server.admin.add_fault("error_before", path="/api/v3/time", every=3)
    assert [client.public("/api/v3/time").status_code for _ in range(6)] == [200, 200, 502, 200, 200, 502]
    server.admin.clear_faults()
    runs = []
    for _ in range(2):
        server.admin.add_fault("error_before", path="/api/v3/ping", probability=0.5, seed=5)
        runs.append([client.public("/api/v3/ping").status_code for _ in range(20)])
        server.admin.clear_faults()
    assert runs[0] == runs[1]
    assert set(runs[0]) == {200, 502}


def test_bad_rules_are_refused(server: PaperServerProcess) -> None:
    with pytest.raises(BadInput, match="must be one of"):
        server.admin.add_fault("explode")
    with pytest.raises(BadInput, match="no field 'pth'"):
        server.admin.add_fault("delay", pth="/x")


def test_halted_symbol(server: PaperServerProcess, client: RawClient) -> None:
    server.admin.halt("BTC/USDT")
    assert client.public("/api/v3/exchangeInfo", symbol="BTCUSDT").json()["symbols"][0]["status"] == "HALT"
    assert client.signed("POST", ORDER, **MARKET).json() == {"code": -1013, "msg": "Market is closed."}
    server.admin.halt("BTC/USDT", halted=False)
    assert client.signed("POST", ORDER, **MARKET).status_code == 200


def test_admin_needs_its_token(server: PaperServerProcess) -> None:
    assert httpx.get(f"{server.url}/__admin/state").status_code == 401
    wrong = httpx.get(f"{server.url}/__admin/state", headers={"X-Tradewind-Admin": "x"})
    assert wrong.status_code == 401
    with pytest.raises(BadInput, match="exactly one"):
        server.admin._call("POST", "clock", {})
    assert httpx.post(
        f"{server.url}/__admin/clock", headers={"X-Tradewind-Admin": server.token}, content=b"{"
    ).status_code == 400  # fmt: skip


def test_weight_budget_ends_in_429_and_then_418() -> None:
    with PaperServerProcess(weight_limit=40) as server:
        answers = []
        while not answers or (answers[-1].status_code != 418 and len(answers) < 40):  # a minute may end in between
            answers.append(httpx.get(f"{server.url}/api/v3/exchangeInfo"))
        codes = [a.status_code for a in answers]
        assert codes[:1] == [200]
        assert 429 in codes
        assert codes[-1] == 418
        limited = answers[codes.index(429)]
        assert limited.json()["code"] == -1003
        assert int(limited.headers["Retry-After"]) >= 1


def test_order_budget() -> None:
    with PaperServerProcess(order_limit=3) as server:
        client = RawClient(server.url, server.create_account(USDT="10000"))
        answers = [client.signed("POST", ORDER, **MARKET) for _ in range(5)]
        while answers[0].headers["X-MBX-ORDER-COUNT-10S"] != "1":  # a new window began in between
            answers = answers[1:]
        refused = [a for a in answers if a.status_code == 429]
        assert refused
        assert refused[0].json()["code"] == -1015


def test_delisted_symbol_is_gone_with_its_orders(paper_exchange: PaperServerProcess) -> None:
    client = RawClient(paper_exchange.url, paper_exchange.create_account(USDT="100000"))
    price = Decimal(client.public("/api/v3/ticker/price", symbol="ETHUSDT").json()["price"])
    limit = str((price * Decimal("0.9")).quantize(Decimal("0.01")))
    sent = {"symbol": "ETHUSDT", "side": "BUY", "type": "LIMIT", "timeInForce": "GTC", "quantity": "0.1"}
    assert client.signed("POST", ORDER, **sent, price=limit).status_code == 200
    paper_exchange.admin.delist("ETH/USDT")
    for _ in range(2):
        symbols = [s["symbol"] for s in client.public("/api/v3/exchangeInfo").json()["symbols"]]
        assert symbols == ["BTCUSDT"]
        assert len(client.public("/api/v3/ticker/price").json()) == 1
        assert client.signed("POST", ORDER, **sent, price=limit).json()["code"] == -1121
        assert client.signed("GET", "/api/v3/openOrders").json() == []
        balances = client.signed("GET", "/api/v3/account").json()["balances"]
        assert all(Decimal(b["locked"]) == 0 for b in balances)
        state = paper_exchange.admin.state()["accounts"][client.account.account_id]
        assert [o["status"] for o in state["orders"]] == ["EXPIRED"]
        paper_exchange.kill()
        paper_exchange.start()
    assert client.signed("POST", ORDER, **MARKET).status_code == 200


@pytest.mark.parametrize(("action", "carried_out"), [("restart_before", False), ("restart_after", True)])
def test_restart_by_rule(paper_exchange: PaperServerProcess, action: str, carried_out: bool) -> None:
    client = RawClient(paper_exchange.url, paper_exchange.create_account(USDT="100000"))
    assert client.signed("POST", ORDER, **MARKET, newClientOrderId="first").status_code == 200
    paper_exchange.admin.add_fault(action, method="POST", path=ORDER, times=1)
    with pytest.raises(httpx.HTTPError):
        client.signed("POST", ORDER, **MARKET, newClientOrderId="second")
    paper_exchange.wait()
    assert orders(client) == (["first", "second"] if carried_out else ["first"])
    assert paper_exchange.admin.faults() == []


def test_delays_by_distribution() -> None:
    faults = Faults()
    fixed = faults.add({"action": "delay", "seconds": 2})
    ranged = faults.add({"action": "delay", "seconds": 1, "seconds_max": 3, "seed": 1})
    tailed = faults.add({"action": "delay", "seconds": 0.5, "seconds_mean": 2, "seed": 1})
    assert {fixed.seconds() for _ in range(5)} == {2}
    drawn = [ranged.seconds() for _ in range(500)]
    assert 1 <= min(drawn) < 1.1 < 2.9 < max(drawn) <= 3
    tail = [tailed.seconds() for _ in range(5000)]
    assert min(tail) >= 0.5
    assert sum(tail) / len(tail) == pytest.approx(2.5, rel=0.1)
    assert max(tail) > 8
