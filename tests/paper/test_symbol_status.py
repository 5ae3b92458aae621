"""A symbol that is halted, in a break, in its cancel-only minutes, or taken off the exchange with a position in it."""

from __future__ import annotations

from decimal import Decimal

import ccxt
import pytest

from tests.support.futures import futures_account, futures_client
from tests.support.paper_requests import Trader
from tests.support.paper_server import PaperServerProcess
from tradewind.errors import BadInput

BTC = "BTC/USDT:USDT"
NOW_MS = 1_760_000_040_000
CLOSED = {"code": -1013, "msg": "Market is closed."}
CANCEL_ONLY = {"code": -2010, "msg": "This order type is not possible in this trading phase."}


@pytest.fixture
def trader(troubled: PaperServerProcess) -> Trader:
    return Trader(troubled.url, troubled.create_account(USDT="100000", BTC="5"))


def listed_status(trader: Trader) -> str:
    (symbol,) = trader.public("/api/v3/exchangeInfo", symbol="BTCUSDT").json()["symbols"]
    return str(symbol["status"])


@pytest.mark.parametrize(("status", "refusal"), [("HALT", CLOSED), ("BREAK", CLOSED), ("CANCEL_ONLY", CANCEL_ONLY)])
def test_what_rests_stays_and_can_be_cancelled(
    troubled: PaperServerProcess, trader: Trader, status: str, refusal: dict[str, object]
) -> None:
    trader.bracket(stop="0.99")
    resting = trader.limit("BUY", "0.9")
    troubled.admin.set_status("BTC/USDT", status)
    assert listed_status(trader) == status
    chosen = trader.public("/api/v3/exchangeInfo", symbolStatus=status).json()["symbols"]
    assert [symbol["symbol"] for symbol in chosen] == ["BTCUSDT"]
    for answer in (trader.order("SELL", "MARKET"), trader.limit("BUY", "0.9"), trader.bracket()):
        assert answer == refusal
    troubled.admin.shock(-0.02, "BTC/USDT")  # through the stop: nothing trades
    assert len(trader.signed("GET", "/api/v3/openOrders").json()) == 3
    assert trader.cancel(resting["orderId"])["status"] == "CANCELED"
    troubled.admin.set_status("BTC/USDT", "TRADING")
    assert listed_status(trader) == "TRADING"
    assert trader.signed("GET", "/api/v3/openOrders").json() == []  # the stop was met at the reopening
    troubled.admin.shock(1 / 0.98 - 1, "BTC/USDT")


def test_ccxt_knows_a_closed_market(troubled: PaperServerProcess, trader: Trader) -> None:
    client = troubled.client(trader.account)
    assert client.load_markets()["BTC/USDT"]["active"]
    troubled.admin.set_status("BTC/USDT", "CANCEL_ONLY")
    assert client.load_markets(True)["BTC/USDT"]["active"] is False
    with pytest.raises(ccxt.ExchangeError, match="trading phase"):
        client.create_order("BTC/USDT", "market", "sell", 0.01)
    troubled.admin.set_status("BTC/USDT", "BREAK")
    with pytest.raises(ccxt.ExchangeError, match="Market is closed"):
        client.create_order("BTC/USDT", "market", "sell", 0.01)


@pytest.mark.parametrize(
    ("status", "told", "code"),
    [("HALT", "PENDING_TRADING", -4140), ("BREAK", "SETTLING", -4140), ("CANCEL_ONLY", "PRE_SETTLE", -4141)],
)
def test_the_futures_side_says_it_in_its_own_words(
    troubled: PaperServerProcess, status: str, told: str, code: int
) -> None:
    client = futures_client(troubled, futures_account(troubled))
    client.load_markets()
    client.create_order(BTC, "market", "buy", 0.01)
    stop = {"symbol": "BTCUSDT", "side": "SELL", "type": "STOP_MARKET", "algoType": "CONDITIONAL", "quantity": "0.01"}
    client.fapiprivate_post_algoorder({**stop, "triggerPrice": "30000", "reduceOnly": "true", "clientAlgoId": "s"})
    troubled.admin.set_status("BTC/USDT", status)
    (symbol,) = (s for s in client.fapipublic_get_exchangeinfo()["symbols"] if s["symbol"] == "BTCUSDT")
    assert symbol["status"] == told
    with pytest.raises(ccxt.BaseError, match=str(code)):
        client.create_order(BTC, "market", "sell", 0.01, params={"reduceOnly": True})
    assert len(client.fapiprivate_get_openalgoorders()) == 1
    assert client.fapiprivate_delete_algoorder({"clientAlgoId": "s"})["code"] == "200"


def test_unknown_status(troubled: PaperServerProcess) -> None:
    with pytest.raises(BadInput, match="must be one of TRADING"):
        troubled.admin.set_status("BTC/USDT", "ASLEEP")
    with pytest.raises(BadInput, match="no symbol 'XYZUSDT'"):
        troubled.admin.set_status("XYZ/USDT", "HALT")


# ----------------------------------------------------------------------------------------------------------- delisting
def test_a_delisted_symbol_may_stay_as_a_break_with_zeros(paper_exchange: PaperServerProcess) -> None:
    trader = Trader(paper_exchange.url, paper_exchange.create_account(USDT="1000", BTC="1"))
    placed = trader.bracket()
    paper_exchange.admin.delist("BTC/USDT", vanishes=False)
    for _ in range(2):
        assert listed_status(trader) == "BREAK"
        row = trader.public("/api/v3/ticker/bookTicker", symbol="BTCUSDT").json()
        assert {row[name] for name in ("bidPrice", "bidQty", "askPrice", "askQty")} == {"0.00000000"}
        orders = [trader.found(order["orderId"]) for order in placed["orderReports"]]
        assert [(o["status"], o["expiryReason"]) for o in orders] == [("EXPIRED", "EXCHANGE_CANCELED")] * 2
        assert trader.order("SELL", "MARKET") == CLOSED
        assert trader.held("BTC") == (Decimal(1), Decimal(0))
        paper_exchange.kill()
        paper_exchange.start()


@pytest.mark.parametrize("vanishes", [False, True])
def test_a_delisted_contract_is_settled(paper_exchange: PaperServerProcess, vanishes: bool) -> None:
    paper_exchange.admin.set_clock(NOW_MS)
    client = futures_client(paper_exchange, futures_account(paper_exchange))
    client.load_markets()
    bought = client.create_order(BTC, "market", "buy", 0.1)
    paper_exchange.admin.shock(0.01, "BTC/USDT")
    mark = Decimal(client.fapipublic_get_premiumindex({"symbol": "BTCUSDT"})["markPrice"])
    before = Decimal(client.fapiprivatev3_get_balance()[0]["balance"])
    paper_exchange.admin.delist("BTC/USDT", vanishes=vanishes)
    entry = Decimal(str(bought["average"]))
    after = Decimal(client.fapiprivatev3_get_balance()[0]["balance"])
    assert float(after - before) == pytest.approx(float((mark - entry) / 10), abs=1e-6)
    assert client.fapiprivatev3_get_positionrisk() == []
    if vanishes:
        assert [s["symbol"] for s in client.fapipublic_get_exchangeinfo()["symbols"]] == ["ETHUSDT"]
        for ask in (
            client.fapiprivate_get_usertrades,
            client.fapipublic_get_depth,
            client.fapiprivatev3_get_positionrisk,
        ):
            with pytest.raises(ccxt.BaseError, match="-1121"):
                ask({"symbol": "BTCUSDT"})
        return
    (_, settled) = client.fapiprivate_get_usertrades({"symbol": "BTCUSDT"})
    assert (Decimal(settled["price"]), Decimal(settled["commission"])) == (mark, 0)
    order = client.fapiprivate_get_order({"symbol": "BTCUSDT", "orderId": settled["orderId"]})
    assert order["clientOrderId"].startswith("settlement_autoclose-")
    (symbol,) = (s for s in client.fapipublic_get_exchangeinfo()["symbols"] if s["symbol"] == "BTCUSDT")
    assert symbol["status"] == "SETTLING"
