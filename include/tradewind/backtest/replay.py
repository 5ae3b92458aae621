"""The live chain over stored bars: the same stages, filters, sizes, brackets and position rules, with another clock.

One account trades all symbols. At the close of each bar the chain decides and manages; what it wants is done at the
open of the next bar, where the matching engine fills it with spread, slippage, fees and the bar's volume. Only bars at
which something can happen are visited: a vectorised prefilter (`signals.prefilter`) names the bars worth deciding, and
from an entry to its end every bar is walked.

Two things differ from live, and are said in the result's notes: equity is marked at closes, not every two seconds, and
after a breaker trip trading resumes at the next UTC midnight, as if a person had looked by then.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal

import numpy as np

from tradewind.core.brackets import decimal_of
from tradewind.core.decision import decide
from tradewind.core.filters import FILTER_ORDER
from tradewind.core.inputs import CycleInputs, pair_key
from tradewind.core.ledger import closed_trade, net_r, signed_quantity, total
from tradewind.core.market_numbers import return_correlation
from tradewind.core.matching_book import MatchingSettings
from tradewind.core.params import StrategyParams
from tradewind.core.positions import Costs, ExitNow, MoveStop, bars_held, manage_on_close
from tradewind.core.resampling import BASE_MS
from tradewind.core.risk import Breach, breached, exposure_of, ledger_equity
from tradewind.core.risk import Holding as Marked
from tradewind.core.types import (
    ClosedTrade,
    Decision,
    Fill,
    IntArray,
    Intent,
    Order,
    Outcome,
    Permission,
    Portfolio,
    Side,
    TradingMode,
)

from .account import Holding, SimulatedAccount, matching_settings
from .results import EquityPoint, FunnelRow, RunResult, Trade
from .signals import SymbolSeries, moment, prefilter

DAY_MS = 86_400_000
RECENT_TRADES = 200
TRADES_WINDOW = timedelta(days=30)  # as far back as live looks for losses and cooldowns


@dataclass(frozen=True, slots=True)
class ReplaySettings:
    """How a replay is run. `trained_until_ms` is the end of the model's data; None: its age is not judged."""

    capital_quote: Decimal = Decimal(10_000)
    account: str = "replay"
    decision_delay_s: float = 5.0  # from a bar's close to the decision, as live measures it
    trained_until_ms: int | None = None
    matching: MatchingSettings | None = None  # None: the strategy's own spread and slippage
    shown_decisions: int = 400


@dataclass(frozen=True, slots=True, eq=False)
class ReplayResult:
    """The run as the report shows it, and everything underneath."""

    run: RunResult
    decisions: Sequence[Decision]  # of every candidate that was decided in full
    orders: Sequence[Order]
    fills: Sequence[Fill]
    breaches: Sequence[tuple[int, Breach]]
    bars_seen: int
    bars_visited: int
    sentiment_coverage_frac: float  # share of the full decisions for which a stored score was known


@dataclass(slots=True)
class _Funnel:
    """Verdicts counted by filter."""

    passed: dict[str, int] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)
    first: dict[str, int] = field(default_factory=dict)

    def add(self, name: str, passed: int, refused: int, first: int) -> None:
        self.passed[name] = self.passed.get(name, 0) + passed
        self.refused[name] = self.refused.get(name, 0) + refused
        self.first[name] = self.first.get(name, 0) + first

    def rows(self) -> list[FunnelRow]:
        return [
            FunnelRow(name, self.passed[name], self.refused[name], self.first[name])
            for name in FILTER_ORDER
            if name in self.passed
        ]


class _Correlations(Mapping[str, float]):
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


def replay(
    series: Mapping[str, SymbolSeries],
    params: StrategyParams,
    start_ms: int,
    end_ms: int,
    settings: ReplaySettings | None = None,
    *,
    title: str = "Replay",
    labels: Sequence[str] = (),
) -> ReplayResult:
    """Trade the bars opened in [start_ms, end_ms). Bars before it are warm-up: read, never traded.

    Deterministic. Long only: the simulated market is spot. Raises ValueError when no symbol has a bar in the range.
    """
    return _Replay(series, params, start_ms, end_ms, settings or ReplaySettings()).run(title, labels)


class _Replay:
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
        self.start_ms, self.end_ms = start_ms, end_ms
        self.settings = settings
        instruments = {symbol: s.instrument for symbol, s in self.series.items()}
        self.account = SimulatedAccount(
            settings.account, instruments, settings.capital_quote, settings.matching or matching_settings(params)
        )
        self.costs = {s: Costs.of(params, float(i.taker_fee_frac)) for s, i in instruments.items()}
        self.funnel = _Funnel()
        self.decisions: list[Decision] = []
        self.trades: list[Trade] = []
        self.recent: list[ClosedTrade] = []
        self.equity: list[EquityPoint] = []
        self.breaches: list[tuple[int, Breach]] = []
        self.closed_cash = Decimal(0)
        self.live: dict[str, Holding] = {}
        self.entries: list[Intent] = []  # to be sent at the next open
        self.moves: dict[str, Decimal] = {}
        self.exits: dict[str, str] = {}
        self.day = -1
        self.day_open = self.peak = self.last_equity = settings.capital_quote
        self.halted_until_ms = 0
        self.halt_reason = ""
        self.scored = 0
        self.visited = 0
        every = [s.bars.open_time_ms for s in self.series.values()]
        merged = np.unique(np.concatenate(every)) if every else np.empty(0, dtype=np.int64)
        self.times: IntArray = merged[(merged >= start_ms) & (merged < end_ms)]
        if len(self.times) == 0:
            raise ValueError("no symbol has a 15m bar in the range: load history, or choose another range")
        self.rows = {symbol: self._rows_of(s) for symbol, s in self.series.items()}
        self.candidates = self._find_candidates()

    # ----------------------------------------------------------------------------------------------------- preparation
    def _rows_of(self, series: SymbolSeries) -> IntArray:
        """For each visited moment the row of the symbol's bar, −1 where it has none."""
        own = series.bars.open_time_ms
        rows = np.searchsorted(own, self.times)
        found = own[np.minimum(rows, len(own) - 1)] == self.times if len(own) else np.zeros(len(rows), dtype=bool)
        return np.where(found, rows, -1)

    def _find_candidates(self) -> dict[int, list[str]]:
        """Index into `times` → symbols worth deciding in full; everything else is counted into the funnel here."""
        found: dict[int, list[str]] = {}
        for symbol, series in self.series.items():
            masks = prefilter(series, self.params)
            rows = self.rows[symbol]
            present = np.flatnonzero(rows >= 0)
            inside = rows[present]
            undecided = np.ones(len(inside), dtype=bool)
            chosen = np.logical_and.reduce([mask[inside] for mask in masks.values()])
            for name in sorted(masks, key=FILTER_ORDER.index):
                mask = masks[name][inside]
                rest = ~chosen
                first = int((undecided & ~mask & rest).sum())
                self.funnel.add(name, int((mask & rest).sum()), int((~mask & rest).sum()), first)
                undecided &= mask
            for index in present[chosen]:
                found.setdefault(int(index), []).append(symbol)
        return found

    # ------------------------------------------------------------------------------------------------------------ loop
    def run(self, title: str, labels: Sequence[str]) -> ReplayResult:
        waiting = sorted(self.candidates)
        next_waiting = 0
        index = 0
        while index < len(self.times):
            busy = self.live or self.entries
            if not busy:
                while next_waiting < len(waiting) and waiting[next_waiting] < index:
                    next_waiting += 1
                if next_waiting == len(waiting):
                    break
                index = waiting[next_waiting]
            self._visit(index)
            index += 1
        return self._result(title, labels)

    def _visit(self, index: int) -> None:
        self.visited += 1
        bar_ms = int(self.times[index])
        close_ms = bar_ms + BASE_MS
        present = {symbol: int(rows[index]) for symbol, rows in self.rows.items() if rows[index] >= 0}
        self._begin_day(bar_ms)
        self._open_bar(bar_ms, present)
        self._walk_bar(bar_ms, close_ms, present)
        self._manage(bar_ms, present)
        self._mark(close_ms)
        self._decide(index, bar_ms, present)

    def _begin_day(self, bar_ms: int) -> None:
        day = bar_ms // DAY_MS
        if day != self.day:
            # Every bar is visited while something is held, so the last mark is the one at midnight, or nothing moved.
            self.day, self.day_open = day, self.last_equity
        if self.halted_until_ms and bar_ms >= self.halted_until_ms:
            self.halted_until_ms, self.halt_reason = 0, ""
            self.peak = self.last_equity

    def _open_bar(self, bar_ms: int, present: Mapping[str, int]) -> None:
        """The open: resting orders meet it first, then what was decided at the last close is sent."""
        entries, self.entries = self.entries, []
        involved = {h.position.symbol for h in self.live.values()} | {intent.symbol for intent in entries}
        for symbol in sorted(involved):
            row = present.get(symbol)
            if row is not None:
                bars = self.series[symbol].bars
                changed = self.account.feed_price(
                    symbol, float(bars.open[row]), float(bars.volume[row]), bar_ms, bar_ms
                )
                self._collect(changed)
        for holding in list(self.live.values()):
            position_id, symbol = holding.position.position_id, holding.position.symbol
            if symbol not in present:
                continue
            reason, stop = self.exits.pop(position_id, None), self.moves.pop(position_id, None)
            if reason is not None:
                self.account.leave(holding, bar_ms, reason)
            elif stop is not None:
                self.account.protect(holding, stop, bar_ms, "moved")
            elif self.account.unprotected(holding):
                self.account.protect(holding, holding.position.stop_price, bar_ms, "healed")
            self._collect([holding])
        for intent in entries:
            if intent.symbol in present and bar_ms <= round(intent.expires_at.timestamp() * 1000):
                series = self.series[intent.symbol]
                regime = series.regime_at(present[intent.symbol] - 1)
                decided = next(d for d in reversed(self.decisions) if d.intent is intent)
                assert decided.prediction is not None
                holding = self.account.enter(
                    intent, decided.prediction.family, regime.regime.value if regime else "", bar_ms
                )
                self.live[intent.intent_id] = holding
                self._collect([holding])

    def _walk_bar(self, bar_ms: int, close_ms: int, present: Mapping[str, int]) -> None:
        for symbol in sorted({h.position.symbol for h in self.live.values()}):
            row = present.get(symbol)
            if row is not None:
                bars = self.series[symbol].bars
                prices = (float(bars.open[row]), float(bars.high[row]), float(bars.low[row]), float(bars.close[row]))
                self._collect(self.account.feed_bar(symbol, prices, float(bars.volume[row]), bar_ms, close_ms - 1))

    def _manage(self, bar_ms: int, present: Mapping[str, int]) -> None:
        """The position rule at the close; what it asks for is done at the next open."""
        for position_id, holding in self.live.items():
            position = holding.position
            row = present.get(position.symbol)
            if row is None or position.entry_price is None:
                continue
            series = self.series[position.symbol]
            close = decimal_of(float(series.bars.close[row]))
            action = manage_on_close(
                position,
                close,
                bars_held(position, bar_ms, BASE_MS),
                self.params,
                self.costs[position.symbol],
                series.instrument.tick_size,
            )
            holding.managed(action.best_close, moment(bar_ms))
            if isinstance(action, ExitNow):
                self.exits[position_id] = action.reason
            elif isinstance(action, MoveStop):
                self.moves[position_id] = action.price

    def _mark(self, close_ms: int) -> None:
        """Equity at bid, and the breaker's test."""
        at = moment(close_ms)
        marked = [Marked(h.position.symbol, signed_quantity(h.position)) for h in self.live.values()]
        books = {m.symbol: self.account.book(m.symbol, at) for m in marked if m.quantity}
        cash = self.closed_cash + sum((h.cash_quote for h in self.live.values()), Decimal(0))
        self.last_equity = ledger_equity(self.settings.capital_quote, cash, marked, books)
        self.peak = max(self.peak, self.last_equity)
        self.equity.append(EquityPoint(close_ms, float(self.last_equity)))
        if self.halted_until_ms:
            return
        breach = breached(self.last_equity, self.day_open, self.peak, self.params)
        if breach is not None:
            self.breaches.append((close_ms, breach))
            self.halted_until_ms = (close_ms // DAY_MS + 1) * DAY_MS
            self.halt_reason = breach.reason
            self.exits.update(dict.fromkeys(self.live, "breaker"))

    def _decide(self, index: int, bar_ms: int, present: Mapping[str, int]) -> None:
        symbols = self.candidates.get(index)
        if not symbols:
            return
        inputs = self._inputs(bar_ms, [(symbol, present[symbol]) for symbol in symbols])
        for decision in decide(inputs):
            self._count(decision)
            self.decisions.append(decision)
            if decision.intent is not None:
                self.entries.append(decision.intent)

    def _inputs(self, bar_ms: int, symbols: Sequence[tuple[str, int]]) -> CycleInputs:
        known_at = moment(bar_ms + BASE_MS)
        now = known_at + timedelta(seconds=self.settings.decision_delay_s)
        halted = bool(self.halted_until_ms)
        permission = Permission(
            allowed=not halted,
            reasons=(f"breaker: {self.halt_reason}",) if halted else (),
            mode=TradingMode.HALTED if halted else TradingMode.ACTIVE,
            checked_at=now,
        )
        trained = self.settings.trained_until_ms
        symbol_inputs = tuple(self.series[symbol].inputs_at(row, now) for symbol, row in symbols)
        self.scored += sum(s.sentiment is not None and s.sentiment.status == "ok" for s in symbol_inputs)
        return CycleInputs(
            account=self.settings.account,
            bar=moment(bar_ms),
            now=now,
            params=self.params,
            permission=permission,
            portfolio=self._portfolio(now),
            symbols=symbol_inputs,
            correlations=_Correlations(self.series, bar_ms + BASE_MS, self.params.correlation_window_bars),
            model_trained_until=known_at if trained is None else moment(trained),
            allowed_sides=(Side.LONG,),
        )

    def _portfolio(self, now: datetime) -> Portfolio:
        return Portfolio(
            account=self.settings.account,
            equity_quote=self.last_equity,
            free_quote=self.account.free_quote,
            day_open_equity_quote=self.day_open,
            peak_equity_quote=self.peak,
            exposures=tuple(exposure_of(h.position, self.params) for h in self.live.values()),
            recent_trades=tuple(t for t in self.recent[-RECENT_TRADES:] if now - t.closed_at <= TRADES_WINDOW),
            as_of=now,
        )

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

    def _count(self, decision: Decision) -> None:
        first = next((v.filter for v in decision.verdicts if not v.passed), None)
        for verdict in decision.verdicts:
            self.funnel.add(verdict.filter, int(verdict.passed), int(not verdict.passed), int(verdict.filter == first))

    def _result(self, title: str, labels: Sequence[str]) -> ReplayResult:
        held = sum(h.position.entry_quantity > 0 for h in self.live.values())
        decided = max(len(self.decisions), 1)
        notes = [
            f"{len(self.times)} bars of {len(self.series)} symbols; {self.visited} visited, "
            f"{len(self.decisions)} candidates decided in full",
            f"a stored sentiment score was known for {self.scored / decided:.0%} of them, the others were neutral",
            "equity is marked at bar closes; after a breaker trip trading resumes at the next UTC midnight",
        ]
        if held:
            notes.append(f"{held} positions are still open at the end: in the equity, not among the trades")
        holdings = list(self.account.holdings.values())
        run = RunResult(
            title=title,
            labels=list(labels),
            strategy_version=self.params.strategy_version,
            start_ms=int(self.times[0]),
            end_ms=int(self.times[-1]) + BASE_MS,
            initial_equity_quote=float(self.settings.capital_quote),
            trades=self.trades,
            equity=[EquityPoint(int(self.times[0]), float(self.settings.capital_quote)), *self.equity],
            funnel=self.funnel.rows(),
            decisions=[decision_row(d) for d in reversed(self.decisions[-self.settings.shown_decisions :])],
            bars={symbol: s.bars for symbol, s in self.series.items()},
            notes=notes,
        )
        return ReplayResult(
            run=run,
            decisions=self.decisions,
            orders=[order for h in holdings for order in h.orders.values()],
            fills=[fill for h in holdings for fill in h.fills],
            breaches=self.breaches,
            bars_seen=int(sum((rows >= 0).sum() for rows in self.rows.values())),
            bars_visited=self.visited,
            sentiment_coverage_frac=self.scored / decided,
        )


def decision_row(decision: Decision) -> dict[str, object]:
    """One line of the report's decision table."""
    prediction, regime = decision.prediction, decision.regime
    return {
        "bar": f"{decision.bar:%Y-%m-%d %H:%M}",
        "symbol": decision.symbol,
        "outcome": decision.outcome.value,
        "p long": f"{prediction.p_long:.3f}" if prediction is not None else "",
        "p short": f"{prediction.p_short:.3f}" if prediction is not None else "",
        "expected R": f"{prediction.expected_r_long:.3f}" if prediction is not None else "",
        "regime": regime.regime.value if regime is not None else "",
        "reason": decision.reason if decision.outcome is not Outcome.INTENT else "",
    }


def _ms(at: datetime) -> int:
    return round(at.timestamp() * 1000)
