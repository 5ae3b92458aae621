"""What may be taken for a price."""

from __future__ import annotations

from decimal import Decimal

import pytest

from tradewind.core.prices import is_price


@pytest.mark.parametrize(
    ("bid", "ask", "expected"),
    [
        ("99.9", "100", True),
        ("100", "100", True),
        ("1e-9", "2e-9", True),
        ("0", "0", False),
        ("0", "100", False),
        ("100", "0", False),
        ("-1", "100", False),
        ("100.1", "100", False),
        ("NaN", "100", False),
        ("100", "NaN", False),
        ("100", "Infinity", False),
        ("-Infinity", "100", False),
    ],
)
def test_only_a_finite_uncrossed_pair_above_zero_is_a_price(bid: str, ask: str, expected: bool) -> None:
    assert is_price(Decimal(bid), Decimal(ask)) is expected
