"""Orders that end without their owner: maintenance, self-trade prevention, the price range, a target's first trade."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from tests.support.futures import futures_account, futures_client
from tests.support.paper_requests import Trader
from tests.support.paper_server import PaperServerProcess

ZERO = "0.00000000"


@pytest.fixture
def trader(troubled: PaperServerProcess) -> Trader:
    return Trader(troubled.url, troubled.create_account(USDT="10000000", BTC="500"))


def legs(trader: Trader, placed: dict[str, Any]) -> list[dict[str, Any]]:
    return [trader.found(order["orderId"]) for order in placed["orderReports"]]


# --------------------------------------------------------------------------------------------------------- maintenance
def test_maintenance_ends_what_rests(troubled: PaperServerProcess, trader: Trader) -> None:
    pair, single = trader.bracket(), trader.limit("BUY", "0.9")
    ended = troubled.admin.expire("BTC/USDT", account_id=trader.account.account_id)
    assert len(ended) == 3
    for order in (*legs(trader, pair), trader.found(single["orderId"])):
        assert (order["status"], order["expiryReason"]) == ("EXPIRED", "EXCHANGE_CANCELED")
    assert (trader.held("BTC")[1], trader.held("USDT")[1]) == (0, 0)
    found = trader.signed("GET", "/api/v3/orderList", orderListId=pair["orderListId"]).json()
    assert found["listOrderStatus"] == "ALL_DONE"
    assert trader.cancel(single["orderId"])["code"] == -2011


def test_a_part_of_it_by_seed(troubled: PaperServerProcess, trader: Trader) -> None:
    chosen = []
    for _ in range(2):
        orders = [trader.limit("BUY", "0.9", newClientOrderId=f"n{n}") for n in range(12)]
        which = {"account_id": trader.account.account_id, "share": 0.5, "seed": 4}
        chosen.append(troubled.admin.expire("BTC/USDT", **which))
        left = {o["clientOrderId"] for o in trader.signed("GET", "/api/v3/openOrders").json()}
        assert left == {o["clientOrderId"] for o in orders} - set(chosen[-1])
        troubled.admin.expire("BTC/USDT", account_id=trader.account.account_id)
    assert chosen[0] == chosen[1]
    assert 0 < len(chosen[0]) < 12


def test_maintenance_ends_conditional_futures_orders(troubled: PaperServerProcess) -> None:
    account = futures_account(troubled)
    client = futures_client(troubled, account)
    stop = {"symbol": "BTCUSDT", "side": "SELL", "type": "STOP_MARKET", "algoType": "CONDITIONAL", "quantity": "0.01"}
    client.fapiprivate_post_algoorder({**stop, "triggerPrice": "30000", "clientAlgoId": "s"})
    assert troubled.admin.expire("BTC/USDT", account_id=account.account_id, market="futures") == ["s"]
    assert client.fapiprivate_get_algoorder({"clientAlgoId": "s"})["algoStatus"] == "EXPIRED"
    assert client.fapiprivate_get_openalgoorders() == []


# ------------------------------------------------------------------------------------------------------------- targets
def test_the_first_trade_of_a_target_ends_its_stop_and_leaves_its_rest(
    troubled: PaperServerProcess, trader: Trader
) -> None:
    pair = trader.bracket("0.01")
    assert len(troubled.admin.fill_resting("BTC/USDT", trader.account, 0.3)) == 1
    target, stop = legs(trader, pair)
    assert (target["status"], target["executedQty"]) == ("PARTIALLY_FILLED", "0.00300000")
    assert (stop["status"], stop["expiryReason"]) == ("EXPIRED", "OCO_TRIGGER")
    assert trader.held("BTC")[1] == Decimal("0.007")  # the rest of the target still sells
    assert trader.signed("GET", "/api/v3/openOrderList").json()[0]["orderListId"] == pair["orderListId"]


# ---------------------------------------------------------------------------------------------- self-trade prevention
def wall(trader: Trader) -> dict[str, Any]:
    """An own offer just over the best one, and how much stands before it."""
    return trader.limit("SELL", "1.0003", "0.5")


def sweep(trader: Trader, mode: str, quantity: str = "100") -> dict[str, Any]:
    """A purchase that reaches the account's own offer."""
    return trader.limit("BUY", "1.001", quantity, selfTradePreventionMode=mode)


def test_without_prevention_an_order_passes_its_own_account(trader: Trader) -> None:
    own = wall(trader)
    sweep(trader, "NONE")
    assert trader.found(own["orderId"])["status"] == "NEW"
    assert trader.signed("GET", "/api/v3/myPreventedMatches", symbol="BTCUSDT", orderId=own["orderId"]).json() == []


@pytest.mark.parametrize(
    ("mode", "maker_ends", "taker_ends"),
    [("EXPIRE_MAKER", True, False), ("EXPIRE_TAKER", False, True), ("EXPIRE_BOTH", True, True)],
)
def test_prevention_ends_the_order_that_its_mode_names(
    troubled: PaperServerProcess, trader: Trader, mode: str, maker_ends: bool, taker_ends: bool
) -> None:
    own, free = wall(trader), trader.held("BTC")[0]
    taken = sweep(trader, mode)
    assert 0 < Decimal(taken["executedQty"]) < 100
    assert all(Decimal(fill["price"]) <= Decimal(own["price"]) for fill in taken["fills"]) or not taker_ends
    maker = trader.found(own["orderId"])
    assert maker["status"] == ("EXPIRED_IN_MATCH" if maker_ends else "NEW")
    assert taken["status"] == ("EXPIRED_IN_MATCH" if taker_ends else "PARTIALLY_FILLED")
    (match,) = trader.signed("GET", "/api/v3/myPreventedMatches", symbol="BTCUSDT", orderId=own["orderId"]).json()
    assert (match["selfTradePreventionMode"], match["price"]) == (mode, own["price"])
    assert match["takerOrderId"] == taken["orderId"]
    assert taken["preventedMatches"][0]["makerOrderId"] == own["orderId"]
    if maker_ends:
        assert (maker["preventedQuantity"], maker["executedQty"]) == ("0.50000000", ZERO)
        assert trader.held("BTC")[0] > free  # what the offer had locked is free again
    assert ("makerPreventedQuantity" in match) == maker_ends
    assert ("takerPreventedQuantity" in match) == taker_ends


def test_decrement_takes_the_smaller_quantity_off_both(trader: Trader) -> None:
    own = wall(trader)
    taken = sweep(trader, "DECREMENT")
    maker = trader.found(own["orderId"])
    assert (maker["status"], maker["preventedQuantity"]) == ("EXPIRED_IN_MATCH", "0.50000000")
    assert (taken["status"], taken["preventedQuantity"]) == ("PARTIALLY_FILLED", "0.50000000")
    left = Decimal(taken["origQty"]) - Decimal(taken["executedQty"]) - Decimal("0.5")
    assert trader.held("USDT")[1] == left * Decimal(taken["price"])


def test_prevention_of_a_target_takes_its_stop_along(troubled: PaperServerProcess, trader: Trader) -> None:
    pair = trader.bracket("0.01", target="1.0003")
    sweep(trader, "EXPIRE_MAKER")
    target, stop = legs(trader, pair)
    assert (target["status"], stop["status"]) == ("EXPIRED_IN_MATCH", "EXPIRED")
    assert trader.held("BTC")[1] == 0


def test_prevention_on_command(troubled: PaperServerProcess, trader: Trader) -> None:
    pair = trader.bracket()
    which = {"account_id": trader.account.account_id, "types": ["LIMIT_MAKER"], "status": "EXPIRED_IN_MATCH"}
    assert len(troubled.admin.expire("BTC/USDT", **which)) == 1
    assert [order["status"] for order in legs(trader, pair)] == ["EXPIRED_IN_MATCH", "EXPIRED"]


# --------------------------------------------------------------------------------------------------------- price range
def test_a_taker_expires_where_the_range_ends(troubled: PaperServerProcess, trader: Trader) -> None:
    reference = Decimal(trader.public("/api/v3/referencePrice", symbol="BTCUSDT").json()["referencePrice"])
    up = (Decimal(trader.at("1.0005")) / reference).quantize(Decimal("0.0001"))
    troubled.admin.limit_range("BTC/USDT", "0.5", up)
    (rule,) = trader.public("/api/v3/executionRules", symbol="BTCUSDT").json()["symbolRules"]
    assert rule["rules"][0]["bidMultiplierUp"] == str(up)
    part = trader.order("BUY", "MARKET", "50", newOrderRespType="FULL")
    assert (part["status"], part["expiryReason"]) == ("EXPIRED", "EXECUTION_RULE_PRICE_RANGE_EXCEEDED")
    assert 0 < Decimal(part["executedQty"]) < 50
    # A good-till-cancelled limit order expires as well: only a maker may rest.
    rest = trader.limit("BUY", "1.01", "100")
    assert (rest["status"], rest["expiryReason"]) == ("EXPIRED", "EXECUTION_RULE_PRICE_RANGE_EXCEEDED")
    assert trader.held("USDT")[1] == 0
    assert trader.limit("BUY", "0.9")["status"] == "NEW"


def test_a_taker_may_get_nothing_at_all(troubled: PaperServerProcess, trader: Trader) -> None:
    troubled.admin.limit_range("BTC/USDT", "1.2", "2")
    sold = trader.order("SELL", "MARKET", newOrderRespType="RESULT")
    assert (sold["status"], sold["executedQty"]) == ("EXPIRED", ZERO)
    assert sold["expiryReason"] == "EXECUTION_RULE_PRICE_RANGE_EXCEEDED"
    trader.bracket(stop="0.99")
    (stop,) = (o for o in trader.signed("GET", "/api/v3/openOrders").json() if o["type"] == "STOP_LOSS")
    troubled.admin.shock(-0.02, "BTC/USDT")
    found = trader.found(stop["orderId"])
    assert (found["status"], found["executedQty"]) == ("EXPIRED", ZERO)
    assert found["expiryReason"] == "EXECUTION_RULE_PRICE_RANGE_EXCEEDED"
    troubled.admin.shock(1 / 0.98 - 1, "BTC/USDT")


def test_what_did_not_fill_says_why(trader: Trader) -> None:
    reasons = [
        trader.limit("BUY", factor, quantity, timeInForce=tif)["expiryReason"]
        for factor, quantity, tif in (("0.9", "0.01", "IOC"), ("1.0001", "100", "FOK"))
    ]
    assert reasons == ["UNFILLED_IOC_QUANTITY_EXPIRED", "UNFILLED_FOK_ORDER_EXPIRED"]
