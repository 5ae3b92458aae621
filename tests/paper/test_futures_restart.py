"""The futures side keeps its word over kill -9: wallets, positions, orders, incomes; and settles on exactly once."""

from __future__ import annotations

import threading
import time
from typing import Any

import ccxt

from tests.support.futures import futures_account, futures_client
from tests.support.paper_server import PaperServerProcess

BTC = "BTC/USDT:USDT"
NOW_MS = 1_709_640_005_000
KILLS = 3


def told(client: ccxt.binanceusdm) -> dict[str, Any]:
    """All that the account is told of its state."""
    return {
        "account": client.fapiprivatev3_get_account(),
        "positions": client.fapiprivatev2_get_positionrisk(),
        "orders": client.fapiprivate_get_allorders({"symbol": "BTCUSDT"}),
        "algo": client.fapiprivate_get_allalgoorders({"symbol": "BTCUSDT"}),
        "trades": client.fapiprivate_get_usertrades({"symbol": "BTCUSDT", "limit": 1000}),
        "incomes": client.fapiprivate_get_income({"limit": 1000}),
    }


def test_state_survives_kill(paper_exchange: PaperServerProcess) -> None:
    paper_exchange.admin.set_clock(NOW_MS)
    client = futures_client(paper_exchange, futures_account(paper_exchange))
    client.load_markets()
    price = float(client.fetch_ticker(BTC)["last"])
    client.set_leverage(7, BTC)
    client.create_order(BTC, "market", "sell", 0.05)
    client.create_order(BTC, "limit", "buy", 0.01, round(price * 0.9, 2))
    stop = {"stopLossPrice": round(price * 1.1, 2), "reduceOnly": True}
    client.create_order(BTC, "market", "buy", 0.05, None, stop)
    paper_exchange.admin.step(40)  # over a funding moment
    before = told(client)
    assert any(row["incomeType"] == "FUNDING_FEE" for row in before["incomes"])
    paper_exchange.kill()
    paper_exchange.start()
    assert told(client) == before, "nothing was lost, and no funding settled twice"
    client.create_order(BTC, "market", "buy", 0.05, params={"reduceOnly": True})
    after = told(client)
    assert [row["id"] for row in after["trades"]] == sorted({row["id"] for row in after["trades"]}, key=int)
    assert len({row["tranId"] for row in after["incomes"]}) == len(after["incomes"])


def test_no_acknowledged_order_is_lost_or_doubled_by_kills_under_load(paper_exchange: PaperServerProcess) -> None:
    account = futures_account(paper_exchange, "1000000")
    acknowledged: list[str] = []
    for life in range(KILLS):
        stopped = threading.Event()

        def trade(life: int = life, stopped: threading.Event = stopped) -> None:
            client = futures_client(paper_exchange, account)
            number = 0
            while not stopped.is_set():
                client_id = f"life{life}-{number}"
                side = "BUY" if number % 2 else "SELL"
                fields = {"symbol": "BTCUSDT", "side": side, "type": "MARKET", "quantity": "0.01"}
                try:
                    client.fapiprivate_post_order({**fields, "newClientOrderId": client_id})
                except ccxt.BaseError:
                    return
                acknowledged.append(client_id)
                number += 1

        worker = threading.Thread(target=trade)
        worker.start()
        time.sleep(0.7)
        paper_exchange.kill()
        stopped.set()
        worker.join(20)
        paper_exchange.start()
    client = futures_client(paper_exchange, account)
    orders = client.fapiprivate_get_allorders({"symbol": "BTCUSDT", "limit": 1000})
    ids = [order["clientOrderId"] for order in orders]
    assert len(acknowledged) > 20
    assert len(ids) == len(set(ids))
    assert set(acknowledged) <= set(ids)
    assert all(order["status"] == "FILLED" for order in orders)
    (position,) = client.fapiprivatev2_get_positionrisk({"symbol": "BTCUSDT"})
    net = sum(float(o["executedQty"]) * (1 if o["side"] == "BUY" else -1) for o in orders)
    assert abs(float(position["positionAmt"]) - net) < 1e-9
