"""The futures side of the paper exchange: its engine, wallets, funding, and what of it is kept.

It shares market, clock, keys and store with the spot side. The mark price is the last price; funding is settled at
00:00, 08:00 and 16:00 UTC at a rate that follows the price change of the eight hours before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from decimal import Decimal
from typing import Any, Final

import numpy as np

from tradewind.core.futures import FUNDING_INTERVAL_MS, RATE_UNITS, funding_times, make_brackets, rate_of_move
from tradewind.core.futures_accounts import FuturesAccount, Income, IncomeKind
from tradewind.core.futures_engine import FuturesEngine
from tradewind.core.matching_book import MatchingSettings
from tradewind.core.matching_conditions import MarketConditions
from tradewind.core.matching_rules import SymbolRules
from tradewind.core.matching_types import Fill, Order, Refusal, RejectReason
from tradewind.core.matching_walk import Stretch, walk
from tradewind.core.types import MaintenanceBracket
from tradewind.paper.market_view import MarketView
from tradewind.paper.store import Rows, read_fill, read_order, to_json

_MAJORS: Final = ("BTC", "ETH")
_MAJOR_BRACKETS: Final = make_brackets(
    [
        ("0", "0.004", 125), ("300000", "0.005", 100), ("800000", "0.0065", 75), ("3000000", "0.01", 50),
        ("12000000", "0.02", 25), ("70000000", "0.025", 20), ("100000000", "0.05", 10), ("230000000", "0.1", 5),
    ]
)  # fmt: skip
_OTHER_BRACKETS: Final = make_brackets(
    [
        ("0", "0.01", 75), ("50000", "0.015", 50), ("250000", "0.02", 25), ("1000000", "0.05", 10),
        ("5000000", "0.1", 5), ("10000000", "0.125", 4), ("20000000", "0.25", 2),
    ]
)  # fmt: skip
MAX_ALGO_ORDERS: Final = 200
MAX_CALLBACK_BPS: Final = 1_000


@dataclass(frozen=True, slots=True)
class FuturesTrade:
    """A fill and the result it realised."""

    fill: Fill
    realised_atoms: int


def brackets_of(rules: SymbolRules) -> tuple[MaintenanceBracket, ...]:
    """The maintenance brackets of a market: the two largest carry more."""
    return _MAJOR_BRACKETS if rules.base in _MAJORS else _OTHER_BRACKETS


class FuturesExchange:
    """All futures state of one running exchange. `quote` is the asset that wallets hold."""

    def __init__(
        self,
        rules: Mapping[str, SymbolRules],
        view: MarketView,
        conditions: MarketConditions,
        settings: MatchingSettings | None,
    ) -> None:
        own = [replace(r, max_algo_orders=MAX_ALGO_ORDERS, max_trailing_bps=MAX_CALLBACK_BPS) for r in rules.values()]
        self.brackets = {r.symbol: brackets_of(r) for r in own}
        self.engine = FuturesEngine(own, self.brackets, settings, conditions)
        self.quote = own[0].quote if own else "USDT"
        self.view = view
        self.trades: dict[tuple[str, str], list[FuturesTrade]] = {}  # (account, symbol) -> oldest first
        self.incomes: dict[str, list[Income]] = {}

    # ------------------------------------------------------------------------------------------------------- accounts
    def account(self, account_id: str) -> FuturesAccount:
        """The account's wallet, opened empty when it is asked for the first time."""
        found = self.engine.margins.get(account_id)
        if found is None:
            self.engine.open_account(account_id, {})
            found = self.engine.margins[account_id]
        return found

    def touched_ms(self, account_id: str) -> int:
        """When the wallet last moved; 0 when it never has."""
        moved = self.incomes.get(account_id)
        return moved[-1].time_ms if moved else 0

    def deposit(self, account_id: str, atoms: int, now_ms: int) -> None:
        """Move money in, or out (negative). Raises Refusal beyond what is free."""
        self.account(account_id)
        self.engine.transfer(account_id, atoms, now_ms)

    # --------------------------------------------------------------------------------------------------------- market
    def walk(self, start_ms: int, end_ms: int) -> None:
        """Let every order and position meet the market from start to end, funding settled in its course."""
        if not self.engine.symbols_with_orders():
            return
        at = start_ms
        for moment in funding_times(start_ms, end_ms):
            self._match(at, moment)
            self._settle_funding(moment)
            at = moment
        self._match(at, end_ms)

    def _match(self, start_ms: int, end_ms: int) -> None:
        if start_ms == end_ms:
            return

        def stretch_of(symbol: str) -> Stretch:
            bars, ends = self.view.segments(symbol, start_ms, end_ms)
            ends_ms = np.asarray(ends, np.int64)
            return Stretch(bars.open_ms, ends_ms, bars.open, bars.high, bars.low, bars.close, bars.volume)

        for _ in walk(self.engine, stretch_of):
            pass

    def _settle_funding(self, moment: int) -> None:
        for symbol in self.engine.symbols_with_orders():
            mark = self.view.price(symbol, moment)
            if mark is not None:
                rate = self.funding_rate(symbol, moment)
                self.engine.settle_funding(symbol, mark, int(rate * RATE_UNITS), moment)

    def funding_rate(self, symbol: str, moment: int) -> Decimal:
        """The rate settled at a funding moment, or due there if it settled now; known from the market alone."""
        return rate_of_move(self.view.price(symbol, moment - FUNDING_INTERVAL_MS), self.view.price(symbol, moment))

    def refresh(self, symbol: str, now_ms: int) -> None:
        """Show the engine the price of this moment; what it touches happens."""
        price = self.view.price(symbol, now_ms)
        if price is None:
            return
        volume, average = self.view.liquidity(symbol, now_ms)
        window = now_ms // self.view.base_ms * self.view.base_ms
        self.engine.on_price(symbol, price, volume, window, now_ms, average)

    def mark(self, symbol: str, now_ms: int) -> int:
        """The mark price in ticks. Raises Refusal(MARKET_CLOSED) before the first bar."""
        price = self.view.price(symbol, now_ms)
        if price is None:
            raise Refusal(RejectReason.MARKET_CLOSED)
        return price

    # ---------------------------------------------------------------------------------------------------------- store
    def collect(self, rows: Rows) -> None:
        """Take the engine's changes into the indexes and into the rows of the next commit."""
        changes = self.engine.drain()
        accounts, incomes, results = self.engine.drain_futures()
        for order_id, order in changes.orders.items():
            rows.put("futures", ("order", str(order_id)), to_json(order))
        for fill in changes.fills:
            trade = FuturesTrade(fill, results[(fill.symbol, fill.trade_id)])
            self._index(trade)
            rows.put("futures", ("trade", f"{fill.symbol}:{fill.trade_id}"), to_json(asdict(trade)))
            accounts.add(fill.account_id)
        for income in incomes:
            self.incomes.setdefault(income.account_id, []).append(income)
            rows.put("futures", ("income", str(income.income_id)), to_json(income))
        for account_id in accounts:
            rows.put("futures", ("account", account_id), to_json(self.engine.margins[account_id].as_row()))

    def restore(self, saved: Mapping[tuple[str, str], Any]) -> None:
        """Take over saved rows; accounts first, since orders belong to them."""
        kinds: dict[str, dict[str, Any]] = {}
        for (kind, key), data in saved.items():
            kinds.setdefault(kind, {})[key] = data
        for account_id, data in kinds.get("account", {}).items():
            self.engine.open_account(account_id, {})
            self.engine.restore_account(FuturesAccount.from_row(account_id, data))
        trades = [
            FuturesTrade(read_fill(data["fill"]), data["realised_atoms"]) for data in kinds.get("trade", {}).values()
        ]
        last: dict[str, int] = {}
        for trade in sorted(trades, key=lambda t: (t.fill.symbol, t.fill.trade_id)):
            self._index(trade)
            last[trade.fill.symbol] = trade.fill.trade_id
        orders: list[Order] = [read_order(data) for data in kinds.get("order", {}).values()]
        self.engine.restore(orders, [], last)
        incomes = [Income(**{**data, "kind": IncomeKind(data["kind"])}) for data in kinds.get("income", {}).values()]
        for income in sorted(incomes, key=lambda i: i.income_id):
            self.incomes.setdefault(income.account_id, []).append(income)
            self.engine.next_income_id = income.income_id + 1
        self.engine.drain_futures()

    def _index(self, trade: FuturesTrade) -> None:
        self.trades.setdefault((trade.fill.account_id, trade.fill.symbol), []).append(trade)
