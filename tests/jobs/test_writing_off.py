"""A holding that can be sold no more is given up by a person: closed, counted as lost, never sold and never missed."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

import pytest

from tests.support.trading_rig import Rig
from tradewind.adapters.database import Database
from tradewind.adapters.trading_store import PgTradingStore
from tradewind.core.types import Position, PositionStatus, TradingMode
from tradewind.errors import BadInput, LockNotAcquired, NotFlatYet, StopError, TradingHalted
from tradewind.jobs.accepting import unexplained
from tradewind.jobs.positions import manage_positions
from tradewind.jobs.reconciling import compare
from tradewind.jobs.safety import flatten, resume, trip_circuit_breaker
from tradewind.jobs.tending import foreign_fills, instruments_of, tend_all
from tradewind.jobs.trading import place_brackets
from tradewind.jobs.writing_off import write_off

OVER = (PositionStatus.CLOSED, PositionStatus.DUST)
BTC, ETH = "BTC/USDT", "ETH/USDT"


def enter(rig: Rig, symbol: str = ETH, notional: int = 2000) -> str:
    intent = rig.decide(symbol, notional=Decimal(notional), stop_frac=Decimal("0.1"), target_frac=Decimal("0.3"))
    done = place_brackets(rig, intent.intent_id)
    assert done["outcome"] == "filled", done
    return intent.intent_id


def held(rig: Rig, position_id: str) -> Position:
    found = rig.trading_store.position(position_id)
    assert found is not None
    return found


def is_clean(rig: Rig) -> bool:
    return compare(rig, instruments_of(rig), foreign_fills(rig)).clean


def test_a_delisted_holding_is_given_up_and_the_account_goes_on(rig: Rig) -> None:
    rig.make_ready()
    btc, eth = enter(rig, BTC), enter(rig)
    cash = -sum(fill.quantity * fill.price for fill in rig.trading_store.fills_of(eth))
    coins = rig.holds("ETH")
    rig.admin.delist(ETH)
    with pytest.raises(NotFlatYet, match=f"write-off {eth}"):
        flatten(rig, "kim")
    with pytest.raises(TradingHalted, match=f"write-off {eth}"):
        resume(rig, "kim")
    done = write_off(rig, eth, "delisted by the exchange", "kim")
    assert (done["position_id"], done["clean"]) == (eth, True)
    position = held(rig, eth)
    assert (position.status, position.exit_reason) == (PositionStatus.CLOSED, "written_off")
    assert position.realised_quote == cash
    assert position.closed_at == rig.clock.now()
    (row,) = rig.trading_store.write_offs()
    assert (row.position_id, row.symbol, row.quantity, row.actor) == (eth, ETH, coins, "kim")
    assert row.cost_quote == coins * (position.entry_price or 0)
    (audit,) = rig.database.rows("SELECT actor, detail FROM audit WHERE action = 'write-off'")
    assert audit["detail"]["position_id"] == eth
    assert [e["event"] for e in rig.trading_store.position_events(eth)][-1] == "written_off"
    assert all(o.state.value in ("filled", "expired", "cancelled") for o in rig.trading_store.orders_of(eth))
    assert rig.trading_store.unprotected_now() == set()

    assert held(rig, btc).status in OVER
    assert trip_circuit_breaker(rig)["flat"]
    assert resume(rig, "kim")["mode"] == TradingMode.ACTIVE.value
    assert manage_positions(rig)["clean"]
    rig.assert_agrees()
    assert unexplained(rig) == {}


def test_given_up_twice_is_given_up_once(rig: Rig) -> None:
    rig.make_ready()
    eth = enter(rig)
    rig.admin.delist(ETH)
    first = write_off(rig, eth, "delisted", "kim")
    closed = held(rig, eth)
    assert write_off(rig, eth, "delisted, really", "ann") == first
    assert held(rig, eth) == closed
    assert [row.reason for row in rig.trading_store.write_offs()] == ["delisted"]
    assert len(rig.database.rows("SELECT 1 FROM audit WHERE action = 'write-off'")) == 1


def test_what_was_given_up_may_stay_or_be_taken_away_without_a_word(rig: Rig) -> None:
    rig.make_ready()
    eth = enter(rig)
    rig.admin.delist(ETH)
    write_off(rig, eth, "delisted", "kim")
    assert rig.holds("ETH") > 0
    assert is_clean(rig)
    rig.admin.transfer(rig.paper_account, "ETH", -rig.holds("ETH"))
    assert rig.holds("ETH") == 0
    assert manage_positions(rig)["clean"]
    assert unexplained(rig) == {}


def test_a_market_that_comes_back_does_not_make_it_ours_again(rig: Rig, make_rig: Callable[..., Rig]) -> None:
    rig.make_ready()
    old = enter(rig, notional=200)  # a loss that trips no breaker
    rig.admin.delist(ETH)
    write_off(rig, old, "delisted", "kim")
    coins = rig.holds("ETH")
    rig.admin.calm()
    again = make_rig(paper_account=rig.paper_account)
    assert tend_all(again) == []
    assert held(again, old).status is PositionStatus.CLOSED
    again.step()
    again.make_ready()
    new = enter(again)
    assert again.holds("ETH") > coins
    assert manage_positions(again)["clean"]
    flatten(again, "kim")
    assert held(again, new).status in OVER
    left = again.holds("ETH") - coins
    assert 0 <= left < Decimal("0.0001"), "the new position's commission dust, and all of the coins that were given up"
    again.assert_agrees()
    assert held(again, old).exit_reason == "written_off"


def test_what_can_be_sold_is_not_given_up(rig: Rig) -> None:
    rig.make_ready()
    eth = enter(rig)
    with pytest.raises(StopError, match="flatten sells it"):
        write_off(rig, eth, "tired of it", "kim")
    with pytest.raises(BadInput, match="needs words"):
        write_off(rig, eth, " ", "kim")
    with pytest.raises(BadInput, match="no position ETH"):
        write_off(rig, "ETH", "delisted", "kim")
    with pytest.raises(BadInput, match="for futures"):
        write_off(rig, eth, "delisted", "kim", settled_at=Decimal(1))
    assert held(rig, eth).status is PositionStatus.OPEN
    assert rig.trading_store.write_offs() == []
    flatten(rig, "kim")
    with pytest.raises(BadInput, match="already"):
        write_off(rig, eth, "delisted", "kim")


def test_a_fill_that_came_before_the_end_is_taken_in_first(rig: Rig) -> None:
    rig.make_ready()
    eth = enter(rig)
    rig.admin.shock(-0.2, ETH)
    rig.admin.set_status(ETH, "BREAK")
    with pytest.raises(BadInput, match="closed meanwhile"):
        write_off(rig, eth, "it does not trade", "kim")
    assert held(rig, eth).exit_reason == "stop"


@pytest.mark.parametrize("status", ["HALT", "BREAK", "CANCEL_ONLY"])
def test_a_holding_in_a_market_that_does_not_trade_is_given_up(rig: Rig, status: str) -> None:
    rig.make_ready()
    eth = enter(rig)
    rig.admin.set_status(ETH, status)
    write_off(rig, eth, "halted for weeks", "kim")
    assert held(rig, eth).exit_reason == "written_off"
    rig.admin.set_status(ETH, "TRADING")
    tend_all(rig)
    assert rig.exchange_orders() == [], "nothing of ours rests for it once its market takes a cancel"
    assert is_clean(rig)
    rig.assert_agrees()
    assert held(rig, eth).status is PositionStatus.CLOSED


def test_a_late_fill_of_what_was_given_up_is_money_and_no_position(rig: Rig) -> None:
    """Its stop could not be cancelled while the market stood, and fires when it opens."""
    rig.make_ready()
    eth = enter(rig)
    before = rig.holds("USDT")
    rig.admin.add_fault("error_before", method="DELETE", path="*", status=503)
    rig.admin.set_status(ETH, "HALT")
    write_off(rig, eth, "halted for weeks", "kim")
    lost = held(rig, eth).realised_quote
    rig.admin.clear_faults()
    rig.admin.set_status(ETH, "TRADING")
    rig.admin.shock(-0.2, ETH)
    assert tend_all(rig) == []
    position = held(rig, eth)
    assert (position.status, position.exit_reason) == (PositionStatus.CLOSED, "written_off")
    assert position.realised_quote - lost == rig.holds("USDT") - before > 0
    assert is_clean(rig)
    rig.assert_agrees()


def test_what_the_exchange_takes_no_order_for_is_given_up(rig: Rig, make_rig: Callable[..., Rig]) -> None:
    rig.make_ready()
    eth = enter(rig, notional=8)
    rig.admin.expire(ETH)
    rig.admin.change_rules(ETH, min_notional="20")
    command = make_rig(paper_account=rig.paper_account)  # a process of its own, which reads today's rules
    write_off(command, eth, "too little to be sold", "kim")
    assert held(rig, eth).exit_reason == "written_off"
    assert is_clean(rig)
    rig.assert_agrees()


def test_a_market_without_a_price_is_waited_for_and_then_given_up(rig: Rig) -> None:
    rig.make_ready()
    eth = enter(rig, notional=200)
    rig.admin.bend_book(ETH, "zero")
    with pytest.raises(StopError, match="had a price at"):
        write_off(rig, eth, "no bids", "kim")
    assert held(rig, eth).status is PositionStatus.OPEN
    rig.admin.step(5)  # an hour and a quarter
    write_off(rig, eth, "no bids for an hour", "kim")
    assert held(rig, eth).exit_reason == "written_off"
    rig.assert_agrees()


def test_a_position_that_another_task_holds_is_not_given_up(rig: Rig, postgres_url: str) -> None:
    rig.make_ready()
    eth = enter(rig)
    rig.admin.delist(ETH)
    database = Database(postgres_url)
    other = PgTradingStore(database, rig.account, rig.params.strategy_version)
    with other.position_lock(eth), pytest.raises(LockNotAcquired):
        write_off(rig, eth, "delisted", "kim")
    database.close()
    assert held(rig, eth).status is PositionStatus.OPEN
