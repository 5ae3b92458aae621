"""What may be taken for a price, and when a jump is believed."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest

from tests.support.trading import NOW, D
from tradewind.core.prices import BELIEVED_AFTER, KnownPrice, believable, is_price, look
from tradewind.core.types import BookTop

SOON = timedelta(seconds=2)


def book(bid: str, ask: str) -> BookTop:
    return BookTop("SOL/USDT", D(bid), D(ask), NOW)


def known(price: str = "100") -> KnownPrice:
    return KnownPrice("SOL/USDT", D(price), D(price), NOW)


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


@pytest.mark.parametrize(
    ("bid", "ask"),
    [("0", "0"), ("99", "0"), ("102", "101"), ("NaN", "101"), ("99", "Infinity")],
)
def test_an_answer_that_is_no_price_changes_nothing(bid: str, ask: str) -> None:
    assert look(book(bid, ask), known(), NOW) == known()
    assert not believable(book(bid, ask), None, NOW)
    assert not believable(book(bid, ask), known(), NOW)


def test_a_crash_of_a_quarter_in_one_look_is_a_price() -> None:
    assert believable(book("75", "75.1"), known(), NOW)
    assert believable(book("50", "50.1"), known(), NOW), "exactly half is no more than half"
    assert believable(book("100", "200"), known(), NOW)


@pytest.mark.parametrize(("bid", "ask"), [("49.9", "50.1"), ("99", "200.1"), ("0.01", "100"), ("1000", "1001")])
def test_a_jump_is_believed_when_a_later_look_still_shows_it(bid: str, ask: str) -> None:
    jumped = book(bid, ask)
    first = look(jumped, known(), NOW)
    assert first is not None
    assert first.suspect is not None
    assert (first.bid, first.ask) == (100, 100), "the last known price stays until then"
    assert not believable(jumped, first, NOW + SOON)
    assert look(jumped, first, NOW + SOON) == first, "the patience counts from the first look"
    assert believable(jumped, first, NOW + BELIEVED_AFTER)
    assert look(jumped, first, NOW + BELIEVED_AFTER) == KnownPrice("SOL/USDT", D(bid), D(ask), NOW)


def test_one_absurd_answer_is_never_believed() -> None:
    after = look(book("1", "1.1"), known(), NOW)
    back = look(book("99", "101"), after, NOW + SOON)
    assert back is not None
    assert back.suspect is None
    again = look(book("1", "1.1"), back, NOW + 2 * BELIEVED_AFTER)
    assert again is not None
    assert again.suspect is not None
    assert again.suspect.since == NOW + 2 * BELIEVED_AFTER, "another one begins anew"


def test_absurd_answers_of_several_kinds_do_not_confirm_each_other() -> None:
    after = look(book("1", "1.1"), known(), NOW)
    assert not believable(book("5000", "5001"), after, NOW + BELIEVED_AFTER)
    assert not believable(book("0", "0"), after, NOW + BELIEVED_AFTER)


def test_patience_survives_a_clock_that_is_set_back() -> None:
    after = look(book("1", "1.1"), known(), NOW)
    later = look(book("1", "1.1"), after, NOW - timedelta(hours=1))
    assert later is not None
    assert later.suspect is not None
    assert later.suspect.since == NOW - timedelta(hours=1)
