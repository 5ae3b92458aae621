"""The loop of a replay: which bars are visited, and in what order things happen at each.

::

    bar i walks (stops, targets) ─► its close is marked ─► bar i+1 opens ─► position rules of close i, done at that open
                                                             ─► marked, breaker ─► decision on bar i ─► entries

That is the order in which a live account lives it: at the moment a bar has closed the market already trades at the next
one's open. Between two events nothing is walked; `skipping` says how far, for each position alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal

import numpy as np

from tradewind.core.brackets import decimal_of
from tradewind.core.decision import judge
from tradewind.core.futures_sizing import allowed_sides
from tradewind.core.inputs import CycleInputs
from tradewind.core.ledger import closed_trade, signed_quantity
from tradewind.core.matching_book import best_ask, best_bid
from tradewind.core.params import StrategyParams
from tradewind.core.positions import (
    FAILED_STOP,
    Costs,
    ExitNow,
    MoveStop,
    bars_held,
    manage_on_close,
    sign_of,
    stop_failed,
)
from tradewind.core.resampling import BASE_MS
from tradewind.core.risk import Holding as Marked
from tradewind.core.risk import ledger_equity
from tradewind.core.types import BookTop, Side

from .account import SimulatedAccount
from .booking import matching_settings
from .circumstances import Circumstances
from .funnel import Funnel
from .futures_account import FuturesSimulatedAccount
from .holding import Holding, trade_of
from .marks import Marks
from .results import Trade
from .settings import ReplaySettings
from .signals import SymbolSeries, moment, prefilter
from .skipping import TickColumns, add_worth, next_event
from .spilling import MappedSeries
from .timeline import Timeline, Waiting


class Chain:
    """One account trading all symbols over the bars opened in [start_ms, end_ms)."""

    def __init__(
        self,
        series: Mapping[str, SymbolSeries],
        params: StrategyParams,
        start_ms: int,
        end_ms: int,
        settings: ReplaySettings,
    ) -> None:
        self.series = dict(sorted(series.items()))
        self.params = params
        self.settings = settings
        instruments = {symbol: s.instrument for symbol, s in self.series.items()}
        self.sides = allowed_sides(instruments)
        simulated = FuturesSimulatedAccount if Side.SHORT in self.sides else SimulatedAccount
        self.account: SimulatedAccount = simulated(
            settings.account,
            instruments,
            settings.capital_quote,
            settings.matching or matching_settings(params),
            settings.base_held,
            settings.baseline,
        )
        self.costs = {s: Costs.of(params, float(i.taker_fee_frac)) for s, i in instruments.items()}
        self.ticks = {
            symbol: s.ticks if isinstance(s, MappedSeries) else TickColumns.of(s.bars, s.instrument)
            for symbol, s in self.series.items()
        }
        self.timeline = Timeline(self.series, start_ms, end_ms)
        self.times = self.timeline.times
        self.marks = Marks(settings.capital_quote, params, self.times)
        self.circumstances = Circumstances(self.series, params, settings, self.sides, self.marks)
        self.funnel = Funnel()
        self.decided: list[CycleInputs] = []  # what each moment with candidates decided on
        self.trades: list[Trade] = []
        self.closed_cash = Decimal(0)
        self.live: dict[str, Holding] = {}
        self.moves: dict[str, Decimal] = {}
        self.exits: dict[str, str] = {}
        self.opened = -1  # the index of the bar whose open the market has already shown
        self.visited = 0
        self.waiting = Waiting(self._find_candidates())

    # ----------------------------------------------------------------------------------------------------- preparation
    def _find_candidates(self) -> dict[int, list[str]]:
        """Index into `times` → symbols worth deciding in full; everything else is counted into the funnel here."""
        found: dict[int, list[str]] = {}
        rows_of = self.timeline.rows
        if self.settings.recorded is not None:
            for bar_ms, inputs in self.settings.recorded.items():
                index = self.timeline.index_of(bar_ms)
                if index is not None:
                    wanted = {s.symbol for s in inputs.symbols}
                    found[index] = [s for s, rows in rows_of.items() if s in wanted and rows[index] >= 0]
            return found
        for symbol, series in self.series.items():
            present = np.flatnonzero(rows_of[symbol] >= 0)
            chosen = self.funnel.count_columns(
                prefilter(series, self.params, may_short=Side.SHORT in self.sides), rows_of[symbol][present]
            )
            for index in present[chosen].tolist():
                found.setdefault(index, []).append(symbol)
        return found

    # ------------------------------------------------------------------------------------------------------------ loop
    def run(self) -> None:
        """Visit every bar at which something can happen."""
        index = 0
        while index < len(self.times):
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

    # ------------------------------------------------------------------------------------------------------------- bars
    def _feed_open(self, symbol: str, row: int, at_ms: int) -> None:
        times, ticks = self.series[symbol].bars.open_time_ms, self.ticks[symbol]
        before = row > 0 and times[row - 1] == at_ms - BASE_MS
        volume_lots = int(ticks.volume_lots[row - 1]) if before else 0  # the new bar's volume is not known yet
        self._collect(self.account.feed_price(symbol, int(ticks.open[row]), volume_lots, at_ms, at_ms))

    def _open(self, holdings: Iterable[Holding], index: int) -> None:
        """The market shows the open of the bar at an index to whatever rests."""
        for symbol, row in self._markets(holdings, index):
            self._feed_open(symbol, row, int(self.times[index]))

    def _walk(self, holdings: Iterable[Holding], index: int) -> None:
        for symbol, row in self._markets(holdings, index):
            bar_ms = int(self.times[index])
            bar = self.ticks[symbol].bar(row)
            self._collect(self.account.feed_bar(symbol, bar, bar_ms, bar_ms + BASE_MS - 1))

    def _markets(self, holdings: Iterable[Holding], index: int) -> list[tuple[str, int]]:
        """The markets of those that are live, each with its row, where they have a bar at an index."""
        symbols = sorted({holding.position.symbol for holding in holdings if holding.is_live})
        return [(symbol, row) for symbol in symbols if (row := self.timeline.row(symbol, index)) >= 0]

    # -------------------------------------------------------------------------------------------------------- positions
    def _manage(self, holdings: Iterable[Holding], index: int) -> None:
        """The position rule at the close of the bar at an index."""
        for holding in holdings:
            position_id, symbol = holding.position.position_id, holding.position.symbol
            row = self.timeline.row(symbol, index)
            if not holding.is_live or row < 0 or holding.position.entry_price is None:
                holding.looked_until = index
                continue
            self._look_back(holding, index)
            series, bar_ms = self.series[symbol], int(self.times[index])
            close = decimal_of(float(series.bars.close[row]))
            held = bars_held(holding.position, bar_ms, BASE_MS)
            costs, tick = self.costs[symbol], series.instrument.tick_size
            action = manage_on_close(holding.position, close, held, self.params, costs, tick)
            holding.managed(action.best_close, moment(bar_ms))
            holding.looked_until = index
            if isinstance(action, ExitNow):
                self.exits[position_id] = action.reason
            elif isinstance(action, MoveStop):
                self.moves[position_id] = action.price

    def _look_back(self, holding: Holding, index: int) -> None:
        """Let the best close know the bars before an index that were passed over."""
        first, position = holding.looked_until + 1, holding.position
        if first >= index or position.entry_price is None:
            return
        best = position.best_close if position.best_close is not None else position.entry_price
        row = self.timeline.row(position.symbol, first)
        closes = self.series[position.symbol].bars.close[row : row + index - first]
        sign = sign_of(position.side)
        furthest = float(closes.max() if sign > 0 else closes.min())
        if sign * (furthest - float(best)) > 0:
            best = decimal_of(furthest)
        holding.managed(best, moment(int(self.times[index - 1])))
        holding.looked_until = index - 1

    def _act(self, holdings: Iterable[Holding], index: int) -> None:
        """Do at the open what is wanted: leave, move stops, heal; what has no price now waits for the next open."""
        at_ms = int(self.times[index])
        for holding in holdings:
            position_id, symbol = holding.position.position_id, holding.position.symbol
            if not holding.is_live or self.timeline.row(symbol, index) < 0:
                continue
            book = self.account.book(symbol, moment(at_ms))
            leaves_at = book.bid if holding.position.side is Side.LONG else book.ask
            if stop_failed(holding.position, leaves_at, self.params):
                self.exits.setdefault(position_id, FAILED_STOP)
            reason, stop = self.exits.pop(position_id, None), self.moves.pop(position_id, None)
            if reason is not None:
                self.account.leave(holding, at_ms, reason)
            elif stop is not None:
                self.account.protect(holding, stop, at_ms, "moved")
            else:
                self.account.converge(holding, at_ms)
            self._collect([holding])

    # ------------------------------------------------------------------------------------------------------------ worth
    def _mark(self, index: int, *, drawn: bool) -> bool:
        """Equity at the close of the bar at an index, or at the open after it, and the breaker's test."""
        tripped = self.marks.mark(
            int(self.times[index]) + BASE_MS, self._equity(index, at_close=drawn), index if drawn else -1
        )
        if tripped:
            self.exits.update(dict.fromkeys(self.live, "breaker"))
        return tripped

    def _equity(self, index: int, *, at_close: bool) -> Decimal:
        marked, books = [], {}
        at = moment(int(self.times[index]) + BASE_MS)
        for holding in self.live.values():
            quantity = signed_quantity(holding.position)
            if quantity:
                symbol = holding.position.symbol
                marked.append(Marked(symbol, quantity))
                books[symbol] = self._book(symbol, index, at, at_close=at_close)
        return ledger_equity(self.settings.capital_quote, self._cash(), marked, books)

    def _book(self, symbol: str, index: int, at: datetime, *, at_close: bool) -> BookTop:
        """Bid and ask at the close of a bar or at the open after it; where there is none, as the market last stood."""
        row = self.timeline.row(symbol, index) if at_close else self.timeline.next_row(symbol, index)
        if row < 0:
            return self.account.book(symbol, at)
        ticks, rules = self.ticks[symbol], self.account.engine.rules[symbol]
        last, settings = int((ticks.close if at_close else ticks.open)[row]), self.account.engine.settings
        return BookTop(symbol, rules.price(best_bid(last, settings)), rules.price(best_ask(last, settings)), at)

    def _cash(self) -> Decimal:
        return self.closed_cash + sum((h.cash_quote for h in self.live.values()), Decimal(0))

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
            self.account.engine.touch_bounds(symbol), self.params, self.costs[symbol],
            float(series.instrument.tick_size),
        )  # fmt: skip
        holding.quiet_until = index + row - first_row
        return holding.quiet_until

    def _pass_over(self, index: int, last: int) -> int:
        """Mark the bars [index, last) at their closes and at the opens after them; returns the first that is not
        quiet, since a mark comes near to a limit."""
        if last <= index:
            return index
        worth = np.full(2 * (last - index), float(self.settings.capital_quote + self._cash()))
        ppm = self.account.engine.settings.half_spread_ppm
        for holding in self.live.values():
            symbol = holding.position.symbol
            ticks, tick = self.ticks[symbol], float(self.series[symbol].instrument.tick_size)
            row, quantity = self.timeline.row(symbol, index), float(signed_quantity(holding.position))
            add_worth(worth, ticks.open, ticks.close, row, quantity, tick, ppm)
        bars, highest, begun = self.marks.quiet_bars(worth, index)
        if bars == 0:
            return index
        near_peak = highest * (1 - 1e-12)
        if highest > float(self.marks.peak) * (1 - 1e-12):
            for place in np.flatnonzero(worth[: 2 * bars] >= near_peak).tolist():
                exact = self._equity(index + place // 2, at_close=place % 2 == 0)
                self.marks.peak = max(self.marks.peak, exact)
        if begun >= 0:
            self.marks.begin_day(index + begun // 2, self._equity(index + begun // 2, at_close=False))
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

    # --------------------------------------------------------------------------------------------------------- results
    def _collect(self, changed: Sequence[Holding]) -> None:
        """Take closed positions out of the live ones and into the trades."""
        for holding in changed:
            position = holding.position
            if holding.is_live or self.live.pop(position.position_id, None) is None:
                continue
            self.closed_cash += holding.cash_quote
            self.moves.pop(position.position_id, None)
            self.exits.pop(position.position_id, None)
            closed = closed_trade(position)
            if closed is not None:
                self.circumstances.recent.append(closed)
                self.trades.append(trade_of(holding, closed.net_r))
