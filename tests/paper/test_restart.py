"""A restart loses nothing that was acknowledged."""

from __future__ import annotations

import itertools
import threading
import time
from decimal import Decimal

import httpx
import pytest

from tests.support.paper_events import SOAK
from tests.support.paper_requests import RawClient
from tests.support.paper_server import PaperServerProcess


def test_state_survives_kill(paper_exchange: PaperServerProcess) -> None:
    account = paper_exchange.create_account(USDT="10000", BTC="0.5")
    client = paper_exchange.client(account)
    client.load_markets()
    price = client.fetch_ticker("BTC/USDT")["last"]
    bought = client.create_order("BTC/USDT", "market", "buy", 0.01)
    resting = client.create_order("BTC/USDT", "limit", "buy", 0.01, price * 0.7)
    oco = client.private_post_orderlist_oco(
        {
            "symbol": "BTCUSDT",
            "side": "SELL",
            "quantity": "0.1",
            "aboveType": "LIMIT_MAKER",
            "abovePrice": client.price_to_precision("BTC/USDT", price * 1.3),
            "belowType": "STOP_LOSS",
            "belowStopPrice": client.price_to_precision("BTC/USDT", price * 0.7),
        }
    )
    before = paper_exchange.admin.state()
    paper_exchange.kill()
    paper_exchange.start()
    after = paper_exchange.admin.state()
    assert after["accounts"] == before["accounts"]
    assert client.fetch_order(bought["id"], "BTC/USDT")["status"] == "closed"
    assert client.fetch_order(resting["id"], "BTC/USDT")["status"] == "open"
    open_lists = client.private_get_openorderlist()
    assert [x["orderListId"] for x in open_lists] == [oco["orderListId"]]
    assert client.fetch_balance()["BTC"]["used"] == pytest.approx(0.1)


def test_clock_survives_restart(paper_exchange: PaperServerProcess) -> None:
    moment = 1_750_000_020_000
    paper_exchange.admin.set_clock(moment)
    paper_exchange.stop()
    paper_exchange.start()
    assert paper_exchange.admin.clock().market_ms == moment
    assert paper_exchange.admin.clock().mode == "stepped"


def test_another_market_is_refused(paper_exchange: PaperServerProcess) -> None:
    paper_exchange.stop()
    other = PaperServerProcess(paper_exchange.database_url, seed=8)
    with pytest.raises(RuntimeError, match="another database or the same market settings"):
        other.start()


@pytest.mark.timeout(1800 if SOAK else 180)
def test_no_acknowledged_order_is_lost_or_doubled_by_kills_under_load(paper_exchange: PaperServerProcess) -> None:
    account = paper_exchange.create_account(USDT="1000000")
    acknowledged: list[str] = []
    unknown: list[str] = []
    for life in range(20 if SOAK else 3):
        stop = threading.Event()

        def send(worker: int, life: int = life, stop: threading.Event = stop) -> None:
            client = RawClient(paper_exchange.url, account)
            for i in itertools.count():
                if stop.is_set():
                    return
                name = f"k{life}-{worker}-{i}"
                try:
                    answer = client.signed(
                        "POST", "/api/v3/order", symbol="BTCUSDT", side="BUY", type="MARKET", quantity="0.001",
                        newClientOrderId=name,
                    )  # fmt: skip
                except httpx.HTTPError:
                    unknown.append(name)
                    return
                assert answer.status_code == 200, answer.text
                acknowledged.append(name)

        workers = [threading.Thread(target=send, args=(w,)) for w in range(4)]
        for worker in workers:
            worker.start()
        time.sleep(1.0)
        paper_exchange.kill()
        stop.set()
        for worker in workers:
            worker.join()
        paper_exchange.start()
    state = paper_exchange.admin.state()["accounts"][account.account_id]
    names = [o["clientOrderId"] for o in state["orders"]]
    assert len(acknowledged) > 30
    assert len(names) == len(set(names))
    assert set(acknowledged) <= set(names) <= set(acknowledged) | set(unknown)
    bought = sum(Decimal(o["executedQty"]) for o in state["orders"])
    commission = sum(Decimal(f["commission_atoms"]).scaleb(-8) for f in state["fills"])
    assert Decimal(state["balances"]["BTC"]["free"]) == bought - commission
    spent = sum(Decimal(o["cummulativeQuoteQty"]) for o in state["orders"])
    assert Decimal(state["balances"]["USDT"]["free"]) == 1_000_000 - spent
