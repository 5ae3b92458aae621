"""What the exchange says of markets that something is held in, each by itself: rules, believable prices, orders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from tradewind.core.ports import Ports
from tradewind.core.types import BookTop, ExchangeOrder, Instrument
from tradewind.errors import MissingData, UnknownSymbol
from tradewind.jobs.isolation import each_symbol
from tradewind.jobs.pricing import believable_books

GIVE_UP: Final = "if it stays so, ./tradewind write-off gives the position up"


@dataclass(frozen=True, slots=True)
class Markets:
    """Some markets at one moment. A symbol without rules or without a price is absent; `troubles` may say why.

    `orders` is what works there, by client order id.
    """

    instruments: Mapping[str, Instrument]
    books: Mapping[str, BookTop]
    orders: Mapping[str, ExchangeOrder]
    troubles: Mapping[str, str]

    def instrument(self, symbol: str) -> Instrument:
        """The rules of a market. Raises UnknownSymbol where there are none."""
        if symbol not in self.instruments:
            why = self.troubles.get(symbol, "it is not listed")
            raise UnknownSymbol(f"the exchange has no rules for {symbol} ({why}): nothing can rest there; {GIVE_UP}")
        return self.instruments[symbol]

    def book(self, symbol: str) -> BookTop:
        """The price of a market. Raises MissingData where there is none that can be believed."""
        if symbol not in self.books:
            why = self.troubles.get(symbol, "its book is empty or not to be believed")
            raise MissingData(f"{symbol} has no price ({why}): what rests stays and no rule acts; {GIVE_UP}")
        return self.books[symbol]


def read_markets(ports: Ports, symbols: Sequence[str], *, with_orders: bool = True) -> Markets:
    """Rules, prices and, where they are wanted, working orders of these markets; one that fails spoils no other's.

    Raises what is about the account as a whole: the exchange does not answer, or refuses the key.
    """
    instruments, troubles = read_instruments(ports, symbols)
    listed = [symbol for symbol in symbols if symbol in instruments]
    books, unpriced = read_books(ports, listed)
    orders: dict[str, ExchangeOrder] = {}
    if with_orders:
        # What could not be read here is asked for by its id.
        answers, _ = each_symbol(ports.exchange.open_orders, listed)
        orders = {order.client_order_id: order for answer in answers for order in answer}
    return Markets(instruments, books, orders, troubles | unpriced)


def read_books(ports: Ports, symbols: Sequence[str]) -> tuple[dict[str, BookTop], dict[str, str]]:
    """The prices of these markets that can be believed, and by symbol why the others have none."""
    held = [position for position in ports.trading_store.live_positions() if position.symbol in symbols]
    priced = believable_books(ports, held, symbols)
    return dict(priced.books), dict(priced.unpriced)


def read_instruments(ports: Ports, symbols: Sequence[str]) -> tuple[dict[str, Instrument], dict[str, str]]:
    """The rules of each of these markets that the exchange lists, and by symbol why some could not be read."""
    answers, troubles = each_symbol(ports.exchange.instruments, symbols)
    return {symbol: rules for answer in answers for symbol, rules in answer.items()}, troubles
