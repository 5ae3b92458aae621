"""A restart loses nothing that was acknowledged."""

from __future__ import annotations

import pytest

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
