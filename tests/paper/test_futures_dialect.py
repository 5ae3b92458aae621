"""The futures side over HTTP, by a client that knows nothing of us: ccxt's binanceusdm."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import ccxt
import pytest

from tests.support.futures import futures_account, futures_client
from tests.support.paper_server import PaperServerProcess

BTC = "BTC/USDT:USDT"
NOW_MS = round(datetime(2024, 3, 5, 12, 0, 5, tzinfo=UTC).timestamp() * 1000)


@pytest.fixture(scope="module")
def server() -> Iterator[PaperServerProcess]:
    with PaperServerProcess() as running:
        running.admin.set_clock(NOW_MS)
        yield running


@pytest.fixture
def client(server: PaperServerProcess) -> ccxt.binanceusdm:
    found = futures_client(server, futures_account(server))
    found.load_markets()
    return found


def last(client: ccxt.binanceusdm) -> float:
    price = client.fetch_ticker(BTC)["last"]
    assert price is not None
    return float(price)


def held(client: ccxt.binanceusdm) -> float:
    positions = client.fetch_positions([BTC])
    return sum(float(p["contracts"]) * (1 if p["side"] == "long" else -1) for p in positions)


# --------------------------------------------------------------------------------------------------------- market data
def test_markets_are_linear_perpetuals(client: ccxt.binanceusdm) -> None:
    market = client.market(BTC)
    assert (market["swap"], market["linear"], market["settle"], market["contractSize"]) == (True, True, "USDT", 1)
    assert market["precision"]["price"] == 0.01
    assert market["limits"]["cost"]["min"] == 5


def test_candles_book_tickers_and_funding(client: ccxt.binanceusdm) -> None:
    bars = client.fetch_ohlcv(BTC, "15m", limit=1000)
    assert len(bars) == 1000
    raw = {"symbol": "BTCUSDT", "interval": "15m", "limit": 1500}
    assert len(client.fapipublic_get_klines(raw)) == 1500
    assert {b - a for (a, *_), (b, *_) in itertools.pairwise(bars)} == {900_000}
    book = client.fetch_order_book(BTC, limit=5)
    assert book["bids"][0][0] < last(client) < book["asks"][0][0]
    assert client.fetch_tickers([BTC])[BTC]["high"] >= last(client)
    assert client.fetch_bids_asks([BTC])[BTC]["bid"] == book["bids"][0][0]
    assert len(client.fetch_trades(BTC, limit=10)) == 10
    now = client.fetch_funding_rate(BTC)
    assert now["markPrice"] == last(client)
    assert now["fundingTimestamp"] % 28_800_000 == 0
    history = client.fetch_funding_rate_history(BTC, limit=9)
    assert len(history) == 9
    assert all(row["timestamp"] % 28_800_000 == 0 and abs(row["fundingRate"]) <= 0.003 for row in history)
    assert client.fetch_time() > NOW_MS


def test_balance_leverage_and_modes(client: ccxt.binanceusdm) -> None:
    balance = client.fetch_balance()["USDT"]
    assert (balance["free"], balance["used"], balance["total"]) == (10_000, 0, 10_000)
    client.set_leverage(3, BTC)
    assert client.fetch_leverage(BTC)["longLeverage"] == 3
    assert client.fetch_leverage(BTC)["marginMode"] == "isolated"
    with pytest.raises(ccxt.MarginModeAlreadySet):
        client.set_margin_mode("isolated", BTC)
    with pytest.raises(ccxt.ExchangeError):
        client.set_margin_mode("cross", BTC)
    assert client.fetch_position_mode()["hedged"] is False
    tiers = client.fetch_leverage_tiers([BTC])[BTC]
    assert tiers[0]["maxLeverage"] == 125
    assert client.fetch_trading_fee(BTC)["taker"] == 0.0005
    with pytest.raises(ccxt.ExchangeError, match="-4028"):
        client.fapiprivate_post_leverage({"symbol": "BTCUSDT", "leverage": 126})


def test_money_moves_between_the_two_sides(client: ccxt.binanceusdm, server: PaperServerProcess) -> None:
    client.transfer("USDT", 250, "spot", "linear")
    assert client.fetch_balance()["USDT"]["total"] == 10_250
    client.transfer("USDT", 50, "linear", "spot")
    spot = client.private_get_account({"omitZeroBalances": "true"})["balances"]
    assert [(row["asset"], float(row["free"])) for row in spot] == [("USDT", 800)]
    with pytest.raises(ccxt.ExchangeError):
        client.transfer("USDT", 100_000, "linear", "spot")


# --------------------------------------------------------------------------------------------------------------- orders
@pytest.mark.parametrize("side", ["buy", "sell"])
def test_a_position_opened_and_closed_on_either_side(client: ccxt.binanceusdm, side: str) -> None:
    client.set_leverage(5, BTC)
    order = client.create_order(BTC, "market", side, 0.05)
    assert (order["status"], order["filled"]) == ("closed", 0.05)
    (position,) = client.fetch_positions([BTC])
    assert position["side"] == ("long" if side == "buy" else "short")
    assert position["contracts"] == 0.05
    assert position["marginMode"] == "isolated"
    away = position["liquidationPrice"] / position["entryPrice"] - 1
    assert (-0.21 < away < -0.18) if side == "buy" else (0.18 < away < 0.21)
    (risk,) = client.fetch_positions_risk([BTC], {"useV2": True})
    assert (risk["contracts"], risk["leverage"]) == (0.05, 5)
    back = "sell" if side == "buy" else "buy"
    client.create_order(BTC, "market", back, 0.08, params={"reduceOnly": True})
    assert held(client) == 0
    incomes = client.fapiprivate_get_income({"limit": 1000})
    total = sum((Decimal(row["income"]) for row in incomes), Decimal(0))
    assert total == Decimal(client.fapiprivatev3_get_balance()[0]["balance"])
    trades = client.fetch_my_trades(BTC)
    assert sum(t["amount"] * (1 if t["side"] == "buy" else -1) for t in trades) == pytest.approx(0)
    assert {t["fee"]["currency"] for t in trades} == {"USDT"}


def test_limit_orders_rest_amend_no_more_and_are_found_again(client: ccxt.binanceusdm) -> None:
    price = round(last(client) * 0.97, 2)
    order = client.create_order(BTC, "limit", "buy", 0.01, price, {"clientOrderId": "resting-1"})
    assert order["status"] == "open"
    assert [o["id"] for o in client.fetch_open_orders(BTC)] == [order["id"]]
    assert client.fetch_order(order["id"], BTC)["clientOrderId"] == "resting-1"
    by_client_id = client.fapiprivate_get_order({"symbol": "BTCUSDT", "origClientOrderId": "resting-1"})
    assert str(by_client_id["orderId"]) == order["id"]
    assert client.fetch_balance()["USDT"]["free"] < 10_000
    with pytest.raises(ccxt.ExchangeError, match="-4116"):
        client.create_order(BTC, "limit", "buy", 0.01, price, {"clientOrderId": "resting-1"})
    assert client.cancel_order(order["id"], BTC)["status"] == "canceled"
    with pytest.raises(ccxt.OrderNotFound):
        client.cancel_order(order["id"], BTC)
    with pytest.raises(ccxt.OrderNotFound):
        client.fetch_order("999999", BTC)
    client.create_order(BTC, "limit", "sell", 0.01, round(last(client) * 1.03, 2), {"postOnly": True})
    client.cancel_all_orders(BTC)
    assert client.fetch_open_orders(BTC) == []
    assert len(client.fetch_orders(BTC)) == 2


CONDITIONAL = [
    ("market", "sell", {"stopLossPrice": 0.97}, "STOP_MARKET"),
    ("limit", "sell", {"stopLossPrice": 0.97}, "STOP"),
    ("market", "sell", {"takeProfitPrice": 1.03}, "TAKE_PROFIT_MARKET"),
    ("limit", "sell", {"takeProfitPrice": 1.03}, "TAKE_PROFIT"),
    ("market", "sell", {"trailingPercent": 1.5}, "TRAILING_STOP_MARKET"),
    ("market", "buy", {"stopLossPrice": 1.03}, "STOP_MARKET"),
    ("market", "buy", {"takeProfitPrice": 0.97}, "TAKE_PROFIT_MARKET"),
]


@pytest.mark.parametrize(("kind", "side", "trigger", "sent_as"), CONDITIONAL)
def test_conditional_orders_live_with_the_algo_service(
    client: ccxt.binanceusdm, kind: str, side: str, trigger: dict[str, float], sent_as: str
) -> None:
    now = last(client)
    params: dict[str, Any] = {k: v if k == "trailingPercent" else round(now * v, 2) for k, v in trigger.items()}
    params["reduceOnly"] = True
    price = round(now * 0.96, 2) if kind == "limit" else None
    order = client.create_order(BTC, kind, side, 0.02, price, params)
    assert order["status"] == "open"
    assert order["info"]["orderType"] == sent_as
    assert client.fetch_open_orders(BTC) == [], "it is no order of the matching engine yet"
    (waiting,) = client.fetch_open_orders(BTC, params={"trigger": True})
    assert waiting["id"] == order["id"]
    assert client.fetch_order(order["id"], BTC, {"trigger": True})["reduceOnly"] is True
    client.cancel_order(order["id"], BTC, {"trigger": True})
    assert client.fetch_open_orders(BTC, params={"trigger": True}) == []
    (over,) = client.fetch_orders(BTC, params={"trigger": True})
    assert over["status"] == "canceled"


def test_conditional_types_are_refused_at_the_order_endpoint(client: ccxt.binanceusdm) -> None:
    with pytest.raises(ccxt.ExchangeError, match="-4120"):
        client.fapiprivate_post_order(
            {"symbol": "BTCUSDT", "side": "SELL", "type": "STOP_MARKET", "quantity": "0.01", "stopPrice": "10"}
        )


def test_a_stop_triggers_and_names_the_order_it_became(client: ccxt.binanceusdm, server: PaperServerProcess) -> None:
    client.create_order(BTC, "market", "buy", 0.02)
    now = last(client)
    stop = client.create_order(
        BTC, "market", "sell", 0.02, None, {"stopLossPrice": round(now * 0.98, 2), "reduceOnly": True}
    )
    target = client.create_order(
        BTC, "market", "sell", 0.02, None, {"takeProfitPrice": round(now * 1.05, 2), "reduceOnly": True}
    )
    server.admin.shock(-0.03, "BTC/USDT")
    server.admin.step_ms(60_000)
    assert held(client) == 0
    done = client.fapiprivate_get_algoorder({"algoId": stop["id"]})
    assert done["algoStatus"] == "FINISHED"
    actual = client.fapiprivate_get_order({"symbol": "BTCUSDT", "orderId": done["actualOrderId"]})
    assert (actual["status"], actual["type"], actual["origType"]) == ("FILLED", "MARKET", "STOP_MARKET")
    # The other leg is reduce-only: it stays until it is cancelled, and could open nothing.
    assert client.fapiprivate_get_algoorder({"algoId": target["id"]})["algoStatus"] == "NEW"
    server.admin.shock(0.12, "BTC/USDT")
    server.admin.step_ms(60_000)
    assert client.fapiprivate_get_algoorder({"algoId": target["id"]})["algoStatus"] == "EXPIRED"
    assert held(client) == 0


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"type": "MARKET", "quantity": "0.02", "reduceOnly": "true"}, -2022),
        ({"type": "MARKET", "quantity": "50"}, -2019),
        ({"type": "MARKET", "quantity": "0.00002"}, -4164),
        ({"type": "MARKET", "quantity": "0.0000012"}, -1111),
        ({"type": "MARKET", "quantity": "0"}, -4003),
        ({"type": "MARKET"}, -1102),
        ({"type": "LIMIT", "quantity": "0.02", "price": "100.001", "timeInForce": "GTC"}, -4014),
        ({"type": "LIMIT", "quantity": "0.02", "price": "30000"}, -1102),
        ({"type": "LIMIT", "quantity": "0.02", "price": "30000", "timeInForce": "FOK"}, -5021),
        ({"type": "LIMIT", "quantity": "0.02", "price": "90000", "timeInForce": "GTX"}, -5022),
        ({"type": "MARKET", "quantity": "0.02", "positionSide": "LONG"}, -4061),
        ({"type": "NONSENSE", "quantity": "0.02"}, -1116),
        ({"type": "MARKET", "quantity": "0.02", "colour": "red"}, -1104),
    ],
)
def test_refusals_carry_the_documented_codes(client: ccxt.binanceusdm, fields: dict[str, str], code: int) -> None:
    with pytest.raises(ccxt.BaseError, match=str(code)):
        client.fapiprivate_post_order({"symbol": "BTCUSDT", "side": "BUY", **fields})
    assert held(client) == 0


def test_a_stop_on_the_wrong_side_would_trigger_at_once(client: ccxt.binanceusdm) -> None:
    with pytest.raises(ccxt.OrderImmediatelyFillable):
        client.create_order(BTC, "market", "sell", 0.02, None, {"stopLossPrice": round(last(client) * 1.02, 2)})


# ----------------------------------------------------------------------------------------------- funding, liquidation
def test_funding_is_settled_every_eight_hours(client: ccxt.binanceusdm, server: PaperServerProcess) -> None:
    client.create_order(BTC, "market", "sell", 0.1)
    before = server.admin.clock().market_ms
    server.admin.step(96)
    rows = client.fetch_funding_history(BTC, since=before)
    assert len(rows) == 3
    rates = {r["timestamp"]: r for r in client.fetch_funding_rate_history(BTC, since=before)}
    for row in rows:
        rate = rates[row["timestamp"]]
        expected = 0.1 * float(rate["info"]["markPrice"]) * rate["fundingRate"]
        assert row["amount"] == pytest.approx(expected, abs=1e-6), "a short receives a positive rate"
    client.create_order(BTC, "market", "buy", 0.1, params={"reduceOnly": True})


def test_a_position_is_liquidated_and_loses_its_margin_only(
    client: ccxt.binanceusdm, server: PaperServerProcess
) -> None:
    client.set_leverage(20, BTC)
    client.create_order(BTC, "market", "buy", 0.5)
    (position,) = client.fetch_positions([BTC])
    margin = Decimal(position["info"]["isolatedWallet"])
    before = Decimal(client.fapiprivatev3_get_balance()[0]["balance"])
    server.admin.shock(-0.1, "BTC/USDT")
    server.admin.step_ms(60_000)
    assert held(client) == 0
    lost = before - Decimal(client.fapiprivatev3_get_balance()[0]["balance"])
    assert 0 < lost <= margin
    assert any(row["incomeType"] == "INSURANCE_CLEAR" for row in client.fapiprivate_get_income({"limit": 100}))
    (closing,) = [
        o
        for o in client.fapiprivate_get_allorders({"symbol": "BTCUSDT"})
        if o["clientOrderId"].startswith("autoclose-")
    ]
    assert closing["status"] == "FILLED"
    server.admin.shock(0.11, "BTC/USDT")
