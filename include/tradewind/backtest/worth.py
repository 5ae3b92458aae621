"""What the account is worth between events: exactly where a rule looks, as floats where only the curve does."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import Decimal

import numpy as np

from tradewind.core.ledger import signed_quantity
from tradewind.core.matching_book import best_ask, best_bid
from tradewind.core.resampling import BASE_MS
from tradewind.core.risk import Holding as Marked
from tradewind.core.risk import ledger_equity
from tradewind.core.types import BookTop, FloatArray

from .account import SimulatedAccount
from .holding import Holding
from .signals import moment
from .skipping import add_worth
from .ticks import TickColumns
from .timeline import Timeline


class Worth:
    """Cash and what is held, at the closes of bars and at the opens after them."""

    def __init__(
        self,
        capital_quote: Decimal,
        timeline: Timeline,
        ticks: Mapping[str, TickColumns],
        account: SimulatedAccount,
    ) -> None:
        self.capital_quote, self.timeline, self.ticks, self.account = capital_quote, timeline, ticks, account

    def exact(self, cash_quote: Decimal, held: Iterable[Holding], index: int, *, at_close: bool) -> Decimal:
        """Equity at the close of the bar at an index, or at the open after it; `cash_quote` is what fills moved."""
        marked, books = [], {}
        at = moment(int(self.timeline.times[index]) + BASE_MS)
        for holding in held:
            quantity = signed_quantity(holding.position)
            if quantity:
                symbol = holding.position.symbol
                marked.append(Marked(symbol, quantity))
                books[symbol] = self._book(symbol, index, at, at_close=at_close)
        return ledger_equity(self.capital_quote, cash_quote, marked, books)

    def _book(self, symbol: str, index: int, at: datetime, *, at_close: bool) -> BookTop:
        """Bid and ask at the close of a bar or at the open after it; where there is none, as the market last stood."""
        row = self.timeline.row(symbol, index) if at_close else self.timeline.next_row(symbol, index)
        if row < 0:
            return self.account.book(symbol, at)
        ticks, engine = self.ticks[symbol], self.account.engine
        last, rules = int((ticks.close if at_close else ticks.open)[row]), engine.rules[symbol]
        bid, ask = best_bid(last, engine.settings), best_ask(last, engine.settings)
        return BookTop(symbol, rules.price(bid), rules.price(ask), at)

    def column(self, cash_quote: Decimal, held: Iterable[Holding], first: int, last: int) -> FloatArray:
        """2 × (last − first) floats: for each index its close and the open after it. All bars must be there."""
        worth = np.full(2 * (last - first), float(self.capital_quote + cash_quote))
        for holding in held:
            symbol, quantity = holding.position.symbol, float(signed_quantity(holding.position))
            ticks, engine = self.ticks[symbol], self.account.engine
            row, tick = self.timeline.row(symbol, first), float(engine.rules[symbol].tick)
            add_worth(worth, ticks.open, ticks.close, row, quantity, tick, engine.settings.half_spread_ppm)
        return worth
