"""A symbol's prices as the matching engine counts them."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numba import njit

from tradewind.core.matching_book import BarTicks
from tradewind.core.types import Bars, FloatArray, Instrument, IntArray

from .signals import SymbolSeries


@njit(cache=True)  # type: ignore[untyped-decorator]  # numba ships no types
def _in_units(column: FloatArray, unit: float, cut: bool = False) -> IntArray:
    """Rounded to the nearest whole number of units, half to even, or cut to it; in one pass."""
    out = np.empty(len(column), dtype=np.int64)
    for i in range(len(column)):
        out[i] = int(column[i] / unit) if cut else int(np.rint(column[i] / unit))
    return out


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
        prices = [_in_units(column, tick) for column in (bars.open, bars.high, bars.low, bars.close)]
        return cls(prices[0], prices[1], prices[2], prices[3], _in_units(bars.volume, step, True))

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
