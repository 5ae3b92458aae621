"""Margin, liquidation and funding against the published formulas and examples."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradewind.core.futures import (
    FUNDING_INTERVAL_MS,
    bracket_of,
    funding_payment,
    funding_rate,
    funding_times,
    liquidation_of_entry,
    liquidation_price,
    liquidation_price_in,
    maintenance_margin,
    make_brackets,
    stop_share_of_liquidation,
    unrealised_pnl,
)
from tradewind.core.types import MaintenanceBracket, MarginRules, Side

D = Decimal
CENT = D("0.01")
BRACKETS = make_brackets(
    [("0", "0.004", 125), ("50000", "0.005", 100), ("250000", "0.01", 50), ("1000000", "0.025", 20)]
)
WALLET = D("1535443.01")
ETH = (MaintenanceBracket(D(0), D("0.10"), D("135365")), D("3683.979"), D("1456.84"))
BTC = (MaintenanceBracket(D(0), D("0.025"), D("16300")), D("109.488"), D("32481.980"))


@pytest.mark.parametrize(
    ("contract", "maintenance", "pnl", "expected"),
    [
        (ETH, "71200.81144", "-56354.57", "1153.26"),
        (BTC, "356512.508", "-448192.89", "26316.89"),
        (ETH, "0", "0", "1114.78"),
        (BTC, "0", "0", "18778.73"),
    ],
)
def test_the_published_liquidation_examples(
    contract: tuple[MaintenanceBracket, Decimal, Decimal], maintenance: str, pnl: str, expected: str
) -> None:
    bracket, quantity, entry = contract
    price = liquidation_price_in(bracket, WALLET, quantity, entry, others_maintenance=D(maintenance), others_pnl=D(pnl))
    assert price.quantize(CENT) == D(expected)


def test_the_published_maintenance_amount() -> None:
    """A position of 500,000 lies in the third bracket, whose amount is 250,000 × (1 % − 0.5 %) + 50."""
    assert bracket_of(D(500_000), BRACKETS).amount == 1_300
    assert maintenance_margin(D(500_000), BRACKETS) == 500_000 * D("0.01") - 1_300


sizes = st.decimals("0.001", "100", places=3)
prices = st.decimals("100", "50000", places=2)


@given(sizes, prices, st.integers(1, 50), st.booleans())
def test_at_the_liquidation_price_the_margin_is_the_maintenance(
    size: Decimal, entry: Decimal, leverage: int, is_long: bool
) -> None:
    margin = size * entry / leverage
    quantity = size if is_long else -size
    price = liquidation_price(margin, quantity, entry, BRACKETS)
    if price is None:
        # No price is low enough: what is set aside pays for a fall to nothing.
        assert is_long
        assert margin + unrealised_pnl(quantity, entry, D("0.0000001")) > 0 or leverage == 1
        return
    balance = margin + unrealised_pnl(quantity, entry, price)
    assert abs(balance - maintenance_margin(quantity * price, BRACKETS)) < D("1e-12")
    beyond = price * (D("0.999") if is_long else D("1.001"))
    assert margin + unrealised_pnl(quantity, entry, beyond) < maintenance_margin(quantity * beyond, BRACKETS)


def test_more_leverage_brings_liquidation_nearer() -> None:
    near = [
        liquidation_of_entry(Side.SHORT, D(1), D(100), MarginRules(leverage, BRACKETS)) for leverage in (2, 3, 5, 10)
    ]
    assert all(price is not None and price > 100 for price in near)
    assert near == sorted(near, reverse=True)  # type: ignore[type-var]
    long = liquidation_of_entry(Side.LONG, D(1), D(100), MarginRules(3, BRACKETS))
    assert long is not None
    assert D(66) < long < D(68)
    assert liquidation_of_entry(Side.LONG, D(1), D(100), MarginRules(1, BRACKETS)) is None


def test_funding_rate_is_the_interest_near_balance_and_bounded_far_from_it() -> None:
    assert funding_rate(D(0)) == D("0.0001")
    assert funding_rate(D("0.0004")) == D("0.0001")
    assert funding_rate(D("0.001")) == D("0.0005")
    assert funding_rate(D("-0.001")) == D("-0.0005")
    assert funding_rate(D("0.05")) == D("0.003")


def test_longs_pay_shorts_when_the_rate_is_positive() -> None:
    assert funding_payment(D(2), D(100), D("0.0001")) == D("-0.02")
    assert funding_payment(D(-2), D(100), D("0.0001")) == D("0.02")


def test_funding_moments_exclude_the_start_and_include_the_end() -> None:
    step = FUNDING_INTERVAL_MS
    assert list(funding_times(0, step)) == [step]
    assert list(funding_times(step, 2 * step)) == [2 * step]
    assert list(funding_times(step, 2 * step - 1)) == []


def test_share_of_the_way_to_liquidation() -> None:
    assert stop_share_of_liquidation(D(100), D(86), D(80)) == D("0.7")
    assert stop_share_of_liquidation(D(100), D(107), D(110)) == D("0.7")
    assert stop_share_of_liquidation(D(100), D(90), None) == 0
