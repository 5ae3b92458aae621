"""A replay of which only trades and equity are wanted: the compiled loop, and the engine where that hands back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import numpy as np

from tradewind.backtest.booking import decimals_of
from tradewind.backtest.chain import Chain
from tradewind.backtest.results import EquityCurve, Trade, TradeTable
from tradewind.backtest.settings import ReplaySettings
from tradewind.backtest.signals import SymbolSeries, moment
from tradewind.backtest.ticks import TickedSeries, ticked
from tradewind.backtest.timeline import Timeline
from tradewind.core.inputs import CycleInputs
from tradewind.core.matching_book import MatchingSettings
from tradewind.core.params import StrategyParams
from tradewind.core.resampling import BASE_MS
from tradewind.core.risk import Breach
from tradewind.core.types import ClosedTrade, IntArray, Permission, Portfolio, TradingMode

from .columns import candidates_of, market_of, terms_of
from .layout import (
    BOOK,
    ENDED,
    EXPOSURE,
    INTENT,
    LOT,
    MAX_LOTS,
    MOVE,
    POSITION,
    QUIET,
    STATE,
    Account,
    Market,
    Records,
    Stop,
)
from .loop import compiled_run
from .table import Ledger

STRETCH_BARS = 512
"""What the exact chain is given at first when the loop hands back; four times as much where it is not calm by then."""


@dataclass(slots=True, eq=False)
class CompiledRun:
    """One account trading all symbols over the bars opened in [start_ms, end_ms); `go` lives through it.

    Raises ValueError when no symbol has a bar in the range.
    """

    given: Mapping[str, SymbolSeries]
    params: StrategyParams
    start_ms: int
    end_ms: int
    settings: ReplaySettings
    matching: MatchingSettings
    series: dict[str, TickedSeries] = field(init=False)
    times: IntArray = field(init=False)
    trades: TradeTable = field(init=False)
    breaches: list[tuple[int, Breach]] = field(init=False, default_factory=list)
    handed_back: Counter[str] = field(init=False, default_factory=Counter)  # by the reason's name
    held: int = field(init=False, default=0)
    scored: int = field(init=False, default=0)
    visited_exactly: int = field(init=False, default=0)
    market: Market = field(init=False)
    terms: Records = field(init=False)
    candidates: Records = field(init=False)
    account: Account = field(init=False)
    decimals: int = field(init=False)  # how finely money is counted

    def __post_init__(self) -> None:
        self.series = {symbol: ticked(own) for symbol, own in sorted(self.given.items())}
        # Correlations look back beyond the first bar that is traded.
        lead = (self.params.correlation_window_bars + 2) * BASE_MS if len(self.series) > 1 else 0
        timeline = Timeline(self.series, self.start_ms - lead, self.end_ms)
        self.market = market_of(self.series, self.params, timeline, self.start_ms)
        self.times = timeline.times[self.market.first :]
        if len(self.times) == 0:
            raise ValueError("no symbol has a 15m bar in the range: load history, or choose another range")
        self.candidates = candidates_of(self.series, self.params, self.settings, self.market, timeline, self._inputs_at)
        self.decimals = decimals_of(own.instrument for own in self.series.values())
        self.terms = terms_of(self.params, self.settings, self.matching, self.decimals, len(self.candidates))
        self.account = _new_account(self.market, self.terms, len(self.candidates))

    @property
    def bars_seen(self) -> int:
        return int(self.market.present[:, self.market.first :].sum())

    @property
    def visited(self) -> int:
        """The moments at which something was looked at."""
        return int(self.account.state.visited) + self.visited_exactly

    # ------------------------------------------------------------------------------------------------------------- run
    def go(self) -> None:
        """Live through all bars; what the compiled loop hands back the exact chain lives through."""
        loop, state, account = compiled_run(), self.account.state, self.account
        pieces: list[range | list[Trade]] = []
        taken = 0
        while True:
            stopped = Stop(loop(self.market, self.terms, account, self.candidates))
            pieces.append(range(taken, int(state.closed)))
            taken = int(state.closed)
            if stopped is Stop.DONE:
                break
            self.handed_back[stopped.name.lower()] += 1
            pieces.append(self._live_exactly())
        moves = account.moves[: int(state.moves)]
        ledger = Ledger(
            account.closed, moves, self.market.symbols, self.candidates, self.series, self.params,
            self.settings.account, 10**self.decimals,
        )  # fmt: skip
        tables = [TradeTable.of(part) if isinstance(part, list) else ledger.table(part) for part in pieces]
        self.trades = TradeTable.joined(tables)
        self.held += int(state.live)

    def curve(self) -> EquityCurve:
        """Every mark at a close while something was held, the capital at the first moment before them."""
        drawn = self.account.drawn[self.market.first :]
        known = np.isfinite(drawn)
        times = np.concatenate((self.times[:1], self.times[known] + BASE_MS))
        return EquityCurve(times, np.concatenate(([float(self.settings.capital_quote)], drawn[known])))

    # ------------------------------------------------------------------------------------------------------- hand over
    def _live_exactly(self) -> list[Trade]:
        """Let the chain go on from the account's last saved moment until nothing is held; returns what it closed."""
        account, times, bars = self.account, self.market.times, STRETCH_BARS
        state = account.state
        index = int(state.index)
        while True:
            end = min(index + bars, len(times))
            chain = self._chain_over(int(times[index]), int(times[end - 1]) + BASE_MS)
            after = chain.run(until_calm=True)
            if index + after < end or end == len(times):
                break
            bars *= 4
        chain.marks.copy_drawn(account.drawn[index:], 0, after)
        state.cash = int(chain.closed_cash.scaleb(self.decimals))
        for place, own in enumerate(self.series.values()):
            account.books[place].held = chain.account.base_atoms(own.instrument.base)
        state.last_mark, state.peak = float(chain.marks.last), float(chain.marks.peak)
        state.day, state.day_open = chain.marks.day, float(chain.marks.day_open)
        state.index = index + after
        self.held += len(chain.live)
        self.visited_exactly += chain.visited
        self.breaches += chain.marks.breaches
        self._remember(chain.trades)
        return chain.trades

    def _chain_over(self, start_ms: int, end_ms: int) -> Chain:
        """The chain at the account's last saved moment. It must not see the end of its stretch: that is no end."""
        state = self.account.state
        chain = Chain(self.series, self.params, start_ms, end_ms, replace(self.settings, detailed=True))
        cash = Decimal(int(state.cash)).scaleb(-self.decimals)
        base = {
            own.instrument.base: int(held)
            for own, held in zip(self.series.values(), self.account.books.held, strict=True)
        }
        chain.begin_anew(cash, base, self._recent())
        chain.marks.last = self.settings.capital_quote + cash
        chain.marks.peak = Decimal(repr(float(state.peak)))
        chain.marks.day, chain.marks.day_open = int(state.day), Decimal(repr(float(state.day_open)))
        return chain

    def _remember(self, closed: Sequence[Trade]) -> None:
        """Put what the chain closed among the trades that cooldowns and pauses look at."""
        state, ended, names = self.account.state, self.account.ended, list(self.series)
        rows: list[tuple[int, ...]] = ended[int(state.ended_first) : int(state.ended_end)].tolist()
        for trade in closed:
            s = names.index(trade.symbol)
            rows.append((trade.exit_ms, self._rank_of(s, trade.bar_ms), s, int(trade.net_quote < 0)))
        rows.sort()
        state.ended_first, state.ended_end = 0, len(rows)
        for place, row in enumerate(rows):
            ended[place] = row

    def _recent(self) -> Iterator[ClosedTrade]:
        """Those trades as the exact rules see them: of a result they ask its sign, of an id its place in order."""
        state, names = self.account.state, list(self.series)
        rows = self.account.ended[int(state.ended_first) : int(state.ended_end)]
        for at_ms, rank, s, lost in rows.tolist():
            sign = -1 if lost else 1
            yield ClosedTrade(f"{rank:012}", names[s], moment(at_ms), float(sign), Decimal(sign))

    def _rank_of(self, s: int, bar_ms: int) -> int:
        """Where the id of the candidate of a symbol and bar stands among all."""
        index = int(np.searchsorted(self.market.times, bar_ms))
        first, end = np.searchsorted(self.candidates["index"], (index, index + 1))
        found = self.candidates[first:end]
        return int(found["rank"][np.flatnonzero(found["symbol"] == s)[0]])

    # ---------------------------------------------------------------------------------------------------------- inputs
    def _inputs_at(self, symbol: str, row: int) -> CycleInputs:
        """What a cycle would know of one symbol at a row, the account apart: for the gates that look at it alone."""
        own = self.series[symbol]
        bar_ms = int(own.bars.open_time_ms[row])
        now = moment(bar_ms + BASE_MS) + timedelta(seconds=self.settings.decision_delay_s)
        found = own.inputs_at(row, timedelta(seconds=self.params.sentiment_max_age_s))
        self.scored += found.sentiment is not None and found.sentiment.status == "ok"
        capital = self.settings.capital_quote
        return CycleInputs(
            account=self.settings.account,
            bar=moment(bar_ms),
            now=now,
            params=self.params,
            permission=Permission(True, (), TradingMode.ACTIVE, now),
            portfolio=Portfolio(self.settings.account, capital, capital, capital, capital, (), (), now),
            symbols=(found,),
            model_trained_until=self.settings.trained_until(bar_ms),
        )


def _new_account(market: Market, terms: Records, candidates: int) -> Account:
    symbols, moments = market.present.shape
    most = terms.max_positions

    def records(shape: int | tuple[int, int], kind: Any) -> Records:
        return np.zeros(shape, dtype=kind).view(np.recarray)

    state = records(1, STATE)[0]
    state.day, state.index = -1, market.first
    state.last_mark = state.peak = state.day_open = terms.capital / terms.atoms_per_unit
    books = records(symbols, BOOK)
    books.window, books.level, books.last = -1, 1, 1
    return Account(
        state=state,
        saved=records(1, STATE),
        positions=records(most + 1, POSITION),
        lots=records((most + 1, MAX_LOTS), LOT),
        closed=records(candidates + 1, POSITION),
        moves=records(4 * candidates + 10_000, MOVE),
        ended=records(candidates + 1, ENDED),
        intents=records(symbols, INTENT),
        books=books,
        exposures=records(most + symbols, EXPOSURE),
        quiets=records(most + 1, QUIET),
        drawn=np.full(moments, np.nan),
        prices=np.zeros(terms.levels, dtype=np.int64),
        filled=np.zeros(terms.levels, dtype=np.int64),
        order=np.zeros(most + 1, dtype=np.int64),
    )
