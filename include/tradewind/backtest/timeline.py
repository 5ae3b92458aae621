"""The moments of a replay: which row each symbol has at each of them, and where one must not be passed over."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence

import numpy as np

from tradewind.core.params import StrategyParams
from tradewind.core.resampling import BASE_MS
from tradewind.core.types import IntArray, Side

from .funnel import Funnel
from .settings import ReplaySettings
from .signals import SymbolSeries, prefilter


class Timeline:
    """All moments at which some symbol has a bar opened in [start_ms, end_ms), ascending.

    Raises ValueError when there is none.
    """

    def __init__(self, series: Mapping[str, SymbolSeries], start_ms: int, end_ms: int) -> None:
        self.times = _moments(series, start_ms, end_ms)
        if len(self.times) == 0:
            raise ValueError("no symbol has a 15m bar in the range: load history, or choose another range")
        self.stretches: list[tuple[slice, slice] | None] = []
        """By symbol the indices and the rows of its bars where both are one unbroken stretch, else None."""
        self.rows = {symbol: self._rows_of(s) for symbol, s in series.items()}
        self.follows = np.empty(len(self.times), dtype=bool)  # another bar opens as this one closes
        self.follows[:-1] = self.times[1:] - self.times[:-1] == BASE_MS
        self.follows[-1] = False
        # Where a symbol's bar or its next one is missing nothing is passed over.
        self.stops = {
            symbol: np.flatnonzero((rows < 0) | ~np.append(rows[1:] >= 0, False) | ~self.follows)
            for symbol, rows in self.rows.items()
        }

    def __len__(self) -> int:
        return len(self.times)

    def _rows_of(self, series: SymbolSeries) -> IntArray:
        """For each moment the row of the symbol's bar, −1 where it has none."""
        own = series.bars.open_time_ms
        first, last = np.searchsorted(own, (self.times[0], self.times[-1] + 1)).tolist()
        if first < last:
            begin = int(np.searchsorted(self.times, own[first]))
            end = begin + last - first
            if np.array_equal(self.times[begin:end], own[first:last]):  # one unbroken stretch of the moments
                whole = np.full(len(self.times), -1)
                whole[begin:end] = np.arange(first, last)
                self.stretches.append((slice(begin, end), slice(first, last)))
                return whole
        self.stretches.append(None)
        rows = np.searchsorted(own, self.times)
        found = own[np.minimum(rows, len(own) - 1)] == self.times if len(own) else np.zeros(len(rows), dtype=bool)
        return np.where(found, rows, -1)

    def row(self, symbol: str, index: int) -> int:
        """The row of the symbol's bar at an index, −1 where it has none."""
        return int(self.rows[symbol][index])

    def next_row(self, symbol: str, index: int) -> int:
        """The row of the bar that opens as the one at `index` closes, −1 where there is none."""
        if index + 1 >= len(self.times) or self.times[index + 1] != self.times[index] + BASE_MS:
            return -1
        return int(self.rows[symbol][index + 1])

    def next_stop(self, symbol: str, index: int) -> int:
        """The first index from `index` on at which the symbol must be looked at."""
        stops = self.stops[symbol]
        at = int(np.searchsorted(stops, index))
        return int(stops[at]) if at < len(stops) else len(self.times) - 1

    def stop_at(self, symbol: str, indices: IntArray) -> None:
        """Let the symbol be looked at there, too."""
        self.stops[symbol] = np.union1d(self.stops[symbol], indices)

    def index_of(self, at_ms: int) -> int | None:
        """The index of a moment, None when no symbol has a bar there."""
        index = int(np.searchsorted(self.times, at_ms))
        return index if index < len(self.times) and self.times[index] == at_ms else None


class Waiting:
    """The indices at which something is to be decided, and the symbols of each."""

    def __init__(self, symbols_at: Mapping[int, list[str]]) -> None:
        self.symbols_at = symbols_at
        self._indices = sorted(symbols_at)

    def rows_of(self, timeline: Timeline) -> dict[str, IntArray]:
        """By symbol the rows that are to be decided, ascending."""
        found: dict[str, list[int]] = {}
        for index in self._indices:
            for symbol in self.symbols_at[index]:
                found.setdefault(symbol, []).append(index)
        return {symbol: timeline.rows[symbol][indices] for symbol, indices in found.items()}

    def next(self, index: int) -> int | None:
        """The first such index from `index` on."""
        at = bisect_left(self._indices, index)
        return self._indices[at] if at < len(self._indices) else None


def find_candidates(
    series: Mapping[str, SymbolSeries],
    params: StrategyParams,
    settings: ReplaySettings,
    sides: Sequence[Side],
    timeline: Timeline,
    funnel: Funnel,
) -> dict[int, list[str]]:
    """Index → symbols worth deciding in full; everything else is counted into the funnel here.

    With recorded circumstances those are the symbols of each recorded cycle.
    """
    found: dict[int, list[str]] = {}
    if settings.recorded is not None:
        for bar_ms, inputs in settings.recorded.items():
            index = timeline.index_of(bar_ms)
            if index is not None:
                wanted = {s.symbol for s in inputs.symbols}
                found[index] = [s for s, rows in timeline.rows.items() if s in wanted and rows[index] >= 0]
        return found
    for symbol, own in series.items():
        rows = timeline.rows[symbol]
        present = np.flatnonzero(rows >= 0)
        masks = prefilter(own, params, may_short=Side.SHORT in sides, rows=rows[present])
        chosen = funnel.count_columns(masks, len(present))
        for index in present[chosen].tolist():
            found.setdefault(index, []).append(symbol)
    return found


def _moments(series: Mapping[str, SymbolSeries], start_ms: int, end_ms: int) -> IntArray:
    cut = []
    for s in series.values():
        own = s.bars.open_time_ms
        first, last = np.searchsorted(own, (start_ms, end_ms))
        cut.append(own[first:last])
    if not cut:
        return np.empty(0, dtype=np.int64)
    longest = max(cut, key=len)
    if all(_is_part(each, longest) for each in cut):
        return longest
    first, last = min(int(own[0]) for own in cut if len(own)), max(int(own[-1]) for own in cut if len(own))
    places = [(own - first) // BASE_MS for own in cut]
    if all(np.array_equal(place * BASE_MS + first, own) for place, own in zip(places, cut, strict=True)):
        taken = np.zeros((last - first) // BASE_MS + 1, dtype=bool)
        for place in places:
            taken[place] = True
        return np.flatnonzero(taken) * BASE_MS + first
    merged = np.sort(np.concatenate(cut))  # a sort of runs: np.unique would hash what is in order already
    return merged[np.append(True, merged[1:] != merged[:-1])] if len(merged) else merged


def _is_part(part: IntArray, whole: IntArray) -> bool:
    """Is it one unbroken stretch of the other?"""
    if len(part) == 0 or part is whole:
        return True
    first = int(np.searchsorted(whole, part[0]))
    return np.array_equal(whole[first : first + len(part)], part)
