"""Long stretches of market for the engine: only the bars that can change an order are given to it.

A resting order says at which prices it wants to be met (`Engine.touch_bounds`); the next bar that reaches them is found
by comparing whole columns, so a bar that nobody waits for costs a few nanoseconds. Several symbols are walked together,
in order of the time at which their bars end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tradewind.core.matching import Engine
from tradewind.core.matching_book import BarTicks
from tradewind.core.types import IntArray

_FIRST_LOOK = 64
"""Bars looked at first; each further look is four times as long, so that near and far touches both cost little."""


@dataclass(slots=True, eq=False)
class Stretch:
    """One symbol's bars in ticks and lots, ascending in time, and the place the walk has reached.

    `windows` names the bar whose volume bounds the liquidity, `ends_ms` is when each bar has wholly happened.
    """

    windows: IntArray
    ends_ms: IntArray
    open: IntArray
    high: IntArray
    low: IntArray
    close: IntArray
    volume_lots: IntArray
    cursor: int = 0
    _known: tuple[int, int, int] | None = None  # bounds, and the bar they are met at: len() for none

    def __len__(self) -> int:
        return len(self.ends_ms)

    def next_touch(self, low: int, high: int) -> int | None:
        """The first bar from the cursor on with its low <= `low` or its high >= `high`."""
        known = self._known
        if known is not None and known[:2] == (low, high) and known[2] >= self.cursor:
            return known[2] if known[2] < len(self) else None
        start, length, end = self.cursor, _FIRST_LOOK, len(self)
        found = end
        while start < end:
            stop = min(start + length, end)
            touched = (self.low[start:stop] <= low) | (self.high[start:stop] >= high)
            first = int(touched.argmax())
            if touched[first]:
                found = start + first
                break
            start, length = stop, length * 4
        self._known = (low, high, found)
        return found if found < end else None

    def bar(self, i: int) -> BarTicks:
        return BarTicks(
            int(self.open[i]), int(self.high[i]), int(self.low[i]), int(self.close[i]), int(self.volume_lots[i])
        )


def walk(engine: Engine, stretch_of: Callable[[str], Stretch]) -> Iterator[tuple[str, int]]:
    """Give the engine every bar that can change one of its orders, in order of time; yields (symbol, bar's end in ms).

    Between two steps the caller may place and cancel orders: those meet the bars that are still to come.
    """
    stretches: dict[str, Stretch] = {}
    while True:
        due: tuple[int, str, int] | None = None
        for symbol in engine.symbols_with_orders():
            stretch = stretches.get(symbol)
            if stretch is None:
                stretch = stretches[symbol] = stretch_of(symbol)
            index = stretch.next_touch(*engine.touch_bounds(symbol))
            if index is not None:
                end_ms = int(stretch.ends_ms[index])
                if due is None or (end_ms, symbol) < due[:2]:
                    due = (end_ms, symbol, index)
        if due is None:
            return
        end_ms, symbol, index = due
        stretch = stretches[symbol]
        stretch.cursor = index + 1
        engine.on_bar(symbol, stretch.bar(index), int(stretch.windows[index]), end_ms - 1)
        yield symbol, end_ms
