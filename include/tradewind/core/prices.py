"""What is a price and what is only a number that came in a price's place."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

from .types import BookTop

# A price that halves or doubles between two looks is shown again by a real market, and never by a broken answer.
BELIEVED_AFTER: Final = timedelta(seconds=5)
_JUMP: Final = 2


def is_price(bid: Decimal, ask: Decimal) -> bool:
    """Can these two be a market's best bid and ask: finite, above zero, and the bid not above the ask?

    Exchanges answer zeros for a side that is empty and for a market that is delisted; bid and ask cross while a book
    is rebuilt.
    """
    return bid.is_finite() and ask.is_finite() and 0 < bid <= ask


@dataclass(frozen=True, slots=True)
class Suspect:
    """A price that is too far from the last one to be believed yet. `since` is the wall time of its first look."""

    bid: Decimal
    ask: Decimal
    since: datetime


@dataclass(frozen=True, slots=True)
class KnownPrice:
    """The last believable price of a market, `at` by the market's clock, and what was seen since and not believed."""

    symbol: str
    bid: Decimal
    ask: Decimal
    at: datetime
    suspect: Suspect | None = None

    @property
    def book(self) -> BookTop:
        return BookTop(self.symbol, self.bid, self.ask, self.at)


def is_jump(bid: Decimal, ask: Decimal, before: KnownPrice | Suspect) -> bool:
    """Has either side more than halved or more than doubled?"""
    return any(
        now * _JUMP < then or now > then * _JUMP for now, then in ((bid, before.bid), (ask, before.ask))
    )  # fmt: skip


def look(book: BookTop, known: KnownPrice | None, seen_at: datetime) -> KnownPrice | None:
    """What is known of a market's price after one more look at its book, at `seen_at` by the wall's clock.

    The look is believed when the result holds no suspect. What is no price changes nothing. A jump is believed once a
    later look, `BELIEVED_AFTER` or more after the first one that showed it, still shows it and none between them did
    not: a real collapse is believed within seconds, one absurd answer never.
    """
    if not is_price(book.bid, book.ask):
        return known
    fresh = KnownPrice(book.symbol, book.bid, book.ask, book.at)
    if known is None or not is_jump(book.bid, book.ask, known):
        return fresh
    suspect = known.suspect
    if suspect is None or is_jump(book.bid, book.ask, suspect) or seen_at < suspect.since:
        return replace(known, suspect=Suspect(book.bid, book.ask, seen_at))
    return fresh if seen_at - suspect.since >= BELIEVED_AFTER else known


def believable(book: BookTop, known: KnownPrice | None, seen_at: datetime) -> bool:
    """Is this book a price to act on, by what is known of its market and with `look`'s patience?"""
    after = look(book, known, seen_at)
    return is_price(book.bid, book.ask) and after is not None and after.suspect is None
