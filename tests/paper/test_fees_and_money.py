"""Fee tiers, fees in BNB, deposits and withdrawals, and a person who trades on the same account."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import ccxt
import pytest

from tests.paper.conftest import NOW_MS
from tests.support.futures import futures_account, futures_client
from tests.support.paper_requests import Trader
from tests.support.paper_server import PaperServerProcess
from tradewind.errors import BadInput

SYMBOLS = "BTC/USDT,BNB/USDT"


@pytest.fixture(scope="module")
def server() -> Any:
    with PaperServerProcess(symbols=SYMBOLS) as running:
        running.admin.set_clock(NOW_MS)
        yield running


def trader(server: PaperServerProcess, symbol: str = "BTCUSDT", **balances: str) -> Trader:
    return Trader(server.url, server.create_account(**(balances or {"USDT": "100000"})), symbol)


def price_of(client: Trader, symbol: str) -> Decimal:
    return Decimal(client.public("/api/v3/ticker/price", symbol=symbol).json()["price"])


def sums(server: PaperServerProcess) -> dict[str, Decimal]:
    """What every account holds of each asset, and the fees that were collected."""
    state = server.admin.state()
    found = {asset: Decimal(atoms) / 10**8 for asset, atoms in state["fees_collected"].items()}
    for account in state["accounts"].values():
        for asset, row in account["balances"].items():
            found[asset] = found.get(asset, Decimal(0)) + Decimal(row["free"]) + Decimal(row["locked"])
    return found


# ---------------------------------------------------------------------------------------------------------------- fees
def test_tiers_by_account_and_symbol(server: PaperServerProcess) -> None:
    client = trader(server)
    server.admin.set_fees(client.account, 400, 600)
    server.admin.set_fees(client.account, 0, 100, symbol="BNBUSDT")

    def rates(symbol: str) -> tuple[str, str]:
        body = client.signed("GET", "/api/v3/account/commission", symbol=symbol).json()["standardCommission"]
        return body["maker"], body["taker"]

    assert rates("BTCUSDT") == ("0.00040000", "0.00060000")
    assert rates("BNBUSDT") == ("0.00000000", "0.00010000")
    account = client.signed("GET", "/api/v3/account").json()
    assert account["commissionRates"]["taker"] == "0.00060000"
    fees = {row["symbol"]: row["takerCommission"] for row in client.signed("GET", "/sapi/v1/asset/tradeFee").json()}
    assert fees == {"BTCUSDT": "0.0006", "BNBUSDT": "0.0001"}
    (fill,) = client.order("BUY", "MARKET", "0.01")["fills"]
    assert (fill["commission"], fill["commissionAsset"]) == ("0.00000600", "BTC")
    assert server.client(client.account).fetch_trading_fee("BTC/USDT")["taker"] == 0.0006
    with pytest.raises(BadInput, match="100000 ppm"):
        server.admin.set_fees(client.account, -1, 0)


def test_tiers_on_futures(server: PaperServerProcess) -> None:
    account = futures_account(server)
    server.admin.set_fees(account, 150, 450, market="futures")
    server.admin.set_fees(account, 0, 0, market="futures", symbol="BNBUSDT")
    client = futures_client(server, account)
    rate = client.fapiprivate_get_commissionrate({"symbol": "BTCUSDT"})
    assert (rate["makerCommissionRate"], rate["takerCommissionRate"]) == ("0.000150", "0.000450")
    assert client.fapiprivate_get_commissionrate({"symbol": "BNBUSDT"})["takerCommissionRate"] == "0.000000"
    client.fapiprivate_post_order({"symbol": "BTCUSDT", "side": "BUY", "type": "MARKET", "quantity": "0.01"})
    (trade,) = client.fapiprivate_get_usertrades({"symbol": "BTCUSDT"})
    assert Decimal(trade["commission"]) == Decimal(trade["quoteQty"]) * Decimal("0.00045")


def test_fees_in_bnb_at_a_discount(server: PaperServerProcess) -> None:
    client = trader(server, USDT="100000", BNB="1")
    assert client.signed("GET", "/sapi/v1/bnbBurn").json() == {"spotBNBBurn": False, "interestBNBBurn": False}
    server.admin.pay_fees_in_bnb(client.account)
    assert client.signed("GET", "/sapi/v1/bnbBurn").json()["spotBNBBurn"] is True
    discount = client.signed("GET", "/api/v3/account/commission", symbol="BTCUSDT").json()["discount"]
    assert (discount["enabledForAccount"], discount["discount"]) == (True, "0.75000000")
    before, bnb = sums(server), price_of(client, "BNBUSDT")
    bought = client.order("BUY", "MARKET", "0.1")
    (fill,) = bought["fills"]
    worth = Decimal(bought["cummulativeQuoteQty"]) * Decimal("0.001") * Decimal("0.75")
    assert fill["commissionAsset"] == "BNB"
    assert float(fill["commission"]) == pytest.approx(float(worth / bnb), abs=1e-8)
    assert client.held("BTC")[0] == Decimal("0.1")  # nothing comes off what was bought
    assert client.held("BNB")[0] == 1 - Decimal(fill["commission"])
    (sold,) = client.order("SELL", "MARKET", "0.1")["fills"]
    assert sold["commissionAsset"] == "BNB"
    after = sums(server)
    assert after["BNB"] == before["BNB"]  # what was paid is what was collected
    trades = server.client(client.account).fetch_my_trades("BTC/USDT")
    assert {trade["fee"]["currency"] for trade in trades} == {"BNB"}


def test_too_little_bnb_takes_the_whole_fee_from_what_is_received(server: PaperServerProcess) -> None:
    client = trader(server, USDT="100000", BNB="0.000001")
    server.admin.pay_fees_in_bnb(client.account)
    (fill,) = client.order("BUY", "MARKET", "0.1")["fills"]
    assert (fill["commission"], fill["commissionAsset"]) == ("0.00010000", "BTC")
    assert client.held("BNB")[0] == Decimal("0.000001")


def test_locked_bnb_pays_nothing(server: PaperServerProcess) -> None:
    client = trader(server, "BNBUSDT", USDT="100000", BNB="1")
    server.admin.pay_fees_in_bnb(client.account)
    client.bracket("1")
    client.symbol = "BTCUSDT"
    assert client.order("BUY", "MARKET", "0.1")["fills"][0]["commissionAsset"] == "BTC"
    assert client.held("BNB") == (Decimal(0), Decimal(1))


def test_fees_of_bnb_itself_in_bnb(server: PaperServerProcess) -> None:
    client = trader(server, "BNBUSDT", USDT="100000", BNB="1")
    server.admin.pay_fees_in_bnb(client.account)
    (bought,) = client.order("BUY", "MARKET", "2")["fills"]
    assert (bought["commission"], bought["commissionAsset"]) == ("0.00150000", "BNB")
    assert client.held("BNB")[0] == Decimal("2.9985")
    sold = client.order("SELL", "MARKET", "1")
    (fill,) = sold["fills"]
    assert fill["commissionAsset"] == "BNB"
    assert client.held("BNB")[0] == Decimal("1.9985") - Decimal(fill["commission"])
    assert client.held("USDT")[0] == 100000 - Decimal(bought["price"]) * 2 + Decimal(sold["cummulativeQuoteQty"])


@pytest.mark.parametrize(("symbol", "quantity"), [("BTCUSDT", "0.10000000"), ("BNBUSDT", "9.99200000")])
def test_a_list_sells_what_is_left_after_fees_in_bnb(server: PaperServerProcess, symbol: str, quantity: str) -> None:
    """Bought BNB pays its own fee even where other BNB is free; a fee in BNB leaves other coins whole."""
    client = trader(server, symbol, USDT="100000", BNB="1")
    server.admin.pay_fees_in_bnb(client.account)
    placed = client.signed(
        "POST", "/api/v3/orderList/opoco", symbol=symbol, workingType="LIMIT", workingSide="BUY",
        workingPrice=client.at("1.01"), workingQuantity="0.1" if symbol == "BTCUSDT" else "10",
        workingTimeInForce="FOK", pendingSide="SELL", pendingAboveType="LIMIT_MAKER",
        pendingAbovePrice=client.at("1.05"), pendingBelowType="STOP_LOSS", pendingBelowStopPrice=client.at("0.95"),
    ).json()  # fmt: skip
    legs = [client.found(report["orderId"]) for report in placed["orderReports"]]
    assert [leg["origQty"] for leg in legs[1:]] == [quantity] * 2


def test_the_account_may_switch_it_itself(server: PaperServerProcess) -> None:
    client = trader(server, USDT="1000", BNB="1")
    assert client.signed("POST", "/sapi/v1/bnbBurn", spotBNBBurn="true").json()["spotBNBBurn"] is True
    assert client.order("BUY", "MARKET", "0.01")["fills"][0]["commissionAsset"] == "BNB"
    client.signed("POST", "/sapi/v1/bnbBurn", spotBNBBurn="false")
    assert client.order("BUY", "MARKET", "0.001")["fills"][0]["commissionAsset"] == "BTC"


# ----------------------------------------------------------------------------------------------------------- transfers
def test_only_what_is_free_can_be_withdrawn(server: PaperServerProcess) -> None:
    client = trader(server, USDT="1000", BTC="1")
    client.bracket("0.6")
    with pytest.raises(BadInput, match="insufficient balance"):
        server.admin.transfer(client.account, "BTC", "-0.5")
    server.admin.transfer(client.account, "BTC", "-0.4")
    server.admin.transfer(client.account, "USDT", "250.5")
    server.admin.transfer(client.account, "ETH", "3")
    assert client.held("BTC") == (Decimal(0), Decimal("0.6"))
    assert (client.held("USDT")[0], client.held("ETH")[0]) == (Decimal("1250.5"), Decimal(3))
    exchange = server.client(client.account)
    assert {(d["currency"], d["amount"]) for d in exchange.fetch_deposits()} == {("USDT", 250.5), ("ETH", 3.0)}
    (withdrawal,) = exchange.fetch_withdrawals()
    assert (withdrawal["currency"], withdrawal["amount"], withdrawal["status"]) == ("BTC", 0.4, "ok")


def test_a_futures_wallet_keeps_its_margin(server: PaperServerProcess) -> None:
    account = futures_account(server, "1000")
    client = futures_client(server, account)
    client.fapiprivate_post_order({"symbol": "BTCUSDT", "side": "BUY", "type": "MARKET", "quantity": "0.1"})
    with pytest.raises(BadInput, match="margin is insufficient"):
        server.admin.transfer(account, "USDT", "-1000", market="futures")
    server.admin.transfer(account, "USDT", "-100", market="futures")
    server.admin.transfer(account, "USDT", "40", market="futures")
    rows = client.fapiprivate_get_income({"incomeType": "TRANSFER"})
    assert [(row["income"], row["symbol"]) for row in rows[1:]] == [("-100.00000000", ""), ("40.00000000", "")]


# ------------------------------------------------------------------------------------------------------------ a person
def test_a_person_trades_on_the_same_account(server: PaperServerProcess) -> None:
    client = trader(server, USDT="100000", BTC="2")
    bought = server.admin.trade_by_hand(client.account, "BTC/USDT", "BUY", "0.5")
    assert (bought["status"], bought["clientOrderId"][:4]) == ("FILLED", "web_")
    price = client.at("1.1")
    placed = server.admin.trade_by_hand(client.account, "BTC/USDT", "SELL", "1", type="LIMIT", price=price)
    assert client.found(placed["orderId"])["price"].startswith(price)
    assert client.held("BTC")[1] == 1
    assert len(client.signed("GET", "/api/v3/myTrades", symbol="BTCUSDT").json()) == 1
    with pytest.raises(BadInput, match="insufficient balance"):
        server.admin.trade_by_hand(client.account, "BTC/USDT", "SELL", "10")


def test_a_person_trades_futures_by_hand(server: PaperServerProcess) -> None:
    account = futures_account(server)
    server.admin.trade_by_hand(account, "BTC/USDT", "SELL", "0.02", market="futures")
    (position,) = futures_client(server, account).fapiprivatev3_get_positionrisk()
    assert Decimal(position["positionAmt"]) == Decimal("-0.02")


def test_ccxt_sees_a_refused_withdrawal_as_untouched_money(server: PaperServerProcess) -> None:
    client = trader(server, USDT="10")
    with pytest.raises(BadInput):
        server.admin.transfer(client.account, "USDT", "-11")
    with pytest.raises(BadInput, match="other than zero"):
        server.admin.transfer(client.account, "USDT", "0")
    exchange: ccxt.binance = server.client(client.account)
    assert exchange.fetch_balance()["USDT"]["free"] == 10
