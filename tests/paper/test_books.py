"""Books that are no prices: what the exchange answers, what an order finds there, and how long it lasts."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from tests.support.futures import futures_account, futures_client
from tests.support.paper_requests import Trader
from tests.support.paper_server import PaperServerProcess
from tradewind.errors import BadInput

ZERO = "0.00000000"


@pytest.fixture
def trader(troubled: PaperServerProcess) -> Trader:
    return Trader(troubled.url, troubled.create_account(USDT="100000", BTC="5"))


def top(trader: Trader, path: str = "/api/v3/ticker/bookTicker") -> dict[str, Any]:
    return dict(trader.public(path, symbol="BTCUSDT").json())


@pytest.mark.parametrize("path", ["/api/v3/ticker/bookTicker", "/fapi/v1/ticker/bookTicker"])
@pytest.mark.parametrize(
    ("shape", "empty"),
    [("empty", {"bid", "ask"}), ("zero", {"bid", "ask"}), ("no_bids", {"bid"}), ("no_asks", {"ask"})],
)
def test_an_empty_side_is_answered_with_zeros(
    troubled: PaperServerProcess, trader: Trader, path: str, shape: str, empty: set[str]
) -> None:
    whole = top(trader, path)
    troubled.admin.bend_book("BTC/USDT", shape)
    bent = top(trader, path)
    for side in ("bid", "ask"):
        for what in ("Price", "Qty"):
            name = side + what
            assert bent[name] == (ZERO if side in empty else whole[name])
    depth = trader.public(path.replace("ticker/bookTicker", "depth"), symbol="BTCUSDT").json()
    assert {side for side in ("bid", "ask") if not depth[f"{side}s"]} == empty
    price = trader.public("/api/v3/ticker/price", symbol="BTCUSDT").json()["price"]
    assert (Decimal(price) == 0) == (shape == "zero")
    assert trader.public("/api/v3/ticker/24hr", symbol="BTCUSDT").json()["bidPrice"] == bent["bidPrice"]
    assert trader.public("/api/v3/ticker/bookTicker", symbol="ETHUSDT").json()["bidPrice"] != ZERO
    troubled.admin.bend_book("BTC/USDT", None)
    assert {k: v for k, v in top(trader, path).items() if k != "time"} == {
        k: v for k, v in whole.items() if k != "time"
    }


def test_a_crossed_book(troubled: PaperServerProcess, trader: Trader) -> None:
    whole = top(trader)
    troubled.admin.bend_book("BTC/USDT", "crossed")
    crossed = top(trader)
    assert (crossed["bidPrice"], crossed["askPrice"]) == (whole["askPrice"], whole["bidPrice"])
    # It is the answer that is wrong: whoever trades meets what is there.
    assert Decimal(trader.order("BUY", "MARKET")["fills"][0]["price"]) >= Decimal(whole["askPrice"])


def test_ccxt_reads_an_empty_book(troubled: PaperServerProcess, trader: Trader) -> None:
    client = troubled.client(trader.account)
    troubled.admin.bend_book("BTC/USDT", "empty")
    found = client.fetch_bids_asks(["BTC/USDT", "ETH/USDT"])
    assert found["BTC/USDT"]["bid"] in (None, 0)
    assert found["ETH/USDT"]["bid"] > 0
    assert client.fetch_order_book("BTC/USDT")["bids"] == []


def test_a_market_order_finds_nobody_and_expires(troubled: PaperServerProcess, trader: Trader) -> None:
    troubled.admin.bend_book("BTC/USDT", "no_bids")
    sold = trader.order("SELL", "MARKET", newOrderRespType="RESULT")
    assert (sold["status"], sold["executedQty"], sold["expiryReason"]) == ("EXPIRED", ZERO, "INSUFFICIENT_LIQUIDITY")
    assert trader.found(sold["orderId"])["expiryReason"] == "INSUFFICIENT_LIQUIDITY"
    assert trader.order("BUY", "MARKET")["status"] == "FILLED"
    assert trader.held("BTC")[1] == 0
    refused = trader.signed(
        "POST", "/api/v3/order", symbol="BTCUSDT", side="SELL", type="MARKET", quoteOrderQty="100"
    ).json()
    assert refused == {"code": -2010, "msg": "Order book liquidity is less than symbol minimum quantity."}


def test_a_stop_that_triggers_into_no_bids_expires(troubled: PaperServerProcess, trader: Trader) -> None:
    trader.bracket(stop="0.99")
    (stop,) = (o for o in trader.signed("GET", "/api/v3/openOrders").json() if o["type"] == "STOP_LOSS")
    troubled.admin.bend_book("BTC/USDT", "no_bids")
    troubled.admin.shock(-0.02, "BTC/USDT")
    found = trader.found(stop["orderId"])
    assert (found["status"], found["executedQty"]) == ("EXPIRED", ZERO)
    assert trader.signed("GET", "/api/v3/openOrders").json() == []
    troubled.admin.shock(1 / 0.98 - 1, "BTC/USDT")


def test_nothing_trades_in_an_empty_book(troubled: PaperServerProcess, trader: Trader) -> None:
    trader.bracket(stop="0.99")
    troubled.admin.bend_book("BTC/USDT", "empty")
    troubled.admin.shock(-0.02, "BTC/USDT")
    assert {o["status"] for o in trader.signed("GET", "/api/v3/openOrders").json()} == {"NEW"}
    troubled.admin.bend_book("BTC/USDT", None)  # whoever comes back finds the price through the stop
    assert [o["status"] for o in trader.signed("GET", "/api/v3/allOrders", symbol="BTCUSDT").json()] == [
        "EXPIRED",
        "FILLED",
    ]
    troubled.admin.shock(1 / 0.98 - 1, "BTC/USDT")


def test_a_futures_exit_finds_nobody(troubled: PaperServerProcess) -> None:
    client = futures_client(troubled, futures_account(troubled))
    client.load_markets()
    client.create_order("BTC/USDT:USDT", "market", "buy", 0.01)
    troubled.admin.bend_book("BTC/USDT", "no_bids")
    sent = {"symbol": "BTCUSDT", "side": "SELL", "type": "MARKET", "quantity": "0.01", "reduceOnly": "true"}
    order = client.fapiprivate_post_order({**sent, "newOrderRespType": "RESULT"})
    assert (order["status"], order["executedQty"]) == ("EXPIRED", ZERO)
    assert float(client.fetch_positions(["BTC/USDT:USDT"])[0]["contracts"]) == 0.01


def test_a_jump_in_one_answer_alone(troubled: PaperServerProcess, trader: Trader) -> None:
    whole = top(trader)
    troubled.admin.add_fault("book", path="*/bookTicker", shape="jumped", price_frac=-0.9, of_symbol="BTCUSDT", nth=2)
    assert top(trader) == whole
    both = {row["symbol"]: row for row in trader.public("/api/v3/ticker/bookTicker").json()}
    assert float(both["BTCUSDT"]["bidPrice"]) == pytest.approx(float(whole["bidPrice"]) / 10, abs=0.01)
    assert float(both["ETHUSDT"]["bidPrice"]) > 100
    assert top(trader) == whole


def test_zeros_by_seeded_chance(troubled: PaperServerProcess, trader: Trader) -> None:
    runs = []
    for _ in range(2):
        rule = troubled.admin.add_fault("book", path="/api/v3/ticker/*", shape="zero", probability=0.5, seed=3)
        runs.append([top(trader)["bidPrice"] == ZERO for _ in range(20)])
        troubled.admin.clear_faults(rule["id"])
    assert runs[0] == runs[1]
    assert set(runs[0]) == {True, False}


def test_no_other_shapes(troubled: PaperServerProcess) -> None:
    with pytest.raises(BadInput, match="it must be one of empty"):
        troubled.admin.bend_book("BTC/USDT", "jumped")
    with pytest.raises(BadInput, match="it must be one of empty"):
        troubled.admin.add_fault("book", shape="round")
