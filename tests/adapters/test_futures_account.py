"""What a futures account says that the ledger must not fall over: triggers that hang, incomes without a market, an
empty wallet. The answers have the form of Binance's public documentation."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

import pytest

from tests.support.binance import Market
from tests.support.http_server import serving
from tests.support.trading import NOW
from tradewind.adapters.ccxt_client import ClientConfig
from tradewind.adapters.ccxt_futures import CcxtFuturesTrading
from tradewind.adapters.ccxt_futures_client import CcxtFuturesClient
from tradewind.adapters.trading_store import PgTradingStore
from tradewind.core.orders import client_order_id
from tradewind.core.types import OrderRole, OrderState, Payment

D = Decimal
BTC = "BTC/USDT"
STOP = client_order_id("test", "v", BTC, NOW, 0, OrderRole.STOP, 0)


@contextmanager
def futures(market: Market) -> Iterator[CcxtFuturesTrading]:
    with serving(market) as (url, _):
        config = ClientConfig(
            market_type="usdm", base_url=url, api_key="k", api_secret="s", weight_per_minute=0.0, symbols=(BTC,)
        )
        yield CcxtFuturesTrading(CcxtFuturesClient(config), "test")


def algo(status: str, *, age_s: float = 60.0, actual_id: str = "") -> dict[str, Any]:
    """The answer of GET /fapi/v1/algoOrder for a stop that triggered so long ago."""
    at_ms = int((time.time() - age_s) * 1000)
    return {
        "algoId": 2146760, "clientAlgoId": STOP, "algoType": "CONDITIONAL", "orderType": "STOP_MARKET",
        "symbol": "BTCUSDT", "side": "SELL", "positionSide": "BOTH", "timeInForce": "GTC", "quantity": "0.020",
        "algoStatus": status, "actualOrderId": actual_id, "actualPrice": "0.00000", "triggerPrice": "60000.00",
        "price": "0.00", "reduceOnly": True, "createTime": at_ms - 60_000, "updateTime": at_ms,
        "triggerTime": at_ms, "goodTillDate": 0,
    }  # fmt: skip


PLACED = {
    "orderId": 77, "clientOrderId": "x", "symbol": "BTCUSDT", "status": "FILLED", "side": "SELL", "type": "MARKET",
    "origQty": "0.020", "executedQty": "0.020", "price": "0", "stopPrice": "0", "updateTime": 1,
}  # fmt: skip


# --------------------------------------------------------------------------------------------------------- conditional
@pytest.mark.parametrize("status", ["TRIGGERING", "TRIGGERED", "FINISHED"])
def test_a_stop_that_hangs_after_its_trigger_protects_nothing(status: str) -> None:
    market = Market()
    cancels: list[str] = []

    def cancel(query: Any) -> Any:
        cancels.append(query["clientAlgoId"])
        return -2011, "Unknown order sent."

    market.answers = {
        ("GET", "algoOrder"): lambda _: algo(status, age_s=6),
        ("DELETE", "algoOrder"): cancel,
        ("GET", "openOrders"): lambda _: [],
        ("GET", "openAlgoOrders"): lambda _: [algo(status, age_s=6)],
    }
    with futures(market) as exchange:
        found = exchange.find_order(BTC, STOP)
        assert found is not None
        assert (found.state, found.filled_quantity) == (OrderState.EXPIRED, D(0))
        assert cancels == [STOP], "it is cancelled as well, so that it cannot come to life later"
        assert exchange.cancel_order(BTC, STOP).state is OrderState.EXPIRED
        assert exchange.open_orders([BTC]) == []


def test_a_stop_that_triggered_a_moment_ago_still_works() -> None:
    market = Market()
    market.answers = {
        ("GET", "algoOrder"): lambda _: algo("TRIGGERING", age_s=1),
        ("GET", "openOrders"): lambda _: [],
        ("GET", "openAlgoOrders"): lambda _: [algo("TRIGGERING", age_s=1)],
    }
    with futures(market) as exchange:
        found = exchange.find_order(BTC, STOP)
        assert found is not None
        assert found.state is OrderState.WORKING
        assert [order.client_order_id for order in exchange.open_orders([BTC])] == [STOP]


def test_a_hanging_stop_that_was_placed_while_it_was_cancelled_is_told_as_placed() -> None:
    market = Market()
    answers = iter([algo("TRIGGERING"), algo("FINISHED", actual_id="77")])
    market.answers = {
        ("GET", "algoOrder"): lambda _: next(answers),
        ("DELETE", "algoOrder"): lambda _: (-2011, "Unknown order sent."),
        ("GET", "order"): lambda query: PLACED if query["orderId"] == "77" else (-2013, "Order does not exist."),
    }
    with futures(market) as exchange:
        found = exchange.find_order(BTC, STOP)
        assert found is not None
        assert (found.state, found.filled_quantity) == (OrderState.FILLED, D("0.020"))


def test_an_order_placed_for_a_stop_and_not_known_yet_is_waited_for() -> None:
    market = Market()
    market.answers = {
        ("GET", "algoOrder"): lambda _: algo("TRIGGERED", age_s=1, actual_id="77"),
        ("GET", "order"): lambda _: (-2013, "Order does not exist."),
    }
    with futures(market) as exchange:
        found = exchange.find_order(BTC, STOP)
        assert found is not None
        assert found.state is OrderState.WORKING


# ------------------------------------------------------------------------------------------------------------- incomes
def income(kind: str, amount: str = "0.13370000", symbol: str = "", asset: str = "USDT") -> dict[str, Any]:
    return {
        "symbol": symbol, "incomeType": kind, "income": amount, "asset": asset, "info": kind,
        "time": int(NOW.timestamp() * 1000), "tranId": 9689322392, "tradeId": "",
    }  # fmt: skip


def payments(rows: list[dict[str, Any]]) -> list[Payment]:
    market = Market()
    market.answers = {("GET", "income"): lambda _: rows}
    with futures(market) as exchange:
        return exchange.payments_since(NOW)


RESULTS = (
    "FUNDING_FEE", "INSURANCE_CLEAR", "REFERRAL_KICKBACK", "COMMISSION_REBATE", "API_REBATE", "FEE_RETURN",
    "POSITION_LIMIT_INCREASE_FEE", "DELIVERED_SETTELMENT", "BFUSD_REWARD",
)  # fmt: skip
# Trades are in the fills; what else moves money is for a person to explain, kinds of next year included.
NO_RESULTS = (
    "REALIZED_PNL", "COMMISSION", "TRANSFER", "INTERNAL_TRANSFER", "COIN_SWAP_DEPOSIT", "COIN_SWAP_WITHDRAW",
    "CROSS_COLLATERAL_TRANSFER", "STRATEGY_UMFUTURES_TRANSFER", "AUTO_EXCHANGE", "WELCOME_BONUS", "CONTEST_REWARD",
    "OPTIONS_PREMIUM_FEE", "OPTIONS_SETTLE_PROFIT", "A_KIND_OF_NEXT_YEAR",
)  # fmt: skip


@pytest.mark.parametrize("kind", RESULTS)
def test_a_result_without_a_market_belongs_to_the_account(kind: str) -> None:
    (found,) = payments([income(kind)])
    assert (found.kind, found.symbol, found.asset, found.amount) == (kind.lower(), "", "USDT", D("0.1337"))


@pytest.mark.parametrize("kind", NO_RESULTS)
def test_what_is_no_result_is_no_payment(kind: str) -> None:
    assert payments([income(kind, "5000")]) == []


def test_a_result_of_a_contract_that_is_gone_belongs_to_the_account() -> None:
    found = payments([income("FUNDING_FEE", symbol="LUNAUSDT"), income("FUNDING_FEE", symbol="BTCUSDT")])
    assert [payment.symbol for payment in found] == ["", BTC]


def paid(number: int, symbol: str, amount: str, *, kind: str = "funding_fee", asset: str = "USDT") -> Payment:
    return Payment("main", f"{kind}:{number}", symbol, kind, asset, D(amount), NOW)


def test_totals_hold_flows_of_the_account_beside_those_of_markets(store: PgTradingStore) -> None:
    """Rows of older versions name a contract as the exchange does, or nothing at all."""
    mark = Payment("main", "begin", BTC, "begin", "USDT", D(0), NOW)
    rows = [paid(1, BTC, "-2"), paid(2, "", "5"), paid(3, "LUNAUSDT", "-1"), paid(4, "", "0.5", asset="BNB")]
    store.insert_payments([mark, *rows])
    totals = store.ledger_totals()
    assert {symbol: total.cash_quote for symbol, total in totals.items()} == {BTC: D(-2), "/USDT": D(4)}
    assert totals["/USDT"].other_fees == {"BNB": D("-0.5")}, "received is a fee below zero"


def test_stored_transfers_of_before_are_no_payments_any_more(store: PgTradingStore) -> None:
    mark = Payment("main", "begin", BTC, "begin", "USDT", D(0), NOW)
    kinds = [kind.lower() for kind in NO_RESULTS[3:-1]]
    stored = [paid(number, "", "5000", kind=kind) for number, kind in enumerate(kinds)]
    store.insert_payments([mark, paid(99, BTC, "-2"), *stored])
    totals = store.ledger_totals()
    assert {symbol: total.cash_quote for symbol, total in totals.items()} == {BTC: D(-2)}
    assert store.payments_begin() == NOW


# -------------------------------------------------------------------------------------------------------------- wallet
def account(assets: list[dict[str, str]]) -> Callable[[Any], Any]:
    return lambda _: {"assets": assets, "positions": []}


def test_an_empty_wallet_that_is_not_listed_holds_nothing() -> None:
    market = Market()
    with futures(market) as exchange:
        market.answers = {("GET", "account"): account([])}
        assert exchange.balances()["USDT"].total == 0
        bnb = {"asset": "BNB", "walletBalance": "1", "availableBalance": "1"}
        usdt = {"asset": "USDT", "walletBalance": "10.5", "availableBalance": "9.5"}
        market.answers = {("GET", "account"): account([bnb, usdt])}
        assert exchange.balances()["USDT"].total == D("10.5")
