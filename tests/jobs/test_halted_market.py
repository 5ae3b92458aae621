"""A market that may be cancelled in and not traded: what rests is left, nothing is sent, and the reopening finds it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from tests.support.trading_rig import Rig
from tradewind.adapters.ccxt_trading import CcxtTrading
from tradewind.core.brackets import floor_to_step
from tradewind.core.types import (
    BracketSupport,
    ExchangeOrder,
    Instrument,
    MarketStatus,
    Order,
    OrderState,
    Position,
    PositionStatus,
)
from tradewind.errors import BadInput, NotFlatYet
from tradewind.jobs.accepting import adopt_purchase
from tradewind.jobs.positions import manage_positions
from tradewind.jobs.safety import flatten, watch_risk_once
from tradewind.jobs.tending import protect_naked
from tradewind.jobs.trading import place_brackets


class Counting(CcxtTrading):
    """Counts what is asked of a market's status."""

    questions = 0

    def market_status(self, symbol: str) -> MarketStatus:
        self.questions += 1
        return super().market_status(symbol)


class HaltsOnCancel(Counting):
    """The market halts right after the next cancellation."""

    rig: Rig
    armed = True

    def cancel_list(self, symbol: str, list_client_id: str, known: Sequence[Order] = ()) -> list[ExchangeOrder]:
        reports = super().cancel_list(symbol, list_client_id, known)
        if self.armed:
            self.armed = False
            self.rig.admin.halt(symbol)
        return reports


def enter(rig: Rig, exchange: type[CcxtTrading] = Counting) -> Position:
    rig.exchange = exchange(rig.client, rig.account)
    rig.make_ready()
    intent = rig.decide("BTC/USDT", notional=Decimal(2400), stop_frac=Decimal("0.05"), target_frac=Decimal("0.3"))
    assert place_brackets(rig, intent.intent_id)["outcome"] == "filled"
    return held(rig, intent.intent_id)


def held(rig: Rig, position_id: str) -> Position:
    found = rig.trading_store.position(position_id)
    assert found is not None
    return found


def save(rig: Rig, position: Position, **changes: Any) -> None:
    """What the rules of a closed bar leave behind before anything is touched."""
    with rig.trading_store.position_lock(position.position_id):
        current = held(rig, position.position_id)
        rig.trading_store.save_position(replace(current, **changes), "test", rig.clock.now())


def moved_stop(rig: Rig) -> Decimal:
    return floor_to_step(rig.bid() * Decimal("0.98"), Decimal("0.01"))


def resting(rig: Rig) -> list[str]:
    return sorted(order["clientOrderId"] for order in rig.exchange_orders())


def rows(rig: Rig, position: Position) -> list[str]:
    return [order.client_order_id for order in rig.trading_store.orders_of(position.position_id)]


@pytest.mark.parametrize("what", ["stop moved", "time stop", "flatten"])
def test_what_rests_is_left_through_a_halt(rig: Rig, what: str) -> None:
    position = enter(rig)
    before, sent = resting(rig), rows(rig, position)
    rig.admin.halt("BTC/USDT")
    if what == "stop moved":
        save(rig, position, stop_price=moved_stop(rig))
    elif what == "time stop":
        save(rig, position, status=PositionStatus.CLOSING, exit_reason="time_stop")
    else:
        with pytest.raises(NotFlatYet, match="BTC/USDT is halted"):
            flatten(rig, "a person")
    for _ in range(2):
        problems = manage_positions(rig)["problems"]
        assert "BTC/USDT is halted at the exchange" in " ".join(problems)
    assert resting(rig) == before
    assert rows(rig, position) == sent, "nothing is sent that can only be refused"
    assert all(span.ended_at for span in rig.trading_store.unprotected_spans(position.position_id))

    rig.admin.halt("BTC/USDT", halted=False)
    manage_positions(rig)
    if what == "stop moved":
        stops = [order for order in rig.exchange_orders() if order["type"] == "STOP_LOSS"]
        assert [Decimal(order["stopPrice"]) for order in stops] == [held(rig, position.position_id).stop_price]
    else:
        assert held(rig, position.position_id).status in (PositionStatus.CLOSED, PositionStatus.DUST)
    rig.assert_agrees()


def test_one_look_at_a_halted_market_asks_once_and_sends_nothing(rig: Rig) -> None:
    position = enter(rig)
    save(rig, position, stop_price=moved_stop(rig))
    rig.admin.halt("BTC/USDT")
    assert isinstance(rig.exchange, Counting)
    for status in (PositionStatus.OPEN, PositionStatus.CLOSING):
        save(rig, position, status=status)
        asked = rig.exchange.questions
        manage_positions(rig)
        assert rig.exchange.questions == asked + 1


def test_a_halt_between_cancelling_and_placing_ends_with_the_first_look_that_may_place(
    rig: Rig,
) -> None:
    position = enter(rig, HaltsOnCancel)
    assert isinstance(rig.exchange, HaltsOnCancel)
    rig.exchange.rig = rig
    stop = moved_stop(rig)
    save(rig, position, stop_price=stop)
    (problem,) = manage_positions(rig)["problems"]
    assert "BTC/USDT is halted at the exchange" in problem
    assert resting(rig) == []
    sent = rows(rig, position)
    for _ in range(3):
        asked = rig.exchange.questions
        assert protect_naked(rig)
        assert rig.exchange.questions == asked + 1
    assert rows(rig, position) == sent, "one question a look, no order that can only be refused"
    (span,) = [s for s in rig.trading_store.unprotected_spans(position.position_id) if s.ended_at is None]
    assert span.cause == "replacement"
    alerts = [row["title"] for row in rig.database.rows("SELECT title FROM alerts WHERE severity = 'critical'")]
    assert alerts == ["BTC/USDT is held without a stop, and none can be placed"]

    rig.admin.halt("BTC/USDT", halted=False)
    watch_risk_once(rig)
    (order,) = [order for order in rig.exchange_orders() if order["type"] == "STOP_LOSS"]
    assert Decimal(order["stopPrice"]) == stop
    assert rig.trading_store.unprotected_now() == set()
    assert held(rig, position.position_id).status is PositionStatus.OPEN
    rig.assert_agrees()


def test_a_fill_whose_market_halts_at_once_is_entered_and_waits_for_its_stop(make_rig: Callable[..., Rig]) -> None:
    """Without native brackets the halt may fall between the entry's fill and its protection."""
    rig = make_rig()

    class Halting(CcxtTrading):
        def instruments(self, symbols: Sequence[str]) -> dict[str, Instrument]:
            found = super().instruments(symbols)
            return {symbol: replace(rules, bracket=BracketSupport.EMULATED) for symbol, rules in found.items()}

        def send_order(self, order: Order, instrument: Instrument) -> ExchangeOrder:
            report = super().send_order(order, instrument)
            rig.admin.halt(order.symbol)
            return report

    rig.exchange = Halting(rig.client, rig.account)
    rig.make_ready()
    intent = rig.decide("BTC/USDT", notional=Decimal(2400), stop_frac=Decimal("0.05"), target_frac=Decimal("0.3"))
    done = place_brackets(rig, intent.intent_id)
    assert done["outcome"] == "filled"
    assert "halted" in done["reason"]
    assert resting(rig) == []
    rig.admin.halt("BTC/USDT", halted=False)
    watch_risk_once(rig)
    assert len(resting(rig)) == 2
    rig.assert_agrees()


def test_nothing_is_adopted_in_a_market_that_takes_no_stop(rig: Rig) -> None:
    rig.make_ready()
    rig.client.read("private_post_order", {"symbol": "BTCUSDT", "side": "BUY", "type": "MARKET", "quantity": "0.01"})
    rig.admin.halt("BTC/USDT")
    with pytest.raises(BadInput, match="halted"):
        adopt_purchase(rig, "BTC/USDT", Decimal("0.03"), "ann")
    assert rig.trading_store.live_positions() == []
    rig.admin.halt("BTC/USDT", halted=False)
    assert adopt_purchase(rig, "BTC/USDT", Decimal("0.03"), "ann")["side"] == "long"
    assert [o.state for o in rig.trading_store.orders_in([OrderState.WORKING])] == [OrderState.WORKING] * 2
