"""Watch, latch, flatten, resume: on a crashing market, against a real exchange server and a real ledger."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from tests.support.trading_rig import Rig
from tradewind.adapters.ccxt_trading import CcxtTrading
from tradewind.core.types import BookTop, PositionStatus, TradingMode
from tradewind.errors import BadInput, NotFlatYet, TradingHalted
from tradewind.jobs.orders import observe
from tradewind.jobs.permission import WATCH, permission_now
from tradewind.jobs.positions import manage_positions
from tradewind.jobs.safety import (
    carry_on_flatten,
    flatten,
    halt,
    open_day,
    resume,
    trip_circuit_breaker,
    watch_risk_once,
    whats_left,
)
from tradewind.jobs.trading import place_brackets

WIDE = {"stop_frac": Decimal("0.3"), "target_frac": Decimal("0.3")}


def enter(rig: Rig, symbol: str = "BTC/USDT", notional: int = 2400) -> str:
    intent = rig.decide(symbol, notional=Decimal(notional), **WIDE)
    assert place_brackets(rig, intent.intent_id)["outcome"] == "filled"
    return intent.intent_id


def alerts(rig: Rig) -> list[str]:
    return [row["title"] for row in rig.database.rows("SELECT title FROM alerts ORDER BY alert_id")]


def test_breach_latches_and_flattens_and_never_unlatches(rig: Rig) -> None:
    rig.make_ready()
    enter(rig)
    enter(rig, "ETH/USDT")
    rig.admin.shock(-0.08)
    reading = watch_risk_once(rig)
    assert reading["breached"]
    assert "limit -3.00 %" in reading["reason"]
    assert rig.trading_store.latch().mode is TradingMode.HALTED
    assert not permission_now(rig).allowed

    done = trip_circuit_breaker(rig)
    assert done["flat"]
    assert rig.exchange_orders() == []
    assert rig.holds("BTC") < Decimal("0.0001")
    assert all(
        p.status in (PositionStatus.CLOSED, PositionStatus.DUST)
        for p in rig.trading_store.positions_with_fills_since(rig.clock.now() - timedelta(days=1))
    )
    rig.assert_agrees()
    work = rig.trading_store.flattening(1)
    assert work is not None
    assert work.verified_flat_at is not None
    assert "Circuit breaker: trading is halted" in alerts(rig)
    assert "The account is flat" in alerts(rig)

    # Again, by hand, by the minute run, by the watch: nothing is sold twice and the latch stays.
    orders = rig.exchange_orders(["FILLED"])
    trip_circuit_breaker(rig)
    manage_positions(rig)
    rig.admin.shock(0.2)
    assert not watch_risk_once(rig)["breached"]
    assert rig.exchange_orders(["FILLED"]) == orders
    assert rig.trading_store.latch().mode is TradingMode.HALTED
    assert [row["mode"] for row in rig.trading_store.latch_history()] == ["halted"]


def test_baseline_survives_a_breaker_trip(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig({"USDT": "10000", "ETH": "2"})
    rig.make_ready()
    enter(rig, "ETH/USDT")
    assert rig.holds("ETH") > 2
    rig.admin.shock(-0.2)
    assert watch_risk_once(rig)["breached"]
    trip_circuit_breaker(rig)
    dust = rig.holds("ETH") - 2
    assert 0 <= dust < Decimal("0.0001"), "what the commission left below the step, and nothing of the baseline"
    rig.assert_agrees()


def test_baseline_is_in_no_equity(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig({"USDT": "10000", "ETH": "50"})
    rig.make_ready()
    rig.admin.shock(-0.5, "ETH/USDT")
    reading = watch_risk_once(rig)
    assert not reading["breached"]
    assert Decimal(reading["equity_quote"]) == 10000


def test_minute_run_is_the_second_pair_of_eyes(rig: Rig) -> None:
    rig.make_ready()
    enter(rig)
    enter(rig, "ETH/USDT")
    rig.admin.shock(-0.08)
    result = manage_positions(rig)
    assert result["breached"]
    assert result["flattened"] is True
    assert whats_left(rig) == []


def test_silent_breaker_is_replaced_by_the_watch(rig: Rig) -> None:
    rig.make_ready()
    enter(rig)
    enter(rig, "ETH/USDT")
    rig.admin.shock(-0.08)
    assert watch_risk_once(rig)["breached"]
    assert "flattened" not in watch_risk_once(rig), "the breaker is given its time to start"
    rig.database.execute("UPDATE latch_history SET at = at - interval '11 seconds'")
    assert watch_risk_once(rig)["flattened"] is True


def test_flatten_is_retried_until_flat(rig: Rig) -> None:
    rig.make_ready()
    enter(rig)
    rig.admin.add_fault("error_before", method="POST", path="/api/v3/order", status=503, times=50)
    with pytest.raises(NotFlatYet):
        flatten(rig, "kim")
    assert rig.trading_store.latch().mode is TradingMode.HALTED
    rig.admin.clear_faults()
    # The exits' fate was unknown; once their absence is proven, new ones go out.
    rig.database.execute("UPDATE orders SET sent_at = sent_at - interval '60 seconds' WHERE state = 'unknown'")
    assert carry_on_flatten(rig) is True
    assert rig.exchange_orders() == []
    rig.assert_agrees()


def test_failed_exit_is_protected_and_waited_for(rig: Rig) -> None:
    rig.make_ready()
    position_id = enter(rig)
    rig.admin.add_fault("refuse", method="POST", path="/api/v3/order", times=50)
    for _ in range(2):
        with pytest.raises(NotFlatYet):
            flatten(rig, "kim")
    assert "STOP_LOSS" in [order["type"] for order in rig.exchange_orders()], "a failed exit is never left naked"
    generations = [order.generation for order in rig.trading_store.orders_of(position_id)]
    assert max(generations) == 2, "one exit of unknown fate, one new protection, and then patience"
    rig.admin.clear_faults()
    rig.database.execute("UPDATE orders SET sent_at = sent_at - interval '60 seconds' WHERE state = 'unknown'")
    assert carry_on_flatten(rig) is True
    rig.assert_agrees()


def test_a_halted_market_is_flattened_when_it_opens(rig: Rig) -> None:
    rig.make_ready()
    enter(rig)
    rig.admin.halt("BTC/USDT")
    try:
        with pytest.raises(NotFlatYet):
            flatten(rig, "kim")
    finally:
        rig.admin.halt("BTC/USDT", halted=False)
    assert carry_on_flatten(rig) is True
    assert rig.exchange_orders() == []
    rig.assert_agrees()


def test_resume_is_refused_unless_flat_and_then_counts_anew(rig: Rig) -> None:
    rig.make_ready()
    enter(rig)
    enter(rig, "ETH/USDT")
    rig.admin.shock(-0.08)
    watch_risk_once(rig)
    with pytest.raises(TradingHalted, match="held"):
        resume(rig, "kim")
    assert rig.trading_store.latch().mode is TradingMode.HALTED
    trip_circuit_breaker(rig)
    opened = resume(rig, "kim", "looked at it")
    assert opened["mode"] == "active"
    assert not watch_risk_once(rig)["breached"], "the day's loss counts from the resume"
    manage_positions(rig)
    assert permission_now(rig).allowed
    rows = rig.database.rows("SELECT actor, action, outcome FROM audit ORDER BY audit_id")
    assert [(row["action"], row["outcome"]) for row in rows] == [("resume", "refused"), ("resume", "opened")]
    assert [row["mode"] for row in rig.trading_store.latch_history()] == ["halted", "active"]


def test_halt_keeps_positions_and_resume_lifts_it(rig: Rig) -> None:
    rig.make_ready()
    position_id = enter(rig)
    halt(rig, "going on holiday", "kim")
    assert not permission_now(rig).allowed
    manage_positions(rig)
    held = rig.trading_store.position(position_id)
    assert held is not None
    assert held.status is PositionStatus.OPEN
    assert resume(rig, "kim")["mode"] == "active"
    with pytest.raises(BadInput):
        halt(rig, "  ", "kim")


@pytest.mark.parametrize(("fraction", "words"), [("0.85", "the day's opening"), ("0.75", "the peak")])
def test_a_dip_that_a_second_look_does_not_show_trips_nothing(rig: Rig, fraction: str, words: str) -> None:
    """Below the day's limit and below the drawdown's alike: prices that were there for one look."""
    rig.make_ready()
    enter(rig)
    enter(rig, "ETH/USDT")
    dipped = rig.exchange = OneLook(rig.client, rig.account)
    dipped.fraction = Decimal(fraction)
    dipped.looks = 1
    assert not watch_risk_once(rig)["breached"]
    assert dipped.looks == -1, "it was looked at twice"
    assert rig.trading_store.latch().mode is TradingMode.ACTIVE
    dipped.looks = 2
    reading = watch_risk_once(rig)
    assert reading["breached"]
    assert words in reading["reason"]


class OneLook(CcxtTrading):
    """Prices at a fraction of the market's for some looks."""

    looks = 0
    fraction = Decimal(1)

    def book_tops(self, symbols: Sequence[str]) -> dict[str, BookTop]:
        found = super().book_tops(symbols)
        self.looks -= 1
        if self.looks < 0:
            return found
        return {s: replace(b, bid=b.bid * self.fraction, ask=b.ask * self.fraction) for s, b in found.items()}


def test_a_drawdown_is_confirmed_by_a_second_look(rig: Rig) -> None:
    rig.make_ready()
    rig.trading_store.record_equity("mark", rig.clock.now(), Decimal(11_200))
    rig.trading_store.open_day(rig.clock.now() + timedelta(hours=-12, seconds=-5), Decimal(10_000), link=0)
    enter(rig)
    reading = watch_risk_once(rig)
    assert reading["breached"]
    assert "against the peak" in reading["reason"]


def test_day_opens_with_the_last_reading_before_midnight(rig: Rig) -> None:
    rig.make_ready()
    store, now = rig.trading_store, rig.clock.now()
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    rig.database.execute("DELETE FROM equity")
    store.record_equity("mark", midnight - timedelta(minutes=1), Decimal(10500))
    assert open_day(rig)["from"] == "the last reading before midnight"
    assert store.day_open_equity(now) == 10500
    assert open_day(rig)["from"] == "kept"


def test_trouble_with_protection_keeps_no_breach_from_latching(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.make_ready()
    enter(rig)
    enter(rig, "ETH/USDT")
    monkeypatch.setattr(rig.trading_store, "unprotected_now", broken("a bug in the spans"))
    rig.admin.shock(-0.08)
    reading = watch_risk_once(rig)
    assert reading["breached"]
    assert reading["problems"] == ["KeyError: 'a bug in the spans'"]
    assert "The risk watch cannot protect positions" in alerts(rig)


def test_trouble_with_marking_keeps_nothing_from_being_protected(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.make_ready()
    position_id = enter(rig)
    for order in rig.exchange_orders():
        rig.exchange.cancel_order("BTC/USDT", order["clientOrderId"])
    with rig.trading_store.position_lock(position_id):
        for order in rig.trading_store.orders_of(position_id):
            observe(rig, rig.exchange.find_order("BTC/USDT", order.client_order_id))
    assert rig.exchange_orders() == []
    beaten = rig.trading_store.heartbeats()[WATCH]
    monkeypatch.setattr(rig.trading_store, "open_quantities", broken("a bug in the figures"))
    with pytest.raises(KeyError):
        watch_risk_once(rig)
    assert "STOP_LOSS" in [order["type"] for order in rig.exchange_orders()]
    assert "The risk watch cannot mark equity: the breaker is blind" in alerts(rig)
    assert rig.trading_store.heartbeats()[WATCH] == beaten, "without a mark there is no sign of life"


def broken(words: str) -> Callable[..., Any]:
    def call(*_args: Any) -> Any:
        raise KeyError(words)

    return call


def test_something_held_that_cannot_be_measured_is_alerted(rig: Rig) -> None:
    rig.make_ready()
    enter(rig)
    rig.database.execute("UPDATE equity SET equity_quote = 0")
    watch_risk_once(rig)
    assert "The breaker has nothing to measure a loss against" in alerts(rig)
    assert not permission_now(rig).allowed


def test_silent_watch_is_seen(rig: Rig) -> None:
    rig.make_ready()
    assert permission_now(rig).allowed
    rig.database.execute("UPDATE heartbeats SET at = at - interval '16 seconds' WHERE name = 'watch_risk'")
    permission = permission_now(rig)
    assert not permission.allowed
    assert "no risk watch" in permission.reasons[0]
    rig.database.execute("UPDATE reconciliations SET at = at - interval '10 minutes'")
    assert any("manage_positions" in reason for reason in permission_now(rig).reasons)
