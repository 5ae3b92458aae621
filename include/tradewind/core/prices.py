"""What is a price and what is only a number that came in a price's place."""

from __future__ import annotations

from decimal import Decimal


def is_price(bid: Decimal, ask: Decimal) -> bool:
    """Can these two be a market's best bid and ask: finite, above zero, and the bid not above the ask?

    Exchanges answer zeros for a side that is empty and for a market that is delisted; bid and ask cross while a book
    is rebuilt.
    """
    return bid.is_finite() and ask.is_finite() and 0 < bid <= ask
