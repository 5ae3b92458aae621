"""Ticks, lots and minima that change overnight: what rests stays, what is new must fit, exchangeInfo says so."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import ccxt
import pytest

from tests.support.futures import futures_account, futures_client
from tests.support.paper_requests import Trader
from tests.support.paper_server import PaperServerProcess
from tradewind.errors import BadInput


def refused(name: str) -> dict[str, Any]:
    return {"code": -1013, "msg": f"Filter failure: {name}"}


@pytest.fixture
def trader(troubled: PaperServerProcess) -> Trader:
    return Trader(troubled.url, troubled.create_account(USDT="1000000", BTC="5"))


def filters(trader: Trader, path: str = "/api/v3/exchangeInfo") -> dict[str, dict[str, Any]]:
    symbols = trader.public(path).json()["symbols"]
    (found,) = (symbol["filters"] for symbol in symbols if symbol["symbol"] == "BTCUSDT")
    return {each["filterType"]: each for each in found}


def test_a_coarser_tick(troubled: PaperServerProcess, trader: Trader) -> None:
    off_grid = str((Decimal(trader.at("0.9")) // 1) + Decimal("0.37"))
    resting = trader.limit("BUY", "0.9", price=off_grid)
    troubled.admin.change_rules("BTC/USDT", tick="0.1")
    assert Decimal(filters(trader)["PRICE_FILTER"]["tickSize"]) == Decimal("0.1")
    assert trader.found(resting["orderId"])["price"].startswith(off_grid)
    assert trader.limit("BUY", "0.9", price=off_grid) == refused("PRICE_FILTER")
    assert trader.order("SELL", "STOP_LOSS", stopPrice=off_grid) == refused("PRICE_FILTER")
    assert trader.limit("BUY", "0.9", price=off_grid[:-1])["status"] == "NEW"
    assert trader.cancel(resting["orderId"])["status"] == "CANCELED"
    troubled.admin.change_rules("BTC/USDT")
    assert trader.limit("BUY", "0.9", price=off_grid)["status"] == "NEW"


def test_a_coarser_step(troubled: PaperServerProcess, trader: Trader) -> None:
    troubled.admin.change_rules("BTC/USDT", step="0.01")
    lot = filters(trader)["LOT_SIZE"]
    assert (lot["stepSize"], lot["minQty"]) == ("0.01000000", "0.01000000")
    assert trader.order("BUY", "MARKET", "0.015") == refused("LOT_SIZE")
    assert trader.order("BUY", "MARKET", "0.02")["status"] == "FILLED"


def test_what_a_list_sells_of_its_proceeds_fits_the_step_of_the_day(
    troubled: PaperServerProcess, trader: Trader
) -> None:
    troubled.admin.change_rules("BTC/USDT", step="0.01")
    placed = trader.signed(
        "POST", "/api/v3/orderList/opoco", symbol="BTCUSDT", workingType="LIMIT", workingSide="BUY",
        workingPrice=trader.at("1.01"), workingQuantity="0.03", workingTimeInForce="FOK", pendingSide="SELL",
        pendingAboveType="LIMIT_MAKER", pendingAbovePrice=trader.at("1.05"), pendingBelowType="STOP_LOSS",
        pendingBelowStopPrice=trader.at("0.95"),
    ).json()  # fmt: skip
    legs = [trader.found(report["orderId"]) for report in placed["orderReports"]]
    assert [(leg["status"], leg["origQty"]) for leg in legs[1:]] == [("NEW", "0.03000000")] * 2


def test_minima_of_the_day(troubled: PaperServerProcess, trader: Trader) -> None:
    troubled.admin.change_rules("BTC/USDT", min_notional="1000", min_quantity="0.001")
    now = filters(trader)
    assert (now["NOTIONAL"]["minNotional"], now["LOT_SIZE"]["minQty"]) == ("1000.00000000", "0.00100000")
    assert trader.order("BUY", "MARKET", "0.01") == refused("NOTIONAL")
    assert trader.order("BUY", "MARKET", "0.0005") == refused("LOT_SIZE")
    assert trader.order("BUY", "MARKET", "0.1")["status"] == "FILLED"


def test_market_lot_size_bounds_what_sells_at_any_price(troubled: PaperServerProcess, trader: Trader) -> None:
    """A stop without a price is a market order when it comes to it, so the same limit holds for it."""
    troubled.admin.change_rules("BTC/USDT", max_market_quantity="0.5")
    assert filters(trader)["MARKET_LOT_SIZE"]["maxQty"] == "0.50000000"
    assert trader.order("SELL", "MARKET", "0.6") == refused("MARKET_LOT_SIZE")
    assert trader.order("SELL", "STOP_LOSS", "0.6", stopPrice=trader.at("0.9")) == refused("MARKET_LOT_SIZE")
    assert trader.bracket("0.6") == refused("MARKET_LOT_SIZE")
    assert trader.limit("SELL", "1.1", "0.6")["status"] == "NEW"
    assert trader.bracket("0.5")["listOrderStatus"] == "EXECUTING"
    # Legs that are sized from what was bought are made to fit: the rest is bare.
    placed = trader.signed(
        "POST", "/api/v3/orderList/opoco", symbol="BTCUSDT", workingType="LIMIT", workingSide="BUY",
        workingPrice=trader.at("1.01"), workingQuantity="0.7", workingTimeInForce="FOK", pendingSide="SELL",
        pendingAboveType="LIMIT_MAKER", pendingAbovePrice=trader.at("1.05"), pendingBelowType="STOP_LOSS",
        pendingBelowStopPrice=trader.at("0.95"),
    ).json()  # fmt: skip
    legs = [trader.found(report["orderId"]) for report in placed["orderReports"]]
    assert [leg["origQty"] for leg in legs] == ["0.70000000", "0.50000000", "0.50000000"]


def test_the_futures_side_has_the_same_rules(troubled: PaperServerProcess, trader: Trader) -> None:
    client = futures_client(troubled, futures_account(troubled))
    troubled.admin.change_rules("BTC/USDT", tick="0.1", step="0.001", max_market_quantity="0.05", min_notional="100")
    now = filters(trader, "/fapi/v1/exchangeInfo")
    assert (now["PRICE_FILTER"]["tickSize"], now["LOT_SIZE"]["stepSize"]) == ("0.10000000", "0.00100000")
    assert (now["MARKET_LOT_SIZE"]["maxQty"], now["MIN_NOTIONAL"]["notional"]) == ("0.05000000", "100")
    order = {"symbol": "BTCUSDT", "side": "BUY", "type": "MARKET"}
    stop = {**order, "type": "STOP_MARKET", "algoType": "CONDITIONAL", "triggerPrice": "90000"}
    for send, sent, code in (
        (client.fapiprivate_post_order, {**order, "quantity": "0.0015"}, -4023),
        (client.fapiprivate_post_order, {**order, "quantity": "0.06"}, -4005),
        (client.fapiprivate_post_order, {**order, "quantity": "0.001"}, -4164),
        (client.fapiprivate_post_algoorder, {**stop, "quantity": "0.06"}, -4005),
        (client.fapiprivate_post_algoorder, {**stop, "quantity": "0.01", "triggerPrice": "90000.05"}, -4014),
    ):
        with pytest.raises(ccxt.BaseError, match=str(code)):
            send(sent)
    assert (
        client.fapiprivate_post_order({**order, "quantity": "0.05", "newOrderRespType": "RESULT"})["status"] == "FILLED"
    )


def test_ccxt_learns_them_when_it_asks_again(troubled: PaperServerProcess, trader: Trader) -> None:
    client = troubled.client(trader.account)
    client.load_markets()
    troubled.admin.change_rules("BTC/USDT", tick="1", step="0.001", min_notional="50")
    market = client.load_markets(True)["BTC/USDT"]
    assert (market["precision"]["price"], market["precision"]["amount"]) == (1, 0.001)
    assert market["limits"]["cost"]["min"] == 50


def test_a_finer_grid_is_refused_in_words(troubled: PaperServerProcess) -> None:
    for rules in ({"tick": "0.001"}, {"tick": "0.015"}, {"step": "0.000001"}):
        with pytest.raises(BadInput, match="a multiple of its tick"):
            troubled.admin.change_rules("BTC/USDT", **rules)
    with pytest.raises(BadInput, match="no rule 'price'"):
        troubled.admin.change_rules("BTC/USDT", price="1")
