from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.trading import NOW, PARAMS, D, instrument, position
from tradewind.core.brackets import held_after_fee, plan_protection
from tradewind.core.futures import make_brackets
from tradewind.core.params import Geometry
from tradewind.core.positions import Costs
from tradewind.core.sizing import Room, Sizing, cost_frac, risk_per_unit, size_entry
from tradewind.core.types import BookTop, Instrument, MarginRules, Side, Verdict

SOL = instrument()
GEOMETRY = Geometry(2.5, 2.0)
MARGIN = MarginRules(3, make_brackets([("0", "0.01", 50)]))
SMALL_RISKS = replace(PARAMS, min_risk_share_frac=0.001)
WIDE = Room(D(10_000), D(10_000), D(10_000), D(100))


def size(room: Room = WIDE, **changes: object) -> tuple[Sizing | None, Verdict]:
    given_ = {
        "side": Side.LONG,
        "reference": D(100),
        "atr_quote": 1.0,
        "volume_base": 1e9,
        "geometry": GEOMETRY,
        "room": room,
        "instrument": SOL,
        "params": PARAMS,
    } | changes
    return size_entry(**given_)  # type: ignore[arg-type]


def test_one_percent_is_lost_when_the_stop_fills_as_planned() -> None:
    sizing, verdict = size()
    assert sizing is not None
    assert verdict.passed
    assert sizing.bound_by == "risk"
    assert (sizing.entry_limit_price, sizing.stop_price) == (D("100.10"), D("97.50"))
    # 2.60 of distance, 0.1 % on both sides, half a spread of 2 bps and 2 bps of slippage on the stop.
    unit = D("2.60") + D("0.19760") + D("97.50") * D("0.0003")
    assert risk_per_unit(Side.LONG, D("100.10"), D("97.50"), Costs.of(PARAMS)) == unit
    assert sizing.risk_quote == sizing.quantity * unit
    assert 0 <= 100 - sizing.risk_quote < unit * SOL.step_size


@pytest.mark.parametrize(
    ("changes", "bound_by"),
    [
        ({"room": replace(WIDE, free_quote=D(500))}, "balance"),
        ({"room": replace(WIDE, exposure_quote=D(500))}, "exposure"),
        ({"volume_base": 100.0}, "volume"),
        ({"instrument": instrument(max_quantity=D(7))}, "max_quantity"),
        ({"instrument": instrument(max_market_quantity=D(7))}, "max_quantity"),
    ],
)
def test_the_tightest_cap_decides(changes: dict[str, object], bound_by: str) -> None:
    sizing, verdict = size(**changes)  # type: ignore[arg-type]
    assert verdict.numbers["bound_by"] == bound_by
    if sizing is not None:
        assert sizing.bound_by == bound_by
    else:
        assert "could be risked" in verdict.reason


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"atr_quote": 50.0}, "losing side"),
        ({"instrument": instrument(active=False)}, "does not trade now"),
        ({"room": replace(WIDE, risk_quote=D("0.1"), equity_quote=D(10))}, "minimum"),
        ({"room": replace(WIDE, risk_quote=D(-5))}, "minimum"),
        ({"room": replace(WIDE, risk_quote=D(9))}, "could be risked"),
    ],
)
def test_what_cannot_be_sized_says_why(changes: dict[str, object], words: str) -> None:
    sizing, verdict = size(**changes)  # type: ignore[arg-type]
    assert sizing is None
    assert not verdict.passed
    assert words in verdict.reason


@given(
    side=st.sampled_from(list(Side)),
    on_margin=st.booleans(),
    reference=st.decimals("0.5", "60000", places=2),
    atr_frac=st.floats(0.001, 0.05),
    equity=st.decimals("100", "1000000", places=2),
    free=st.decimals("0", "1000000", places=2),
    exposure=st.decimals("0", "1000000", places=2),
    volume=st.floats(0, 1e7),
    step=st.sampled_from(["1", "0.1", "0.00001"]),
    tick=st.sampled_from(["0.01", "0.1", "0.0001"]),
)
@settings(deadline=None, max_examples=300)
def test_no_cap_is_ever_exceeded_and_everything_is_on_the_grid(
    side: Side,
    on_margin: bool,
    reference: D,
    atr_frac: float,
    equity: D,
    free: D,
    exposure: D,
    volume: float,
    step: str,
    tick: str,
) -> None:
    margin = MARGIN if on_margin or side is Side.SHORT else None  # nothing is sold short on spot
    rules: Instrument = instrument(step_size=D(step), min_quantity=D(step), tick_size=D(tick), margin=margin)
    room = Room(equity, free, exposure, equity * D("0.01"))
    sizing, verdict = size(
        room,
        side=side,
        reference=reference,
        atr_quote=float(reference) * atr_frac,
        volume_base=volume,
        instrument=rules,
    )
    assert verdict.passed == (sizing is not None)
    if sizing is None:
        return
    assert sizing.quantity % rules.step_size == 0
    for price in (sizing.entry_limit_price, sizing.stop_price, *(lot.target_price for lot in sizing.lots)):
        assert price % rules.tick_size == 0
    assert sum(lot.quantity for lot in sizing.lots) == sizing.quantity
    assert sizing.quantity * sizing.entry_limit_price * cost_frac(rules) <= free
    assert sizing.quantity * sizing.entry_limit_price <= exposure
    assert float(sizing.quantity) <= volume * PARAMS.max_bar_volume_frac * (1 + 1e-12)
    assert sizing.risk_quote <= room.risk_quote
    book = BookTop("SOL/USDT", reference, reference, NOW)
    for lot in sizing.lots:
        assert lot.quantity * sizing.entry_limit_price >= rules.min_notional_quote
        held = held_after_fee(lot.quantity, rules)
        own = position(side=side, quantity=held)
        pair = plan_protection(own, lot.lot, held, sizing.stop_price, lot.target_price, 1, book, rules, NOW)
        assert pair is not None, "what is entered can be protected, and is not left at market at once"
        assert pair[0].quantity == held
        if margin is None:
            assert held * sizing.stop_price >= rules.min_notional_quote


def test_a_short_near_the_least_notional_is_entered_with_its_stop() -> None:
    """At its target it is worth less than the minimum, which what reduces a position need not be."""
    rules = instrument(min_notional_quote=D(100), margin=MARGIN)
    sizing, _ = size(replace(WIDE, exposure_quote=D(101)), side=Side.SHORT, instrument=rules, params=SMALL_RISKS)
    assert sizing is not None
    assert 100 <= sizing.notional_quote <= 101
    (lot,) = sizing.lots
    assert lot.quantity * lot.target_price < 100
    own = position(side=Side.SHORT, quantity=lot.quantity)
    book = BookTop("SOL/USDT", D(100), D(100), NOW)
    assert plan_protection(own, 0, lot.quantity, sizing.stop_price, lot.target_price, 1, book, rules, NOW) is not None


def test_a_short_whose_entry_is_under_the_least_notional_is_refused() -> None:
    """Its limit lies under the close: at the close it would be over the minimum, and the exchange asks at the limit."""
    rules = instrument(min_notional_quote=D(100), margin=MARGIN)
    exposure = D("1.0005") * D("99.90")
    sizing, verdict = size(
        replace(WIDE, exposure_quote=exposure), side=Side.SHORT, instrument=rules, params=SMALL_RISKS
    )
    assert sizing is None
    assert "minimum" in verdict.reason


def test_nothing_is_entered_that_a_stop_could_not_sell_in_one_order() -> None:
    """A stop that fires is a market order: what one may not sell must not be held behind one."""
    sizing, verdict = size(instrument=instrument(max_market_quantity=D(7)), params=SMALL_RISKS)
    assert sizing is not None
    assert (sizing.quantity, verdict.numbers["bound_by"]) == (7, "max_quantity")
