"""What markets can be priced at now: books that are believed, and which markets have none, isolated by symbol."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Final, Protocol

from tradewind.core.brackets import decimal_of
from tradewind.core.ports import Ports
from tradewind.core.prices import KnownPrice, is_price, look
from tradewind.core.types import BookTop
from tradewind.jobs.isolation import each_symbol

_NO_PRICE: Final = "the exchange answers no price"


class Entered(Protocol):
    """A position, or what its fills leave held: where it was entered, at what price, and when."""

    @property
    def symbol(self) -> str: ...
    @property
    def entry_price(self) -> Decimal | None: ...
    @property
    def opened_at(self) -> datetime | None: ...


@dataclass(frozen=True, slots=True)
class Priced:
    """Markets as they can be priced at one moment.

    books : those that have a believable price now, safe to act on.
    unpriced : those that have none, each with the reason in words.
    known : the last believable price of each; absent where none was ever seen.
    """

    books: Mapping[str, BookTop]
    unpriced: Mapping[str, str]
    known: Mapping[str, KnownPrice]


def believable_books(ports: Ports, positions: Iterable[Entered], others: Collection[str] = ()) -> Priced:
    """Look at the markets of these positions, and at `others`, and keep what was seen for the next look.

    A market's last known price is what was kept of an earlier look, or a position's entry where that is newer. One
    market that is unlisted, empty, or answered with a jump that is not believed yet is unpriced; the others are not
    touched by it.

    Raises what is about the account as a whole: the exchange does not answer, or refuses the key.
    """
    held = list(positions)
    symbols = sorted({position.symbol for position in held} | set(others))
    if not symbols:
        return Priced({}, {}, {})
    known = ports.trading_store.last_prices(symbols)
    for entry in filter(None, map(_entry_of, held)):
        if entry.symbol not in known or known[entry.symbol].at < entry.at:
            known[entry.symbol] = entry
    tops, troubles = each_symbol(ports.exchange.book_tops, symbols)
    answers = {symbol: book for top in tops for symbol, book in top.items()}
    # An exchange stamps its answers by the machine's clock; entries are dated by the market's.
    now, seen_at = ports.clock.now(), ports.wall.now()
    looked = {symbol: look(replace(book, at=now), known.get(symbol), seen_at) for symbol, book in answers.items()}
    after = known | {symbol: price for symbol, price in looked.items() if price is not None}
    ports.trading_store.keep_prices([price for symbol, price in after.items() if symbol in answers])
    unpriced = {
        symbol: reason
        for symbol in symbols
        if (reason := troubles.get(symbol) or _doubt(answers.get(symbol), after.get(symbol))) is not None
    }
    return Priced({symbol: book for symbol, book in answers.items() if symbol not in unpriced}, unpriced, after)


def _entry_of(position: Entered) -> KnownPrice | None:
    """The price a position was opened at, which its market had at that moment."""
    if position.entry_price is None or position.opened_at is None:
        return None
    return KnownPrice(position.symbol, position.entry_price, position.entry_price, position.opened_at)


def _doubt(book: BookTop | None, known: KnownPrice | None) -> str | None:
    """Why a market's answer is no price to act on; None where it is one."""
    if book is None:
        return _NO_PRICE
    if not is_price(book.bid, book.ask):
        return f"bid {book.bid:f}, ask {book.ask:f} is no price"
    if known is not None and known.suspect is not None:
        return f"bid {book.bid:f}, ask {book.ask:f} after {known.bid:f}, {known.ask:f} is not believed yet"
    return None


# ---------------------------------------------------------------------------------------------------------------- fees
def value_fees(ports: Ports, quote: str) -> list[str]:
    """Keep what each fee in a third asset is worth in quote, at the rate of now, which is seconds after the fill.

    An asset without a believable price is taken at its last known one; one that never had any as the share of the
    trade that the strategy reckons with. Both are alerted. Returns the assets of payments that no price is known for.
    """
    store = ports.trading_store
    assets = store.fees_not_valued(quote)
    if not assets:
        return []
    priced = believable_books(ports, [], [f"{asset}/{quote}" for asset in assets])
    for asset in assets:
        symbol = f"{asset}/{quote}"
        known = priced.known.get(symbol)
        if known is not None:
            store.value_fees(asset, known.bid)
            words = f"Fees paid in {asset} count at {known.bid:f}, its price at {known.at:%Y-%m-%d %H:%M} UTC."
        else:
            store.estimate_fees(asset, decimal_of(ports.params.fee_frac))
            words = f"Fees paid in {asset} count as {ports.params.fee_frac:.2%} of each trade."
        if symbol in priced.unpriced:
            words = f"{priced.unpriced[symbol]}. {words}"
            ports.alerts.raise_alert("warning", f"fee-rate-{asset}", f"{symbol} has no price to value fees at", words)
    return store.fees_not_valued(quote)
