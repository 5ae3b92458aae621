"""A symbol's prices as the matching engine counts them."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from tradewind.core.matching_book import BarTicks
from tradewind.core.types import Bars, Instrument, IntArray

from .signals import SymbolSeries


@dataclass(frozen=True, slots=True, eq=False)
class TickColumns:
    """A symbol's prices in ticks, as the matching engine counts them; arrays of the bars' length."""

    open: IntArray
    high: IntArray
    low: IntArray
    close: IntArray
    volume_lots: IntArray

    @classmethod
    def of(cls, bars: Bars, instrument: Instrument) -> TickColumns:
        """Rounded to the nearest tick, half to even; volumes are cut to whole lots."""
        tick, step = float(instrument.tick_size), float(instrument.step_size)
        prices = [np.rint(column / tick).astype(np.int64) for column in (bars.open, bars.high, bars.low, bars.close)]
        return cls(prices[0], prices[1], prices[2], prices[3], (bars.volume / step).astype(np.int64))

    def bar(self, row: int) -> BarTicks:
        """One bar for the engine."""
        return BarTicks(
            int(self.open[row]), int(self.high[row]), int(self.low[row]), int(self.close[row]),
            int(self.volume_lots[row]),
        )  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class TickedSeries(SymbolSeries):
    """A series with the columns in ticks that a run counts by."""

    ticks: TickColumns


def ticked(series: SymbolSeries) -> TickedSeries:
    """The series with its columns in ticks, counted where it does not have them yet."""
    if isinstance(series, TickedSeries):
        return series
    own = {field.name: getattr(series, field.name) for field in fields(series)}
    return TickedSeries(**own, ticks=TickColumns.of(series.bars, series.instrument))
