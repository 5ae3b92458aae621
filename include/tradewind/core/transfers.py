"""Earlier equity in the money of now: money that comes or goes is no result.

Each time some does, every reading before it is scaled by the ratio of equity after to equity before (an `EquityLink`),
as the value of a fund's unit is kept over its subscriptions: 9,800 of 10,000, with 9,800 paid in, is 19,600 of 20,000.
So a loss stays the share that it was of the money that is there, and the breaker's limits are shares of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from typing import Final

ZERO: Final = Decimal(0)


@dataclass(frozen=True, slots=True)
class EquityLink:
    """Money came or went: equity just before and just after (None until it is marked). Numbers ascend."""

    number: int
    before_quote: Decimal
    after_quote: Decimal | None


@dataclass(frozen=True, slots=True)
class Reading:
    """Equity as it was marked, and the number of the last link before it (0 before the first)."""

    at: datetime
    equity_quote: Decimal
    link: int


def in_todays_money(reading: Reading, links: Iterable[EquityLink]) -> Fraction | None:
    """What a reading counts after everything that was paid in and out since: exact.

    Each later link scales it by after / before; one that leaves nothing (or less) leaves it zero. None across a link
    that began with nothing, or whose end is not marked yet: nothing there can be compared with what is now.
    """
    counted = Fraction(reading.equity_quote)
    for link in links:
        if link.number <= reading.link:
            continue
        if link.before_quote <= 0 or link.after_quote is None:
            return None
        counted *= Fraction(max(link.after_quote, ZERO)) / Fraction(link.before_quote)
    return counted


def first_comparable(links: Iterable[EquityLink]) -> int:
    """The number of the link from which on readings can be compared with what is now: before it, nothing was there."""
    return max((link.number for link in links if link.before_quote <= 0 or link.after_quote is None), default=0)


def result_since(reading: Reading, equity_quote: Decimal, links: Iterable[EquityLink]) -> Decimal:
    """What was won or lost between a reading and `equity_quote` now: the change less what was paid in and out."""
    paid = (
        link.after_quote - link.before_quote
        for link in links
        if link.number > reading.link and link.after_quote is not None
    )
    return equity_quote - reading.equity_quote - sum(paid, ZERO)


def rounded(counted: Fraction | None) -> Decimal | None:
    """A scaled reading as a decimal, for display and for records: the breaker compares the fraction."""
    return None if counted is None else as_decimal(counted)


def as_decimal(money: Decimal | Fraction) -> Decimal:
    """Money as a decimal, rounded where no decimal is equal to it."""
    return money if isinstance(money, Decimal) else Decimal(money.numerator) / Decimal(money.denominator)


@dataclass(frozen=True, slots=True)
class EquityRecord:
    """What equity is measured against at one moment, as one snapshot of the database holds it.

    links : every link of the account, ascending.
    opening : the newest opening of the UTC day; None before it was marked.
    before_midnight : the newest reading of the days before.
    highest : since the last resume, the highest reading after each link.
    """

    links: tuple[EquityLink, ...]
    opening: Reading | None
    before_midnight: Reading | None
    highest: tuple[Reading, ...]

    @property
    def last_link(self) -> EquityLink | None:
        return self.links[-1] if self.links else None

    @property
    def day_open_quote(self) -> Fraction | None:
        """The day's opening in today's money: its own reading, else the last one before midnight."""
        reading = self.opening or self.before_midnight
        return None if reading is None else in_todays_money(reading, self.links)

    @property
    def peak_quote(self) -> Fraction | None:
        """The highest reading since the last resume, in today's money."""
        counted = [in_todays_money(reading, self.links) for reading in self.highest]
        return max((money for money in counted if money is not None), default=None)

    def blind_spots(self) -> list[str]:
        """Why a loss cannot be measured, in words; empty where both references stand above zero."""
        found = []
        for name, reference in (("the day's opening equity", self.day_open_quote), ("peak equity", self.peak_quote)):
            if reference is None:
                found.append(f"{name} was not marked yet, so no loss can be measured: does watch_risk run?")
            elif reference <= 0:
                found.append(
                    f"{name} is {as_decimal(reference):.2f}, so no loss can be measured: "
                    "fund the account, and explain it with ./tradewind accept"
                )
        return found
