"""Earlier equity in the money of now, and the breaker measured against it over any history of an account."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.trading import NOW, PARAMS, D
from tests.support.unit_value import MONEY, RESULT_FRAC, Fund
from tradewind.core.risk import Breach, breached
from tradewind.core.transfers import (
    EquityLink,
    EquityRecord,
    Reading,
    first_comparable,
    in_todays_money,
    result_since,
    rounded,
)


def reading(equity: str, link: int = 0) -> Reading:
    return Reading(NOW, D(equity), link)


def link(number: int, before: str, after: str | None) -> EquityLink:
    return EquityLink(number, D(before), None if after is None else D(after))


def test_a_reading_is_scaled_by_every_later_link() -> None:
    links = [link(3, "9800", "19600"), link(7, "20000", "5000")]
    assert in_todays_money(reading("10000"), links) == 5000
    assert in_todays_money(reading("20000", 3), links) == 5000
    assert in_todays_money(reading("5000", 7), links) == 5000


def test_scaling_is_exact_where_no_decimal_is() -> None:
    counted = in_todays_money(reading("10000"), [link(1, "3", "10")])
    assert counted == Fraction(100_000, 3)
    assert rounded(counted) == D("33333.33333333333333333333333")


@pytest.mark.parametrize(("before", "after"), [("0", "10000"), ("-3", "9997"), ("10000", None)])
def test_nothing_is_compared_across_a_link_that_began_with_nothing_or_is_not_marked(
    before: str, after: str | None
) -> None:
    links = [link(1, "1", "2"), link(2, before, after)]
    assert in_todays_money(reading("10000", 1), links) is None
    assert in_todays_money(reading("10000", 2), links) == 10_000
    assert first_comparable(links) == 2


def test_an_emptied_account_leaves_references_of_zero() -> None:
    assert in_todays_money(reading("10000"), [link(1, "9000", "0")]) == 0
    assert in_todays_money(reading("10000"), [link(1, "9000", "-1")]) == 0


def test_the_result_since_a_reading_is_the_change_less_what_was_paid() -> None:
    links = [link(1, "9800", "109800"), link(2, "0", "50")]
    assert result_since(reading("10000"), D("109700"), links[:1]) == -300
    assert result_since(reading("109800", 1), D("109700"), links[:1]) == -100
    assert result_since(reading("10"), D("60"), [link(1, "10", "0"), link(2, "0", "50")]) == 10


def test_a_record_takes_the_last_reading_before_midnight_for_an_opening_that_is_missing() -> None:
    record = EquityRecord((), None, reading("10500"), (reading("10600"),))
    assert (record.day_open_quote, record.peak_quote) == (10_500, 10_600)
    assert record.blind_spots() == []


def test_what_cannot_be_measured_is_said() -> None:
    assert len(EquityRecord((), None, None, ()).blind_spots()) == 2
    (words,) = EquityRecord((), reading("0"), None, (reading("5"),)).blind_spots()
    assert "the day's opening equity is 0.00" in words
    assert "accept" in words
    open_link = EquityRecord((link(1, "10000", None),), reading("10000"), None, (reading("10000"),))
    assert all("was not marked yet" in words for words in open_link.blind_spots())


def test_of_the_highest_of_each_link_the_highest_in_todays_money_is_the_peak() -> None:
    links = (link(1, "10000", "1000"), link(2, "1000", "2000"))
    record = EquityRecord(links, None, None, (reading("12000"), reading("1300", 1), reading("2100", 2)))
    assert record.peak_quote == 2600


# ------------------------------------------------------------------------------------------------------- any history
class Account:
    """Equity as the store keeps it: readings with their link, links with both their ends."""

    def __init__(self, equity: Decimal) -> None:
        self.equity, self.links = equity, [EquityLink(0, D(1), D(1))]
        self.openings: list[Reading] = []
        self.readings: list[Reading] = []
        self.most: Decimal | None = None

    @property
    def now(self) -> Reading:
        at = NOW + timedelta(seconds=len(self.readings))
        return Reading(at, self.equity, self.links[-1].number)

    def pay_in(self, amount: Decimal) -> None:
        before = self.equity
        self.equity += amount
        self.links.append(EquityLink(self.links[-1].number + 1, before, self.equity))
        if before <= 0:
            self.open()

    def mark(self) -> None:
        self.readings.append(self.now)
        if not self.openings:
            self.open()

    def open(self) -> None:
        self.openings.append(self.now)
        self.readings.append(self.now)

    def resume(self) -> None:
        self.openings, self.readings = [], []
        self.open()

    @property
    def record(self) -> EquityRecord:
        highest: dict[int, Reading] = {}
        for kept in self.readings:
            if kept.link not in highest or kept.equity_quote > highest[kept.link].equity_quote:
                highest[kept.link] = kept
        opening = self.openings[-1] if self.openings else None
        return EquityRecord(tuple(self.links), opening, None, tuple(highest.values()))

    def test(self) -> Breach | None:
        record, most = self.record, self.most
        usable = None if most is None else Fraction(most)
        return breached(Fraction(self.equity), record.day_open_quote, record.peak_quote, PARAMS, usable)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("trade"), RESULT_FRAC),
        st.tuples(st.just("lose_all"), st.just(D(1))),
        st.tuples(st.just("mark"), st.just(D(0))),
        st.tuples(st.just("deposit"), MONEY),
        st.tuples(st.just("withdraw"), st.decimals("0", "1", places=3)),
        st.tuples(st.just("day"), st.just(D(0))),
        st.tuples(st.just("resume"), st.just(D(0))),
        st.tuples(st.just("cap"), st.one_of(st.none(), MONEY)),
    ),
    max_size=40,
)


def step(account: Account, fund: Fund, what: str, number: Decimal | None) -> None:
    if what == "cap":
        account.most = number
        fund.most = None if number is None else Fraction(number)
        return
    assert number is not None
    if what == "trade":
        result = (account.equity * number).quantize(D("0.01"))
        account.equity += result
        fund.win(Fraction(result))
    elif what == "lose_all":
        fund.win(-Fraction(account.equity))
        account.equity = D(0)
    elif what in ("deposit", "withdraw"):
        amount = number if what == "deposit" else -(max(account.equity, D(0)) * number).quantize(D("0.01"))
        if amount:
            account.pay_in(amount)
            fund.pay_in(Fraction(amount))
    elif what == "mark":
        account.mark()
        fund.mark()
    elif what == "day":
        account.open()
        fund.begin_day()
        fund.mark()
    else:
        account.resume()
        fund.resume()


@settings(max_examples=400, deadline=None)
@given(start=st.one_of(st.just(D(0)), MONEY), steps=STEPS)
def test_the_breaker_trips_at_the_configured_loss_of_the_money_that_is_there(
    start: Decimal, steps: list[tuple[str, Decimal | None]]
) -> None:
    account, fund = Account(start), Fund(Fraction(start))
    account.mark()
    fund.mark()
    for what, number in steps:
        step(account, fund, what, number)
        assert Fraction(account.equity) == fund.money
        breach = account.test()
        assert (breach is not None) is fund.is_breached, (what, number)
    if account.equity <= 0:
        account.pay_in(D(1000))
        fund.pay_in(Fraction(1000))
    account.mark()
    fund.mark()
    assert account.record.blind_spots() == [], "money that is there is always measured"
    # From whatever came before: at the limit it trips, the least bit above it does not.
    margin = fund.loss_to_breach()
    if margin > 0:
        record, most = account.record, None if account.most is None else Fraction(account.most)
        at_limit = Fraction(account.equity) - margin
        references = (record.day_open_quote, record.peak_quote, PARAMS, most)
        assert breached(at_limit, *references) is not None
        assert breached(at_limit + Fraction(1, 10**30), *references) is None
    else:
        assert account.test() is not None
