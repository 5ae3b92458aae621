"""The positions of a replay: how the market reaches them, what the rules want of them, and what is done about it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal

from tradewind.core.brackets import decimal_of
from tradewind.core.futures_sizing import allowed_sides
from tradewind.core.ledger import closed_trade
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
from tradewind.core.types import ClosedTrade, Side

from .account import SimulatedAccount
from .booking import matching_settings
from .funding import Funding
from .futures_account import FuturesSimulatedAccount
from .holding import Holding, trade_of
from .results import Trade
from .settings import ReplaySettings
from .signals import SymbolSeries, moment
from .ticks import ticked
from .timeline import Timeline


class Tending:
    """One account over all symbols, its live positions, and what their rules want at the next open.

    `moves` and `exits` name by position what is wanted, `recent` is what was closed lately, for cooldowns and pauses.
    """

    def __init__(
        self,
        series: Mapping[str, SymbolSeries],
        params: StrategyParams,
        start_ms: int,
        end_ms: int,
        settings: ReplaySettings,
    ) -> None:
        self.series = {symbol: ticked(s) for symbol, s in sorted(series.items())}
        self.params, self.rules = params, params.position_rules
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
        self.ticks = {symbol: s.ticks for symbol, s in self.series.items()}
        self.timeline = Timeline(self.series, start_ms, end_ms)
        self.times = self.timeline.times
        self.funding: Funding | None = None
        if settings.funding is not None and Side.SHORT in self.sides:
            self.funding = Funding(settings.funding, self.timeline, self.ticks)
        self.recent: deque[ClosedTrade] = deque(settings.recent_trades)
        self.trades: list[Trade] = []
        self.closed_cash = Decimal(0)
        self.live: dict[str, Holding] = {}
        self.moves: dict[str, Decimal] = {}
        self.exits: dict[str, str] = {}

    def begin_anew(self, cash_quote: Decimal, base: Mapping[str, int], recent: Iterable[ClosedTrade]) -> None:
        """Nothing is held, trading has moved `cash_quote`, and of each base asset these atoms are left."""
        self.closed_cash = cash_quote
        quote = self.account.engine.atoms(self.settings.capital_quote + cash_quote)
        self.account.have({**base, self.account.quote_asset: quote})
        self.recent.clear()
        self.recent.extend(recent)

    def _settle_funding(self, index: int) -> None:
        """What is due as the bar at an index has closed, before anything is done at the next one's open."""
        if self.funding is not None:
            assert isinstance(self.account, FuturesSimulatedAccount)
            self.closed_cash += self.funding.settle(self.account.futures, index)

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
            action = manage_on_close(holding.position, close, held, self.rules, costs, tick)
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
            if stop_failed(holding.position, leaves_at, self.rules):
                self.exits.setdefault(position_id, FAILED_STOP)
            reason, stop = self.exits.pop(position_id, None), self.moves.pop(position_id, None)
            if reason is not None:
                self.account.leave(holding, at_ms, reason)
            elif stop is not None:
                self.account.protect(holding, stop, at_ms, "moved")
            else:
                self.account.converge(holding, at_ms)
            self._collect([holding])

    def _cash(self) -> Decimal:
        return self.closed_cash + sum((h.cash_quote for h in self.live.values()), Decimal(0))

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
                self.trades.append(trade_of(holding, closed.net_r))
