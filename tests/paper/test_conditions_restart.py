"""What was done to markets and accounts survives a kill, and any of it may be done at a chosen call."""

from __future__ import annotations

from decimal import Decimal

from tests.paper.conftest import NOW_MS
from tests.support.futures import futures_account, futures_client
from tests.support.paper_requests import Trader
from tests.support.paper_server import PaperServerProcess


def test_conditions_survive_a_kill(paper_exchange: PaperServerProcess) -> None:
    admin = paper_exchange.admin
    admin.set_clock(NOW_MS)
    trader = Trader(paper_exchange.url, paper_exchange.create_account(USDT="10000", BTC="5", BNB="1"))
    futures = futures_client(paper_exchange, account := futures_account(paper_exchange))
    futures.fapiprivate_post_order({"symbol": "BTCUSDT", "side": "BUY", "type": "MARKET", "quantity": "0.1"})
    stop = {"symbol": "BTCUSDT", "side": "SELL", "type": "STOP_MARKET", "algoType": "CONDITIONAL", "quantity": "0.1"}
    futures.fapiprivate_post_algoorder({**stop, "triggerPrice": trader.at("0.99"), "clientAlgoId": "hung"})
    admin.hang_triggers("BTC/USDT")
    admin.shock(-0.02, "BTC/USDT")
    pair = trader.bracket()
    admin.fill_resting("BTC/USDT", trader.account, 0.5)
    admin.set_fees(trader.account, 300, 700, symbol="BTCUSDT")
    admin.pay_fees_in_bnb(trader.account)
    admin.set_fees(account, 10, 20, market="futures")
    admin.transfer(trader.account, "BTC", "-1")
    admin.add_income(account, "REFERRAL_KICKBACK", "0.5")
    admin.change_rules("BTC/USDT", tick="0.1", min_notional="20")
    admin.limit_range("BTC/USDT", "0.9", "1.1")
    admin.bend_book("ETH/USDT", "no_asks")
    admin.set_status("ETH/USDT", "CANCEL_ONLY")

    def seen() -> list[object]:
        return [
            trader.public("/api/v3/exchangeInfo").json()["symbols"],
            trader.public("/api/v3/executionRules").json(),
            trader.public("/api/v3/ticker/bookTicker").json(),
            [trader.found(order["orderId"]) for order in pair["orderReports"]],
            trader.signed("GET", "/api/v3/account").json()["balances"],
            trader.signed("GET", "/api/v3/account/commission", symbol="BTCUSDT").json(),
            trader.signed("GET", "/sapi/v1/capital/withdraw/history").json(),
            futures.fapiprivate_get_commissionrate({"symbol": "BTCUSDT"}),
            futures.fapiprivate_get_algoorder({"clientAlgoId": "hung"}),
            futures.fapiprivate_get_income(),
            futures.fapiprivatev3_get_balance(),
        ]

    before = seen()
    paper_exchange.kill()
    paper_exchange.start()
    assert seen() == before
    admin.delist("ETH/USDT")
    admin.calm()
    assert [s["status"] for s in trader.public("/api/v3/exchangeInfo").json()["symbols"]] == ["TRADING"] * 2
    assert futures.fapiprivate_get_algoorder({"clientAlgoId": "hung"})["algoStatus"] == "TRIGGERING"
    assert admin.hang_triggers("BTC/USDT", hangs=False, releases=True) == ["hung"]
    assert futures.fapiprivate_get_algoorder({"clientAlgoId": "hung"})["algoStatus"] == "FINISHED"


def test_a_command_at_a_chosen_call(paper_exchange: PaperServerProcess) -> None:
    admin = paper_exchange.admin
    admin.set_clock(NOW_MS)
    trader = Trader(paper_exchange.url, paper_exchange.create_account(USDT="10000", BTC="5"))
    halt = {"command": "status", "body": {"symbol": "BTCUSDT", "status": "HALT"}, "path": "/api/v3/order"}
    admin.add_fault("command_before", **halt, method="POST", nth=2)
    assert trader.order("SELL", "MARKET")["status"] == "FILLED"
    assert trader.order("SELL", "MARKET")["code"] == -1013
    admin.set_status("BTC/USDT", "TRADING")
    paid = {"command": "transfer", "body": {"account_id": trader.account.account_id, "asset": "USDT", "amount": "7"}}
    admin.add_fault("command_after", **paid, path="/api/v3/account", times=1)
    first, second = trader.held("USDT")[0], trader.held("USDT")[0]
    assert second - first == Decimal(7)
