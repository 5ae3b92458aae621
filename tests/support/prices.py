"""An exchange adapter whose prices a test decides by market, and a wall clock that a test puts ahead."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal

from tradewind.adapters.ccxt_trading import CcxtTrading
from tradewind.core.ports import Clock
from tradewind.core.types import Balance, BookTop


class ShiftedClock:
    """Another clock's time, and some on top."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.ahead = timedelta(0)

    def now(self) -> datetime:
        return self._clock.now() + self.ahead


class Answering(CcxtTrading):
    """The paper exchange, with other answers for some markets, and with money moved in from outside."""

    answers: Mapping[str, tuple[Decimal, Decimal]] = {}
    absent: Collection[str] = ()
    broken: Mapping[str, Exception] = {}
    moved_quote = Decimal(0)

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]  # as its parent's
        self.asked: list[Sequence[str]] = []

    def book_tops(self, symbols: Sequence[str]) -> dict[str, BookTop]:
        self.asked.append(symbols)
        for symbol in symbols:
            if symbol in self.broken:
                raise self.broken[symbol]
        found = super().book_tops(symbols)
        for symbol, (bid, ask) in self.answers.items():
            if symbol in found:
                found[symbol] = replace(found[symbol], bid=bid, ask=ask)
        return {symbol: book for symbol, book in found.items() if symbol not in self.absent}

    def balances(self) -> dict[str, Balance]:
        found = super().balances()
        usdt = found["USDT"]
        return found | {"USDT": replace(usdt, free=usdt.free + self.moved_quote)}
