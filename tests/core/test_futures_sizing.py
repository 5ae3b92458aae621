"""Margin in deciding: what an entry costs, which sides may be taken, and how near liquidation a stop may lie."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.support.trading import D, cycle, instrument, portfolio, prediction, symbol_inputs
from tradewind.core.decision import decide
from tradewind.core.futures import make_brackets
from tradewind.core.futures_sizing import allowed_sides, check_liquidation
from tradewind.core.params import StrategyParams
from tradewind.core.sizing import cost_frac
from tradewind.core.types import Decision, Instrument, MarginRules, Outcome, Side

BRACKETS = make_brackets([("0", "0.01", 50), ("50000", "0.02", 25)])
BOTH = (Side.LONG, Side.SHORT)


def contract(leverage: int) -> Instrument:
    return instrument(margin=MarginRules(leverage, BRACKETS))


def decided(leverage: int, *, atr: float = 1.0, short: bool = False, **changes: Any) -> Decision:
    inputs = symbol_inputs(instrument=contract(leverage))
    assert inputs.numbers is not None
    numbers = replace(inputs.numbers, atr_quote=atr, trend_ema=105.0 if short else 95.0)
    inputs = replace(inputs, numbers=numbers)
    if short:
        falling = prediction(p_long=0.1, p_short=0.6, expected_r_long=-0.4, expected_r_short=0.4)
        inputs = replace(inputs, prediction=falling)
    (decision,) = decide(cycle(inputs, allowed_sides=BOTH, **changes))
    return decision


@pytest.mark.parametrize("short", [False, True])
def test_a_stop_well_before_liquidation_passes_and_says_how_far(short: bool) -> None:
    decision = decided(3, short=short)
    assert decision.outcome is Outcome.INTENT, decision.reason
    verdict = decision.verdicts[-1]
    assert (verdict.filter, verdict.passed) == ("liquidation", True)
    assert decision.intent is not None
    liquidation = float(verdict.numbers["liquidation_price"] or 0)
    stop = float(decision.intent.stop_price)
    assert (liquidation > stop > 100) if short else (liquidation < stop < 100)


@pytest.mark.parametrize("short", [False, True])
def test_a_stop_beyond_seventy_percent_of_the_way_is_refused(short: bool) -> None:
    """At 30× liquidation is some 2 % away, and the stop lies 2.5 % from the close."""
    decision = decided(30, short=short)
    assert decision.outcome is Outcome.DECLINED
    assert decision.reason.startswith("liquidation: the stop is")
    assert float(decision.verdicts[-1].numbers["share_of_the_way"] or 0) > 0.7
    lenient = StrategyParams(max_stop_to_liquidation_frac=5.0)
    assert decided(30, short=short, params=lenient).outcome is Outcome.INTENT


def test_an_entry_takes_its_margin_and_commission() -> None:
    assert cost_frac(contract(4)) == D("0.25") + D("0.001")
    assert cost_frac(instrument()) == D("1.001")
    money = portfolio(free_quote=D(500))
    spot = decide(cycle(symbol_inputs(), portfolio=money))[0].intent
    margined = decided(3, portfolio=money).intent
    assert spot is not None
    assert margined is not None
    assert margined.notional_quote > 2 * spot.notional_quote
    assert margined.notional_quote * cost_frac(contract(3)) <= 500


def test_shorts_need_margin_everywhere() -> None:
    assert allowed_sides({"A": contract(3)}) == BOTH
    assert allowed_sides({"A": contract(3), "B": instrument()}) == (Side.LONG,)
    assert allowed_sides({}) == (Side.LONG,)
    with pytest.raises(ValueError, match="no future"):
        check_liquidation(Side.LONG, None, instrument(), StrategyParams())
