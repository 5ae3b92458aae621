"""A stop that triggers and is never placed, and incomes that no trade caused."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import ccxt
import pytest

from tests.support.futures import futures_account, futures_client
from tests.support.paper_server import PaperServerProcess
from tradewind.core.futures_accounts import IncomeKind
from tradewind.errors import BadInput
from tradewind.paper.admin import PaperAccount

BTC = "BTC/USDT:USDT"


@pytest.fixture
def account(troubled: PaperServerProcess) -> PaperAccount:
    return futures_account(troubled)


@pytest.fixture
def client(troubled: PaperServerProcess, account: PaperAccount) -> ccxt.binanceusdm:
    found = futures_client(troubled, account)
    found.load_markets()
    return found


def protect(client: ccxt.binanceusdm, client_id: str = "stop") -> dict[str, Any]:
    """A position with a stop 1 % under it, far from its liquidation."""
    client.set_leverage(2, BTC)
    client.create_order(BTC, "market", "buy", 0.1)
    price = Decimal(client.fapipublic_get_premiumindex({"symbol": "BTCUSDT"})["markPrice"])
    stop = {"symbol": "BTCUSDT", "side": "SELL", "type": "STOP_MARKET", "algoType": "CONDITIONAL", "quantity": "0.1"}
    trigger = str((price * Decimal("0.99")).quantize(Decimal("0.01")))
    sent = {**stop, "triggerPrice": trigger, "reduceOnly": "true", "clientAlgoId": client_id}
    return dict(client.fapiprivate_post_algoorder(sent))


def test_a_stop_hangs_in_triggering(troubled: PaperServerProcess, client: ccxt.binanceusdm) -> None:
    protect(client)
    troubled.admin.hang_triggers("BTC/USDT")
    troubled.admin.shock(-0.02, "BTC/USDT")
    for _ in range(2):
        found = client.fapiprivate_get_algoorder({"clientAlgoId": "stop"})
        assert (found["algoStatus"], found["actualOrderId"]) == ("TRIGGERING", "")
        assert int(found["triggerTime"]) > 0
        assert client.fapiprivate_get_openalgoorders() == []
        with pytest.raises(ccxt.OrderNotFound, match="-2011"):
            client.fapiprivate_delete_algoorder({"clientAlgoId": "stop"})
        troubled.admin.shock(-0.02, "BTC/USDT")  # whatever the price does
    assert [o["algoStatus"] for o in client.fapiprivate_get_allalgoorders({"symbol": "BTCUSDT"})] == ["TRIGGERING"]
    (position,) = client.fapiprivatev3_get_positionrisk({"symbol": "BTCUSDT"})
    assert Decimal(position["positionAmt"]) == Decimal("0.1")
    # The way out is open: an order that reduces at the market.
    sent = {"symbol": "BTCUSDT", "side": "SELL", "type": "MARKET", "quantity": "0.1", "reduceOnly": "true"}
    assert client.fapiprivate_post_order({**sent, "newOrderRespType": "RESULT"})["status"] == "FILLED"
    troubled.admin.shock(0.98**-3 - 1, "BTC/USDT")


def test_a_stop_that_hung_may_go_through_late(troubled: PaperServerProcess, client: ccxt.binanceusdm) -> None:
    protect(client)
    troubled.admin.hang_triggers("BTC/USDT")
    troubled.admin.shock(-0.02, "BTC/USDT")
    assert troubled.admin.hang_triggers("BTC/USDT", hangs=False, releases=True)[-1:] == ["stop"]
    found = client.fapiprivate_get_algoorder({"clientAlgoId": "stop"})
    assert (found["algoStatus"], found["actualQty"]) == ("FINISHED", "0.10000000")
    assert all(float(p["contracts"]) == 0 for p in client.fetch_positions([BTC]))
    troubled.admin.shock(1 / 0.98 - 1, "BTC/USDT")


@pytest.mark.parametrize("kind", [kind.value for kind in IncomeKind])
def test_every_documented_kind_of_income_may_name_no_symbol(
    troubled: PaperServerProcess, client: ccxt.binanceusdm, account: PaperAccount, kind: str
) -> None:
    troubled.admin.add_income(account, kind, "0.13370000")
    row = client.fapiprivate_get_income({"incomeType": kind})[-1]
    assert (row["symbol"], row["income"], row["asset"], row["tradeId"]) == ("", "0.13370000", "USDT", "")
    assert client.fapiprivatev3_get_balance()[0]["balance"] == "10000.13370000"


def test_an_income_of_a_symbol_and_one_that_cannot_be_paid(
    troubled: PaperServerProcess, client: ccxt.binanceusdm, account: PaperAccount
) -> None:
    troubled.admin.add_income(account, "FUNDING_FEE", "-1.5", "BTC/USDT")
    assert client.fapiprivate_get_income({"symbol": "BTCUSDT"})[0]["income"] == "-1.50000000"
    with pytest.raises(BadInput, match="margin is insufficient"):
        troubled.admin.add_income(account, "COIN_SWAP_WITHDRAW", "-20000")
    with pytest.raises(BadInput, match="is not a valid IncomeKind"):
        troubled.admin.add_income(account, "LOTTERY", "1")
