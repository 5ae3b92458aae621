"""The loop of a replay: which bars are visited, and in what order things happen at each.

::

    bar i walks (stops, targets) ─► its close is marked ─► bar i+1 opens ─► position rules of close i, done at that open
                                                             ─► marked, breaker ─► decision on bar i ─► entries

That is the order in which a live account lives it: at the moment a bar has closed the market already trades at the next
one's open. Between two events nothing is walked; `skipping` says how far.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal

import numpy as np

from tradewind.core.brackets import decimal_of
from tradewind.core.decision import decide
from tradewind.core.futures_sizing import allowed_sides
from tradewind.core.inputs import CycleInputs, SymbolInputs, pair_key
from tradewind.core.ledger import closed_trade, net_r, signed_quantity, total
from tradewind.core.market_numbers import return_correlation
from tradewind.core.matching_book import half_spread_ticks
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
from tradewind.core.risk import exposure_of, ledger_equity, sizing_equity
from tradewind.core.types import (
    ClosedTrade,
    Decision,
    FloatArray,
    IntArray,
    Permission,
    Portfolio,
    Side,
    TradingMode,
)

from .account import Holding, SimulatedAccount, matching_settings
from .funnel import Funnel
from .futures_account import FuturesSimulatedAccount
from .marks import DAY_MS, Marks
from .results import Trade
from .settings import ReplaySettings
from .signals import SymbolSeries, moment, prefilter
from .skipping import TickColumns, next_event

QUALITY = "data quality"  # the name of a missing verdict on the bars
TRADES_WINDOW = timedelta(days=30)  # as far back as live looks for losses and cooldowns


class Correlations(Mapping[str, float]):
    """Correlations at one bar, computed when a filter asks: a pair that cannot be known is absent."""

    def __init__(self, series: Mapping[str, SymbolSeries], end_ms: int, window_bars: int) -> None:
        self._series, self._end_ms, self._window = series, end_ms, window_bars
        self._known: dict[str, float | None] = {}

    def __getitem__(self, key: str) -> float:
        if key not in self._known:
            a, b = key.split("|")
            self._known[key] = return_correlation(
                self._series[a].bars, self._series[b].bars, self._end_ms, self._window
            )
        value = self._known[key]
        if value is None:
            raise KeyError(key)
        return value

    def __iter__(self) -> Iterator[str]:
        symbols = sorted(self._series)
        return (pair_key(a, b) for i, a in enumerate(symbols) for b in symbols[i + 1 :])

    def __len__(self) -> int:
        return len(self._series) * (len(self._series) - 1) // 2


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
        self.ticks = {symbol: TickColumns.of(s.bars, s.instrument) for symbol, s in self.series.items()}
        self.marks = Marks(settings.capital_quote, params)
        self.funnel = Funnel()
        self.decisions: list[Decision] = []
        self.trades: list[Trade] = []
        self.recent: deque[ClosedTrade] = deque(settings.recent_trades)
        self.closed_cash = Decimal(0)
        self.live: dict[str, Holding] = {}
        self.moves: dict[str, Decimal] = {}
        self.exits: dict[str, str] = {}
        self.opened_ms = -1  # the bar whose open the market has already shown
        self.scored = 0
        self.visited = 0
        every = [s.bars.open_time_ms for s in self.series.values()]
        merged = np.unique(np.concatenate(every)) if every else np.empty(0, dtype=np.int64)
        self.times: IntArray = merged[(merged >= start_ms) & (merged < end_ms)]
        if len(self.times) == 0:
            raise ValueError("no symbol has a 15m bar in the range: load history, or choose another range")
        self.rows = {symbol: self._rows_of(s) for symbol, s in self.series.items()}
        follows = np.diff(self.times, append=-1) == BASE_MS
        # Where a symbol's bar or its next one is missing, or a day ends, nothing is passed over.
        stop = ~follows | ((self.times + BASE_MS) % DAY_MS == 0)
        self._stops = {
            symbol: np.flatnonzero((rows < 0) | np.append(rows[1:] < 0, True) | stop)
            for symbol, rows in self.rows.items()
        }
        self.candidates = self._find_candidates()
        self._waiting = sorted(self.candidates)

    # ----------------------------------------------------------------------------------------------------- preparation
    def _rows_of(self, series: SymbolSeries) -> IntArray:
        """For each moment of the replay the row of the symbol's bar, −1 where it has none."""
        own = series.bars.open_time_ms
        rows = np.searchsorted(own, self.times)
        found = own[np.minimum(rows, len(own) - 1)] == self.times if len(own) else np.zeros(len(rows), dtype=bool)
        return np.where(found, rows, -1)

    def _find_candidates(self) -> dict[int, list[str]]:
        """Index into `times` → symbols worth deciding in full; everything else is counted into the funnel here."""
        found: dict[int, list[str]] = {}
        if self.settings.recorded is not None:
            for bar_ms, inputs in self.settings.recorded.items():
                index = int(np.searchsorted(self.times, bar_ms))
                if index < len(self.times) and self.times[index] == bar_ms:
                    wanted = {s.symbol for s in inputs.symbols}
                    found[index] = [s for s, rows in self.rows.items() if s in wanted and rows[index] >= 0]
            return found
        for symbol, series in self.series.items():
            present = np.flatnonzero(self.rows[symbol] >= 0)
            chosen = self.funnel.count_columns(
                prefilter(series, self.params, may_short=Side.SHORT in self.sides), self.rows[symbol][present]
            )
            for index in present[chosen]:
                found.setdefault(int(index), []).append(symbol)
        return found

    # ------------------------------------------------------------------------------------------------------------ loop
    def run(self) -> None:
        """Visit every bar at which something can happen."""
        index = 0
        while index < len(self.times):
            if not self.live:
                at = bisect_left(self._waiting, index)
                if at == len(self._waiting):
                    break
                index = self._waiting[at]
            elif not self.settings.visit_every_bar:
                index = self._skip(index)
            self._visit(index)
            index += 1

    def _visit(self, index: int) -> None:
        self.visited += 1
        bar_ms = int(self.times[index])
        close_ms = bar_ms + BASE_MS
        present = {symbol: int(rows[index]) for symbol, rows in self.rows.items() if rows[index] >= 0}
        if self.live:
            if self.opened_ms != bar_ms:
                self._open(bar_ms, present)
                self._act(bar_ms, present)
            self._walk(bar_ms, close_ms, present)
            self._mark(close_ms, drawn=True)
        following: dict[str, int] = {}
        if index + 1 < len(self.times) and self.times[index + 1] == close_ms:
            following = {symbol: int(rows[index + 1]) for symbol, rows in self.rows.items() if rows[index + 1] >= 0}
        self._open(close_ms, following)
        self._manage(bar_ms, present)
        self._act(close_ms, following)
        self._mark(close_ms, drawn=False)
        if self.exits:
            self._act(close_ms, following)  # what the breaker wants leaves at once
        self._decide(index, bar_ms, present, following)
        self.opened_ms = close_ms if following else -1

    # ------------------------------------------------------------------------------------------------------------- bars
    def _feed_open(self, symbol: str, row: int, at_ms: int) -> None:
        bars = self.series[symbol].bars
        before = row > 0 and bars.open_time_ms[row - 1] == at_ms - BASE_MS
        volume = float(bars.volume[row - 1]) if before else 0.0  # the new bar's volume is not known yet
        self._collect(self.account.feed_price(symbol, float(bars.open[row]), volume, at_ms, at_ms))

    def _open(self, at_ms: int, rows: Mapping[str, int]) -> None:
        """The market shows its open to whatever rests."""
        for symbol in sorted({h.position.symbol for h in self.live.values()}):
            if symbol in rows:
                self._feed_open(symbol, rows[symbol], at_ms)

    def _walk(self, bar_ms: int, close_ms: int, present: Mapping[str, int]) -> None:
        for symbol in sorted({h.position.symbol for h in self.live.values()}):
            row = present.get(symbol)
            if row is not None:
                bars = self.series[symbol].bars
                prices = (float(bars.open[row]), float(bars.high[row]), float(bars.low[row]), float(bars.close[row]))
                self._collect(self.account.feed_bar(symbol, prices, float(bars.volume[row]), bar_ms, close_ms - 1))

    # -------------------------------------------------------------------------------------------------------- positions
    def _manage(self, bar_ms: int, present: Mapping[str, int]) -> None:
        """The position rule at the close."""
        for position_id, holding in self.live.items():
            position = holding.position
            row = present.get(position.symbol)
            if row is None or position.entry_price is None:
                continue
            series = self.series[position.symbol]
            close = decimal_of(float(series.bars.close[row]))
            held = bars_held(position, bar_ms, BASE_MS)
            costs, tick = self.costs[position.symbol], series.instrument.tick_size
            action = manage_on_close(position, close, held, self.params, costs, tick)
            holding.managed(action.best_close, moment(bar_ms))
            if isinstance(action, ExitNow):
                self.exits[position_id] = action.reason
            elif isinstance(action, MoveStop):
                self.moves[position_id] = action.price

    def _act(self, at_ms: int, rows: Mapping[str, int]) -> None:
        """Do at the open what is wanted: leave, move stops, heal; what has no price now waits for the next open."""
        for holding in list(self.live.values()):
            position_id, symbol = holding.position.position_id, holding.position.symbol
            if symbol not in rows:
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

    def _mark(self, at_ms: int, *, drawn: bool) -> None:
        """Equity at bid, and the breaker's test."""
        at = moment(at_ms)
        marked = [Marked(h.position.symbol, signed_quantity(h.position)) for h in self.live.values()]
        books = {m.symbol: self.account.book(m.symbol, at) for m in marked if m.quantity}
        equity = ledger_equity(self.settings.capital_quote, self._cash(), marked, books)
        if self.marks.mark(at_ms, equity, drawn=drawn):
            self.exits.update(dict.fromkeys(self.live, "breaker"))

    def _cash(self) -> Decimal:
        return self.closed_cash + sum((h.cash_quote for h in self.live.values()), Decimal(0))

    # -------------------------------------------------------------------------------------------------------- decisions
    def _decide(self, index: int, bar_ms: int, present: Mapping[str, int], following: Mapping[str, int]) -> None:
        symbols = self.candidates.get(index)
        if not symbols:
            return
        for decision in decide(self._inputs(bar_ms, [(symbol, present[symbol]) for symbol in symbols])):
            self.funnel.count(decision)
            self.decisions.append(decision)
            intent = decision.intent
            if intent is None or intent.symbol not in following:
                continue
            assert decision.prediction is not None
            at_ms = bar_ms + BASE_MS
            regime = decision.regime.regime.value if decision.regime is not None else ""
            self._feed_open(intent.symbol, following[intent.symbol], at_ms)
            holding = self.account.enter(intent, decision.prediction.family, regime, at_ms)
            self.live[intent.intent_id] = holding
            self._collect([holding])

    def _inputs(self, bar_ms: int, symbols: Sequence[tuple[str, int]]) -> CycleInputs:
        recorded = self.settings.recorded[bar_ms] if self.settings.recorded is not None else None
        now = moment(bar_ms + BASE_MS) + timedelta(seconds=self.settings.decision_delay_s)
        if recorded is not None:
            now = recorded.now
        max_age = timedelta(seconds=self.params.sentiment_max_age_s)
        symbol_inputs = tuple(self.series[symbol].inputs_at(row, now, max_age) for symbol, row in symbols)
        if recorded is not None:
            symbol_inputs = _judged_as(symbol_inputs, recorded)
        self.scored += sum(s.sentiment is not None and s.sentiment.status == "ok" for s in symbol_inputs)
        return CycleInputs(
            account=self.settings.account,
            bar=moment(bar_ms),
            now=now,
            params=self.params,
            permission=self._permission(now) if recorded is None else recorded.permission,
            portfolio=self._portfolio(now),
            symbols=symbol_inputs,
            correlations=Correlations(self.series, bar_ms + BASE_MS, self.params.correlation_window_bars),
            model_trained_until=self._trained_until(bar_ms) if recorded is None else recorded.model_trained_until,
            losses_lifted_at=None if recorded is None else recorded.losses_lifted_at,
            allowed_sides=self.sides,
        )

    def _permission(self, now: datetime) -> Permission:
        halted = bool(self.marks.halted_until_ms)
        return Permission(
            allowed=not halted,
            reasons=(f"breaker: {self.marks.halt_reason}",) if halted else (),
            mode=TradingMode.HALTED if halted else TradingMode.ACTIVE,
            checked_at=now,
        )

    def _trained_until(self, bar_ms: int) -> datetime | None:
        """The end of the data of the model that decides at this bar; the bar's own close where no model does."""
        spans = self.settings.models
        if spans is None:
            return moment(bar_ms + BASE_MS)
        at = bisect_right(spans, bar_ms, key=lambda span: span.start_ms)
        return moment(spans[at - 1].trained_until_ms) if at else None

    def _portfolio(self, now: datetime) -> Portfolio:
        cash = self.settings.capital_quote + self._cash()
        spendable = self.marks.last if Side.SHORT in self.sides else cash
        return Portfolio(
            account=self.settings.account,
            equity_quote=sizing_equity(self.marks.last, self.settings.max_capital_quote),
            free_quote=max(min(spendable, self.account.free_quote), Decimal(0)),
            day_open_equity_quote=self.marks.day_open,
            peak_equity_quote=self.marks.peak,
            exposures=tuple(exposure_of(h.position, self.params) for h in self.live.values()),
            recent_trades=self._recent(now),
            as_of=now,
        )

    def _recent(self, now: datetime) -> tuple[ClosedTrade, ...]:
        """What was closed in the window; what has left it is forgotten, since time only goes on."""
        while self.recent and now - self.recent[0].closed_at > TRADES_WINDOW:
            self.recent.popleft()
        return tuple(self.recent)

    # --------------------------------------------------------------------------------------------------------- skipping
    def _skip(self, index: int) -> int:
        """The next bar at which something can happen while positions are held, `index` or later; marks what lies
        between."""
        if self.exits or self.moves or self.opened_ms != self.times[index]:
            return index
        at = bisect_left(self._waiting, index)
        last = self._waiting[at] if at < len(self._waiting) else len(self.times) - 1
        for holding in self.live.values():
            if holding.position.entry_price is None or self.account.unprotected(holding):
                return index
            last = self._quiet_until(holding, index, last)
            if last == index:
                return index
        return self._pass_over(index, last)

    def _quiet_until(self, holding: Holding, index: int, last: int) -> int:
        """The first index in [index, last] that the position must see."""
        position = holding.position
        series, symbol = self.series[position.symbol], position.symbol
        stops = self._stops[symbol]
        at = int(np.searchsorted(stops, index))
        last = min(last, int(stops[at]) if at < len(stops) else last)
        if last <= index:
            return index
        first_row = int(self.rows[symbol][index])
        row = next_event(
            position, series.bars, self.ticks[symbol], first_row, first_row + last - index,
            self.account.engine.touch_bounds(symbol), self.params, self.costs[symbol],
            float(series.instrument.tick_size),
        )  # fmt: skip
        return index + row - first_row

    def _pass_over(self, index: int, last: int) -> int:
        """Mark the bars [index, last) at their closes and at the opens after them, and remember the best closes."""
        closes, opens = self._worth(index, last, "close"), self._worth(index + 1, last + 1, "open")
        both = np.column_stack((closes, opens)).ravel()
        last = index + self.marks.first_near_breach(both) // 2
        if last == index:
            return index
        both = both[: 2 * (last - index)]
        if both.max() > float(self.marks.peak) * (1 - 1e-12):
            for at in np.flatnonzero(both >= both.max() * (1 - 1e-12)):
                column = "open" if at % 2 else "close"
                self.marks.peak = max(self.marks.peak, self._exact_worth(index + int(at + 1) // 2, column))
        self.marks.draw(self.times[index:last] + BASE_MS, closes[: last - index])
        for holding in self.live.values():
            self._remember_best(holding, index, last)
        self.opened_ms = -1
        return last

    def _worth(self, first: int, last: int, column: str) -> FloatArray:
        """Equity at a column's prices over the indices [first, last), as floats."""
        worth = np.full(last - first, float(self.settings.capital_quote + self._cash()))
        for holding in self.live.values():
            symbol = holding.position.symbol
            rows = self.rows[symbol][first:last]
            ticks = getattr(self.ticks[symbol], column)[rows]
            ppm = self.account.engine.settings.half_spread_ppm
            sign = sign_of(holding.position.side)
            prices = np.maximum(1, ticks - sign * np.maximum(1, -(-ticks * ppm // 1_000_000)))
            worth += float(signed_quantity(holding.position)) * prices * float(self.series[symbol].instrument.tick_size)
        return worth

    def _exact_worth(self, index: int, column: str) -> Decimal:
        worth = self.settings.capital_quote + self._cash()
        for holding in self.live.values():
            symbol = holding.position.symbol
            ticks = int(getattr(self.ticks[symbol], column)[self.rows[symbol][index]])
            sign = sign_of(holding.position.side)
            price = max(1, ticks - sign * half_spread_ticks(ticks, self.account.engine.settings))
            worth += signed_quantity(holding.position) * price * self.series[symbol].instrument.tick_size
        return worth

    def _remember_best(self, holding: Holding, index: int, last: int) -> None:
        position = holding.position
        bars = self.series[position.symbol].bars
        first_row = int(self.rows[position.symbol][index])
        best = position.best_close if position.best_close is not None else position.entry_price
        assert best is not None
        closes, sign = bars.close[first_row : first_row + last - index], sign_of(position.side)
        furthest = float(closes.max() if sign > 0 else closes.min())
        is_better = sign * (furthest - float(best)) > 0
        holding.managed(decimal_of(furthest) if is_better else best, moment(int(self.times[last - 1])))

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
                self.recent.append(closed)
                self.trades.append(self._trade(holding))

    def _trade(self, holding: Holding) -> Trade:
        position = holding.position
        totals = total(holding.fills, position.side, self.series[position.symbol].instrument)
        assert position.opened_at is not None
        assert position.closed_at is not None
        assert totals.entry_price is not None
        return Trade(
            position_id=position.position_id,
            symbol=position.symbol,
            side=position.side,
            family=position.family.value,
            regime=holding.regime,
            bar_ms=_ms(position.bar),
            entry_ms=_ms(position.opened_at),
            entry_price=float(totals.entry_price),
            exit_ms=_ms(position.closed_at),
            exit_price=float(totals.exit_price or totals.entry_price),
            quantity=float(totals.entry_quantity),
            initial_stop_price=float(position.initial_stop_price),
            target_price=float(position.target_price),
            stop_path=tuple(holding.stop_path),
            net_r=net_r(position),
            net_quote=float(position.realised_quote),
            fees_quote=float(position.fees_quote),
            exit_reason=position.exit_reason,
        )


def _judged_as(symbols: Sequence[SymbolInputs], recorded: CycleInputs) -> tuple[SymbolInputs, ...]:
    """The inputs with what live's own checks had said of the bars by then: that is no property of the bars."""
    known = {s.symbol: s for s in recorded.symbols}
    return tuple(
        replace(
            s,
            quality=known[s.symbol].quality,
            missing=tuple(name for name in known[s.symbol].missing if name == QUALITY),
        )
        for s in symbols
    )


def _ms(at: datetime) -> int:
    return round(at.timestamp() * 1000)
