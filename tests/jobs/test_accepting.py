"""What a person explains or hands over: transfers, sales of their own, purchases to look after."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from tests.support.trading_rig import Rig
from tradewind.core.types import PositionStatus, TradingMode
from tradewind.errors import BadInput
from tradewind.jobs.accepting import accept_difference, adopt_purchase, unexplained
from tradewind.jobs.equity import build_portfolio, mark_equity
from tradewind.jobs.positions import manage_positions
from tradewind.jobs.safety import carry_on_flatten, halt, resume, trip_circuit_breaker, watch_risk_once
from tradewind.jobs.trading import place_brackets


def trade_by_hand(rig: Rig, side: str, quantity: str, symbol: str = "BTCUSDT") -> Any:
    return rig.client.exchange.private_post_order(
        {"symbol": symbol, "side": side, "type": "MARKET", "quantity": quantity}
    )


@pytest.fixture
def holder(make_rig: Callable[..., Rig]) -> Rig:
    """An account that held coins before the first start."""
    return make_rig(balances={"USDT": "10000", "BTC": "0.5", "ETH": "2"})


def test_a_sale_of_ones_own_blocks_until_it_is_explained(holder: Rig) -> None:
    holder.make_ready()
    trade_by_hand(holder, "SELL", "0.1")
    assert not manage_positions(holder)["clean"]
    with pytest.raises(BadInput, match="needs words"):
        accept_difference(holder, "BTC", " ", "ann")
    with pytest.raises(BadInput, match=r"ETH needs no explanation.*BTC"):
        accept_difference(holder, "ETH", "sold", "ann")
    assert Decimal(accept_difference(holder, "BTC", "sold some of mine", "ann")["quantity"]) == Decimal("-0.1")
    assert unexplained(holder).keys() == {"USDT"}  # what the sale brought is a surplus, which blocks nothing
    assert manage_positions(holder)["clean"]
    (row,) = holder.database.rows("SELECT actor, detail FROM audit WHERE action = 'accept'")
    assert (row["actor"], row["detail"]["asset"]) == ("ann", "BTC")


def test_what_is_not_traded_here_may_be_moved_without_a_word(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(balances={"USDT": "10000", "ETH": "2"}, symbols=("BTC/USDT",))
    rig.make_ready()
    assert (rig.trading_store.baseline() or {})["ETH"] == 2
    trade_by_hand(rig, "SELL", "0.5", "ETHUSDT")
    assert manage_positions(rig)["clean"], "what the sale brought is a surplus, and the ETH are not traded here"
    trade_by_hand(rig, "BUY", "0.01")
    assert unexplained(rig).keys() == {"BTC", "USDT"}


def test_money_paid_in_is_sized_on_and_is_no_gain(holder: Rig) -> None:
    """It is equity like all other money, and what equity is measured against has grown by the same share."""
    holder.make_ready()
    before = build_portfolio(holder)
    trade_by_hand(holder, "SELL", "0.1")
    paid_in = unexplained(holder)["USDT"]
    assert build_portfolio(holder).equity_quote == before.equity_quote, "not before it is explained"
    accept_difference(holder, "USDT", "proceeds of my own coins", "ann")
    after = build_portfolio(holder)
    assert after.equity_quote == mark_equity(holder) == before.equity_quote + paid_in
    assert after.day_open_equity_quote == after.peak_equity_quote == after.equity_quote
    assert not watch_risk_once(holder)["breached"]


def test_what_is_missing_of_a_position_cannot_be_explained_away(holder: Rig) -> None:
    holder.make_ready()
    intent = holder.decide(symbol="BTC/USDT")
    place_brackets(holder, intent.intent_id)
    for order in holder.exchange_orders():
        holder.exchange.cancel_order("BTC/USDT", order["clientOrderId"])
    free = holder.exchange.balances()["BTC"].free
    trade_by_hand(holder, "SELL", str(free.quantize(Decimal("0.00001"), rounding="ROUND_DOWN")))
    with pytest.raises(BadInput, match="part of it is the ledger's"):
        accept_difference(holder, "BTC", "sold all", "ann")


def test_a_purchase_by_hand_is_put_under_a_stop(holder: Rig) -> None:
    holder.make_ready()
    trade_by_hand(holder, "BUY", "0.02")
    with pytest.raises(BadInput, match="between 0 and 1"):
        adopt_purchase(holder, "BTC/USDT", Decimal(3), "ann")
    with pytest.raises(BadInput, match="add up"):
        adopt_purchase(holder, "ETH/USDT", Decimal("0.03"), "ann")
    done = adopt_purchase(holder, "BTC/USDT", Decimal("0.03"), "ann")
    position = holder.trading_store.position(done["position_id"])
    assert position is not None
    assert position.status is PositionStatus.OPEN
    assert position.entry_price is not None
    assert position.stop_price < position.entry_price * Decimal("0.971")
    (stop,) = [order for order in holder.exchange_orders() if order["type"] == "STOP_LOSS"]
    assert Decimal(stop["stopPrice"]) == position.stop_price
    assert manage_positions(holder)["clean"]
    holder.assert_agrees()
    trip_circuit_breaker(holder)
    assert holder.holds("ETH") == Decimal(2)
    assert Decimal("0.5") <= holder.holds("BTC") < Decimal("0.50002")
    holder.assert_agrees()


def test_what_was_held_before_survives_the_breaker(holder: Rig) -> None:
    holder.make_ready()
    intent = holder.decide(symbol="ETH/USDT", notional=Decimal(6000), stop_frac=Decimal("0.2"))
    place_brackets(holder, intent.intent_id)
    assert holder.holds("ETH") > 2
    holder.admin.shock(-0.1, "ETH/USDT")
    assert watch_risk_once(holder)["breached"]
    assert carry_on_flatten(holder) is True
    dust = holder.trading_store.position(intent.intent_id)
    assert dust is not None
    assert dust.status in (PositionStatus.CLOSED, PositionStatus.DUST)
    assert holder.holds("ETH") == 2 + dust.quantity
    assert dust.quantity * holder.bid("ETH/USDT") < 5
    assert holder.holds("BTC") == Decimal("0.5")
    holder.assert_agrees()
    holder.admin.shock(1 / 0.9 - 1, "ETH/USDT")


def test_resume_counts_anew_also_where_the_clock_stands(rig: Rig) -> None:
    rig.make_ready()  # the day's opening is written at the very moment at which the resume will be
    halt(rig, "look", "ann")
    store = rig.trading_store
    peak = mark_equity(rig) + 1000
    store.record_equity("mark", rig.clock.now(), peak)
    assert store.peak_equity() == peak
    resume(rig, "ann")
    assert store.latch().mode is TradingMode.ACTIVE
    assert store.resumed_at() is not None
    assert store.peak_equity() == mark_equity(rig)
    assert store.day_open_equity(rig.clock.now()) == mark_equity(rig)
