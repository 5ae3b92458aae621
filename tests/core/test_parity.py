"""Differences are found exactly, and explained only by what the rows show."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

from tests.support.trading import BAR, NOW, cycle, fill, order, symbol_inputs
from tradewind.core.decision import decide
from tradewind.core.parity import Ledger, compare
from tradewind.core.types import OrderState, Outcome

CUTOFF = NOW + timedelta(hours=1)
DECISION = decide(cycle(symbol_inputs()))[0]
ENTRY = order()
FILL = fill("1", is_buy=True, quantity="10", price="100")
SAME = Ledger([DECISION], [ENTRY], [FILL])


def test_the_same_is_no_difference() -> None:
    report = compare(SAME, SAME, CUTOFF)
    assert (report.decisions, report.orders, report.fills, report.differences) == (1, 1, 1, ())


def test_rounding_is_forgiven_and_money_is_not() -> None:
    assert DECISION.prediction is not None
    nearly = replace(DECISION, prediction=replace(DECISION.prediction, p_long=DECISION.prediction.p_long * (1 + 1e-8)))
    assert compare(replace(SAME, decisions=[nearly]), SAME, CUTOFF).differences == ()
    dearer = replace(FILL, price=FILL.price + Decimal("0.01"))
    (found,) = compare(replace(SAME, fills=[dearer]), SAME, CUTOFF).differences
    assert (found.field, found.live, found.replay, found.cause) == ("price", "100.01", "100", "")


def test_an_input_that_differs_stays_unexplained_after_an_explained_execution() -> None:
    late = replace(FILL, at=FILL.at + timedelta(seconds=9), price=Decimal(101))
    assert DECISION.prediction is not None
    other = replace(DECISION, bar=BAR + timedelta(minutes=15))
    peeked = replace(other, prediction=replace(DECISION.prediction, p_long=0.9))
    live = Ledger([DECISION, peeked], [ENTRY], [late])
    report = compare(live, Ledger([DECISION, other], [ENTRY], [FILL]), CUTOFF)
    causes = {d.field: d.cause for d in report.differences}
    assert "+9.0 s" in causes["price"]
    assert causes["prediction.p_long"] == ""
    assert report.unexplained == 1


def test_a_decision_follows_from_an_execution_at_its_own_moment() -> None:
    closes = DECISION.bar + timedelta(minutes=15)
    left = replace(FILL, at=closes)
    late = replace(left, at=closes + timedelta(seconds=4), price=Decimal(101))
    poorer = replace(DECISION, outcome=Outcome.DECLINED, reason="positions: 4 of 4", intent=None)
    report = compare(Ledger([poorer], [ENTRY], [late]), Ledger([DECISION], [ENTRY], [left]), CUTOFF)
    assert {d.field for d in report.differences} >= {"at", "price", "outcome", "reason"}
    assert report.unexplained == 0
    assert "follows from fill" in next(d.cause for d in report.differences if d.field == "outcome")


def test_a_missed_cycle_and_a_refused_entry_have_their_cause() -> None:
    report = compare(Ledger([], [], []), Ledger([DECISION], [], []), CUTOFF)
    assert [d.cause for d in report.differences] == ["live missed this cycle"]
    refused = replace(ENTRY, state=OrderState.EXPIRED, sent_at=None, reason="the watch is silent")
    report = compare(Ledger([], [refused], []), Ledger([], [ENTRY], []), CUTOFF)
    assert all("the watch is silent" in d.cause for d in report.differences)


def test_what_lies_behind_the_cutoff_is_not_compared() -> None:
    assert compare(SAME, Ledger([], [], []), BAR).differences == ()
