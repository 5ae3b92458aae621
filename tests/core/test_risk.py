from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.trading import NOW, PARAMS, D, position
from tradewind.core.positions import Costs
from tradewind.core.risk import (
    BreachKind,
    Holding,
    breached,
    consecutive_losses,
    exposure_of,
    ledger_equity,
    loss_pause_until,
    sizing_equity,
    spendable_quote,
)
from tradewind.core.sizing import risk_per_unit
from tradewind.core.types import BookTop, ClosedTrade, Side

BOOKS = {"SOL/USDT": BookTop("SOL/USDT", D("99"), D("101"), NOW)}


def test_equity_marks_a_long_at_bid_and_a_short_at_ask() -> None:
    assert ledger_equity(D(1000), D(-500), [Holding("SOL/USDT", D(5))], BOOKS) == D(995)
    assert ledger_equity(D(1000), D(500), [Holding("SOL/USDT", D(-5))], BOOKS) == D(995)


def test_granted_capital_caps_what_is_sized_on_and_spent() -> None:
    assert sizing_equity(D(1200), D(1000)) == D(1000)
    assert sizing_equity(D(900), D(1000)) == sizing_equity(D(900), None) == D(900)
    assert sizing_equity(D(-5), D(1000)) == 0
    assert spendable_quote(D(9000), D(400), D(1000)) == 600
    assert spendable_quote(D(100), D(400), D(1000)) == 100
    assert spendable_quote(D(9000), D(1400), D(1000)) == 0
    assert spendable_quote(D(9000), D(1400), None) == 9000
    assert spendable_quote(D(-1), D(0), None) == 0


def test_an_unpriced_holding_is_never_worth_zero() -> None:
    with pytest.raises(KeyError, match="ETH/USDT"):
        ledger_equity(D(1000), D(0), [Holding("ETH/USDT", D(1))], BOOKS)
    assert ledger_equity(D(1000), D(0), [Holding("ETH/USDT", D(0))], BOOKS) == D(1000)


@pytest.mark.parametrize(
    ("equity", "expected"),
    [
        ("9700.01", None),
        ("9700", BreachKind.DAILY_LOSS),  # at the limit counts
        ("9000.01", BreachKind.DAILY_LOSS),
        ("9000", BreachKind.DRAWDOWN),
    ],
)
def test_the_limits_count_when_reached(equity: str, expected: BreachKind | None) -> None:
    breach = breached(D(equity), D(10_000), D(10_000), PARAMS)
    assert (breach.kind if breach else None) is expected


def test_a_missing_reference_is_not_compared_with() -> None:
    assert breached(D(1), None, None, PARAMS) is None
    assert breached(D(1), D(0), None, PARAMS) is None
    breach = breached(D(9000), None, D(10_000), PARAMS)
    assert breach is not None
    assert "-10.00 % against the peak" in breach.reason


def test_the_limits_are_shares_of_what_trading_may_use() -> None:
    """With 5,000 granted of 100,000, 3 % of what is at risk is 150."""
    assert breached(D("99850.01"), D(100_000), D(100_000), PARAMS, D(5000)) is None
    breach = breached(D(99_850), D(100_000), D(100_000), PARAMS, D(5000))
    assert breach is not None
    assert breach.change_frac == D("-0.03")
    assert "-3.00 % of the 5000.00 that trading may use against the day's opening equity 100000.00" in breach.reason
    drawdown = breached(D(99_500), D(100_000), D(100_000), PARAMS, D(5000))
    assert drawdown is not None
    assert drawdown.kind is BreachKind.DRAWDOWN
    assert breached(D(9700), D(10_000), D(10_000), PARAMS, D(50_000)) == breached(D(9700), D(10_000), D(10_000), PARAMS)


@given(st.decimals("1", "100000", places=2), st.decimals("1", "100000", places=2), st.decimals("1", "2", places=4))
def test_a_breach_depends_on_the_ratio_alone_and_falling_further_never_ends_it(equity: D, start: D, scale: D) -> None:
    once = breached(equity, start, start, PARAMS)
    scaled = breached(equity * scale, start * scale, start * scale, PARAMS)
    assert (once is None) == (scaled is None)
    if once is not None:
        assert breached(equity / 2, start, start, PARAMS) is not None


def trades(*results: int) -> list[ClosedTrade]:
    return [
        ClosedTrade(f"p{i}", "SOL/USDT", NOW + timedelta(hours=i), float(result), D(result))
        for i, result in enumerate(results)
    ]


def test_losses_in_a_row_end_with_anything_else() -> None:
    assert consecutive_losses(trades(-1, 1, -1, -1)) == 2
    assert consecutive_losses(trades(-1, -1, 0)) == 0
    assert consecutive_losses([]) == 0


def test_the_fifth_loss_pauses_for_a_day_from_its_close() -> None:
    assert loss_pause_until(trades(-1, -1, -1, -1), PARAMS) is None
    paused = loss_pause_until(trades(-1, -1, -1, -1, -1), PARAMS)
    assert paused == NOW + timedelta(hours=4, days=1)
    # One more, open already when the pause began, does not prolong it.
    assert loss_pause_until(trades(-1, -1, -1, -1, -1, -1), PARAMS) == paused
    assert loss_pause_until(list(reversed(trades(-1, -1, -1, -1, -1))), PARAMS) == paused


def test_a_resume_forgives_what_was_before_it() -> None:
    row = trades(-1, -1, -1, -1, -1)
    assert loss_pause_until(row, PARAMS, lifted_at=NOW + timedelta(hours=4)) is None
    assert loss_pause_until(row, PARAMS, lifted_at=NOW - timedelta(hours=1)) is not None


def test_exposure_is_what_the_stop_would_still_lose() -> None:
    open_ = exposure_of(position(), PARAMS)
    unit = risk_per_unit(Side.LONG, D("100"), D("97.5"), Costs.of(PARAMS))
    assert open_.risk_quote == D("9.99") * unit
    assert open_.notional_quote == D("999")
    assert exposure_of(position(stop_price=D("101")), PARAMS).risk_quote == 0
