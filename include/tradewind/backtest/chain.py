"""The loop of a replay: which bars are visited, and in what order things happen at each.

::

    bar i walks (stops, targets) ─► its close is marked ─► bar i+1 opens ─► position rules of close i, done at that open
                                                             ─► marked, breaker ─► decision on bar i ─► entries

That is the order in which a live account lives it: at the moment a bar has closed the market already trades at the next
one's open. Between two events nothing is walked; `skipping` says how far, for each position alone.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tradewind.core.brackets import decimal_of
from tradewind.core.decision import judge
from tradewind.core.inputs import CycleInputs
from tradewind.core.matching_book import half_spread_ticks
from tradewind.core.params import StrategyParams
from tradewind.core.positions import r_distance, sign_of
from tradewind.core.resampling import BASE_MS
from tradewind.core.types import Position

from .circumstances import Circumstances
from .funnel import Funnel
from .holding import Holding
from .marks import Marks
from .settings import ReplaySettings
from .signals import SymbolSeries, judged_at_once
from .skipping import next_event
from .tending import Tending
from .timeline import Waiting, find_candidates
from .worth import Worth


class Chain(Tending):
    """One account trading all symbols over the bars opened in [start_ms, end_ms)."""

    def __init__(
        self,
        series: Mapping[str, SymbolSeries],
        params: StrategyParams,
        start_ms: int,
        end_ms: int,
        settings: ReplaySettings,
    ) -> None:
        super().__init__(series, params, start_ms, end_ms, settings)
        self.worth = Worth(settings.capital_quote, self.timeline, self.ticks, self.account)
        self.marks = Marks(settings.capital_quote, params, self.times)
        self.circumstances = Circumstances(self.series, params, settings, self.sides, self.marks, self.recent)
        self.funnel = Funnel()
        self.decided: list[CycleInputs] = []  # what each moment with candidates decided on
        self.opened = -1  # the index of the bar whose open the market has already shown
        self.visited = 0
        self.waiting = Waiting(find_candidates(self.series, params, settings, self.sides, self.timeline, self.funnel))
        if settings.recorded is None:
            for symbol, rows in self.waiting.rows_of(self.timeline).items():
                self.series[symbol] = judged_at_once(self.series[symbol], rows)

    # ------------------------------------------------------------------------------------------------------------ loop
    def run(self, index: int = 0, *, until_calm: bool = False) -> int:
        """Visit every bar from an index on at which something can happen; returns the index to go on from.

        With `until_calm` only as far as needed until nothing is held and the breaker lets trade, but one moment at
        least.
        """
        first = index
        while index < len(self.times):
            if until_calm and index > first and not self.live and not self.marks.halted_until_ms:
                return index
            candidate = self.waiting.next(index)
            if not self.live:
                if candidate is None:
                    break
                self._decide_between_events(candidate)
                index = candidate + 1
                continue
            due = min(self._quiet_until(holding, index) for holding in self.live.values())
            # What is decided at a bar that is quiet, and whose next one is too, is decided in passing.
            if candidate is not None and candidate + 1 < due:
                index = self._pass_over(index, candidate + 1)
                if index == candidate + 1:
                    self._decide_between_events(candidate)
                    continue
            else:
                index = self._pass_over(index, due if candidate is None else min(due, candidate))
            self._visit(index)
            index += 1
        return len(self.times)

    def _decide_between_events(self, index: int) -> None:
        self.visited += 1
        self._mark(index, drawn=False)
        self._decide(index)
        self.opened = index + 1 if self._follows(index) else -1

    def _visit(self, index: int) -> None:
        """Live through one bar with the positions that may have an event in it or at the open after it."""
        self.visited += 1
        due = list(self.live.values())
        if not (self.settings.visit_every_bar or self.marks.halted_until_ms):
            due = [holding for holding in due if holding.quiet_until <= index + 1]
        if self.opened != index:
            self._open(due, index)
            self._act(due, index)
        self._walk(due, index)
        if self._mark(index, drawn=True):
            due = list(self.live.values())
        self._settle_funding(index)
        follows = self._follows(index)
        if follows:
            self._open(due, index + 1)
        self._manage(due, index)
        if follows:
            self._act(due, index + 1)
        if self._mark(index, drawn=False) and follows:
            shown = {id(holding) for holding in due}
            self._open([holding for holding in self.live.values() if id(holding) not in shown], index + 1)
            self._act(list(self.live.values()), index + 1)  # what the breaker wants leaves at once
        self._decide(index)
        self.opened = index + 1 if follows else -1

    def _follows(self, index: int) -> bool:
        """Does some bar open as the one at this index closes?"""
        return index + 1 < len(self.times) and bool(self.times[index + 1] == self.times[index] + BASE_MS)

    # ------------------------------------------------------------------------------------------------------------ worth
    def _mark(self, index: int, *, drawn: bool) -> bool:
        """Equity at the close of the bar at an index, or at the open after it, and the breaker's test."""
        tripped = self.marks.mark(
            int(self.times[index]) + BASE_MS,
            self.worth.exact(self._cash(), self.live.values(), index, at_close=drawn),
            index if drawn else -1,
        )
        if tripped:
            self.exits.update(dict.fromkeys(self.live, "breaker"))
        return tripped

    # --------------------------------------------------------------------------------------------------------- skipping
    def _quiet_until(self, holding: Holding, index: int) -> int:
        """The first index from `index` on that the position must see."""
        position, symbol = holding.position, holding.position.symbol
        if self.settings.visit_every_bar or self.marks.halted_until_ms:
            return index
        if position.position_id in self.exits or position.position_id in self.moves:
            return index
        if holding.quiet_until >= index:
            return holding.quiet_until
        holding.quiet_until = last = self.timeline.next_stop(symbol, index)
        if last <= index or position.entry_price is None or self.account.unprotected(holding):
            holding.quiet_until = index
            return index
        self._look_back(holding, index)
        series, first_row = self.series[symbol], self.timeline.row(symbol, index)
        row = next_event(
            holding.position, series.bars, self.ticks[symbol], first_row, first_row + last - index,
            self._bounds(holding.position), self.params, self.costs[symbol],
            float(series.instrument.tick_size),
        )  # fmt: skip
        holding.quiet_until = index + row - first_row
        return holding.quiet_until

    def _bounds(self, position: Position) -> tuple[int, int]:
        """(low, high) in ticks: a bar between them touches no order, and opens nowhere where a stop would be taken for
        failed."""
        low, high = self.account.engine.touch_bounds(position.symbol)
        entry, distance = position.entry_price, r_distance(position)
        assert entry is not None
        assert distance is not None
        sign, tick = sign_of(position.side), self.series[position.symbol].instrument.tick_size
        level = int((entry - sign * decimal_of(self.params.failed_stop_r) * distance) / tick)
        # What counts is the side it would leave at, half a spread away; two ticks for the rounding.
        level += sign * (half_spread_ticks(max(level, 1), self.account.engine.settings) + 2)
        return (max(low, level), high) if sign > 0 else (low, min(high, level))

    def _pass_over(self, index: int, last: int) -> int:
        """Mark the bars [index, last) at their closes and at the opens after them; returns the first that is not
        quiet, since a mark comes near to a limit."""
        if last <= index:
            return index
        cash, held = self._cash(), list(self.live.values())
        worth = self.worth.column(cash, held, index, last)
        bars, highest, begun = self.marks.quiet_bars(worth, index)
        if bars == 0:
            return index
        near_peak = highest * (1 - 1e-12)
        if highest > float(self.marks.peak) * (1 - 1e-12):
            for place in np.flatnonzero(worth[: 2 * bars] >= near_peak).tolist():
                exact = self.worth.exact(cash, held, index + place // 2, at_close=place % 2 == 0)
                self.marks.peak = max(self.marks.peak, exact)
        if begun >= 0:
            opens = self.worth.exact(cash, held, index + begun // 2, at_close=False)
            self.marks.begin_day(index + begun // 2, opens)
        self.marks.draw(index, worth[: 2 * bars : 2])
        self.opened = -1
        return index + bars

    # -------------------------------------------------------------------------------------------------------- decisions
    def _decide(self, index: int) -> None:
        symbols = self.waiting.symbols_at.get(index)
        if not symbols:
            return
        bar_ms = int(self.times[index])
        inputs = self.circumstances.inputs(
            bar_ms,
            [(symbol, self.timeline.row(symbol, index)) for symbol in symbols],
            [holding.position for holding in self.live.values()],
            self._cash(),
            self.account.free_quote,
        )
        self.decided.append(inputs)
        for judged in judge(inputs):
            intent, row = judged.intent, self.timeline.next_row(judged.symbol.symbol, index)
            if intent is None or row < 0:
                continue
            assert judged.symbol.prediction is not None
            regime = judged.symbol.regime.regime.value if judged.symbol.regime is not None else ""
            at_ms = bar_ms + BASE_MS
            self._feed_open(intent.symbol, row, at_ms)
            holding = self.account.enter(intent, judged.symbol.prediction.family, regime, at_ms)
            holding.looked_until = index
            self.live[intent.intent_id] = holding
            self._collect([holding])
