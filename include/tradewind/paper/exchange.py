"""The exchange's state and the order of its events: market, clock, engine, accounts and store in one place.

Every command runs without a pause between reading and changing the engine; what changed is then handed to the store,
and the answer waits for the commit. Before each command the market is walked up to now, so that what should have been
filled has been.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import Any

import numpy as np

from tradewind.core.matching import Engine
from tradewind.core.matching_book import MatchingSettings
from tradewind.core.matching_rules import amount, atoms
from tradewind.core.matching_types import Account, Fill, PreventedMatch
from tradewind.core.matching_walk import Stretch, walk
from tradewind.errors import IdentityMismatch
from tradewind.paper.archive import Archive
from tradewind.paper.books import Shape
from tradewind.paper.clock import MarketClock
from tradewind.paper.conditions import Conditions
from tradewind.paper.futures_exchange import FuturesExchange
from tradewind.paper.kline_rows import KlineRows
from tradewind.paper.market_view import MarketView, Shock
from tradewind.paper.markets import DAY_MS, Market
from tradewind.paper.markets_public import PublicMarket, PublicView, rules_from_listing
from tradewind.paper.markets_replay import ReplayMarket
from tradewind.paper.store import PaperStore, Rows, SavedState, to_json

log = logging.getLogger(__name__)
FEE_ASSET = "BNB"
_STEP_MS = 2 * DAY_MS
"""A long step is walked in pieces of this length, to bound memory."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    api_key: str
    api_secret: str
    account_id: str
    can_trade: bool = True


@dataclass(frozen=True, slots=True)
class Transfer:
    """Money that came from outside, or went there (negative)."""

    transfer_id: int
    account_id: str
    asset: str
    atoms: int
    time_ms: int


class PaperExchange:
    """All state of one running exchange. `store` may be None for a throw-away exchange in process."""

    def __init__(
        self,
        market: Market,
        store: PaperStore | None,
        settings: MatchingSettings | None = None,
        fee_ppm: int = 1000,
        start_ms: int | None = None,
    ) -> None:
        self.market = market
        self.start_ms = start_ms  # where a new market's clock stands, frozen; None lets it run with the wall
        self.view = PublicView(market) if isinstance(market, PublicMarket) else MarketView(market)
        self._listings: dict[str, dict[str, Any]] = {}
        self.kline_rows = KlineRows(self.view)
        self.engine = Engine(market.rules.values(), settings, price_of=self.view.price)
        self.futures = FuturesExchange(market.rules, self.view, self.engine.conditions, settings)
        self.conditions = Conditions(market.rules, self.engine, self.futures.engine)
        self.transfers: list[Transfer] = []
        self.prevented: list[PreventedMatch] = []
        self.store = store
        self.fee_ppm = fee_ppm
        self.clock = MarketClock()
        self.keys: dict[str, ApiKey] = {}
        self.accounts: dict[str, dict[str, Any]] = {}
        self.fills: dict[tuple[str, str], list[Fill]] = {}
        self.fills_by_order: dict[int, list[Fill]] = {}
        self.processed_ms = 0
        self.archived_order_id = 0  # no order above it is only in the database
        self._extra = Rows()

    # ---------------------------------------------------------------------------------------------------- start, store
    def restore(self, state: SavedState, wall_ms: int, *, own_time: bool = False) -> None:
        """Take over saved state. Raises IdentityMismatch when it belongs to another market.

        A recording is shifted to end now, once and for all; with `own_time` it keeps its times and the clock stands
        still at its end.
        """
        stamped = state.meta.get("identity")
        if stamped is not None and stamped != self.market.identity:
            raise IdentityMismatch(
                f"this database holds the state of the market '{stamped}', not '{self.market.identity}';"
                " use another database or the same market settings"
            )
        if stamped is None:
            self._extra.put("meta", ("identity",), to_json(self.market.identity))
        if isinstance(self.market, ReplayMarket):
            self._place_recording(self.market, state, wall_ms, own_time)
        if "clock" in state.meta:
            self.clock = MarketClock(**state.meta["clock"])
        elif self.start_ms is not None:
            self.clock = MarketClock.frozen(self.start_ms, wall_ms)
            self._extra.put("meta", ("clock",), to_json(self.clock.as_row()))
        else:
            self.clock = MarketClock(wall_ms, wall_ms)
        for shock in state.meta.get("shocks", []):
            self.view.add_shock(Shock(**shock))
        self.adopt_listings(state.meta.get("listings", {}))
        balances: dict[str, dict[str, int]] = {}
        for (account_id, asset), held in state.balances.items():
            balances.setdefault(account_id, {})[asset] = held
        for account_id, data in state.accounts.items():
            self.accounts[account_id] = data
            self.engine.open_account(
                account_id,
                balances.get(account_id, {}),
                maker_fee_ppm=data["maker_fee_ppm"],
                taker_fee_ppm=data["taker_fee_ppm"],
            )
            set_fees(self.engine.book.accounts[account_id], data)
        self.keys = {k: ApiKey(**v) for k, v in state.keys.items()}
        for fill in state.fills:
            self._index_fill(fill)
        self.engine.restore(state.orders, state.lists, state.last_trade_ids, state.last_order_id, state.last_list_id)
        if self.store is not None:
            self.archived_order_id = max(0, state.last_order_id - self.store.kept_orders)
        self.futures.restore(state.futures)
        for account_id, data in self.accounts.items():
            if "futures" in data:
                self.futures.account(account_id)
                set_fees(self.futures.engine.book.accounts[account_id], data["futures"])
        self.transfers = [Transfer(**row) for row in state.meta.get("transfers", [])]
        self.prevented = [PreventedMatch(**row) for row in state.meta.get("prevented", [])]
        self.engine.next_match_id = len(self.prevented)
        self.processed_ms = state.meta.get("processed_ms", self.now_ms(wall_ms))
        self.conditions.restore(state.meta.get("conditions", {}))
        for symbol in self.engine.rules:
            self.refresh(symbol, self.processed_ms)

    def _place_recording(self, market: ReplayMarket, state: SavedState, wall_ms: int, own_time: bool) -> None:
        if "shift_ms" in state.meta:
            market.shift_ms = state.meta["shift_ms"]
            return
        if not own_time:
            market.end_at(wall_ms)
        elif self.start_ms is None:
            self.start_ms = market.end_ms()
        self._extra.put("meta", ("shift_ms",), to_json(market.shift_ms))

    def take_rows(self) -> Rows:
        """What changed since the last call, as rows for the store. Fills are indexed on the way."""
        self.collect()
        rows, self._extra = self._extra, Rows()
        return rows

    def collect(self) -> None:
        """Take the engine's changes into the indexes and into the rows of the next commit."""
        rows = self._extra
        changes = self.engine.drain()
        for order_id, order in changes.orders.items():
            rows.put("orders", (order_id,), to_json(order))
        for list_id, order_list in changes.lists.items():
            rows.put("lists", (list_id,), to_json(order_list))
        for fill in changes.fills:
            self._index_fill(fill)
            rows.put("fills", (fill.symbol, fill.trade_id), to_json(fill))
        if changes.prevented:
            self.prevented += changes.prevented
            rows.put("meta", ("prevented",), to_json([asdict(match) for match in self.prevented]))
        for account_id, asset in changes.balances:
            rows.put("balances", (account_id, asset), self.engine.book.accounts[account_id].balance(asset).total)
        self.futures.collect(rows)
        if rows:
            rows.put("meta", ("processed_ms",), to_json(self.processed_ms))

    async def commit(self) -> None:
        """Hand over what changed and wait until it, and everything before it, is on disk."""
        rows = self.take_rows()
        if self.store is not None:
            self.store.submit(rows)
            await self.store.flushed()
            if len(self.engine.orders) > self.store.kept_orders * 5 // 4:
                self._forget_closed(self.store.kept_orders)

    @property
    def archive(self) -> Archive | None:
        """Where orders are that were closed too long ago to be in memory; None when all of them are."""
        return self.store.archive if self.store is not None and self.archived_order_id else None

    def _forget_closed(self, keep: int) -> None:
        """Leave orders that were closed long ago to the database: memory stays bounded however long this runs."""
        gone = {order.order_id for order in self.engine.forget_closed(keep)}
        self.archived_order_id = max(gone, default=self.archived_order_id)
        for order_id in gone:
            self.fills_by_order.pop(order_id, None)
        for key, fills in self.fills.items():
            self.fills[key] = [fill for fill in fills if fill.order_id not in gone]

    def _index_fill(self, fill: Fill) -> None:
        self.fills.setdefault((fill.account_id, fill.symbol), []).append(fill)
        self.fills_by_order.setdefault(fill.order_id, []).append(fill)

    # ------------------------------------------------------------------------------------------------------------ time
    def now_ms(self, wall_ms: int) -> int:
        return self.clock.now_ms(wall_ms)

    def set_clock(self, clock: MarketClock, wall_ms: int) -> None:
        """Change the clock. Going forward walks the market to the new time; going back only moves the hand."""
        self.advance(self.now_ms(wall_ms))
        self.clock = clock
        now_ms = clock.now_ms(wall_ms)
        if now_ms < self.processed_ms:
            self.processed_ms = now_ms
            for symbol in self.engine.rules:
                self.refresh(symbol, now_ms)
        self.advance(now_ms)
        self._extra.put("meta", ("clock",), to_json(clock.as_row()))

    def advance(self, to_ms: int) -> None:
        """Walk the market up to `to_ms`: every resting order meets every base bar in between, in order of time."""
        if self.processed_ms >= to_ms:
            return
        while self.processed_ms < to_ms:
            upto = min(to_ms, self.processed_ms + _STEP_MS)
            self._walk(self.processed_ms, upto)
            self.futures.walk(self.processed_ms, upto)
            self.processed_ms = upto
        if to_ms % self.view.base_ms == 0:
            self._open_bar(to_ms)

    def _open_bar(self, now_ms: int) -> None:
        """Let resting orders meet the open of the bar that begins now: a clock that stands here shows that price."""
        for desk in (self, self.futures):
            for symbol in desk.engine.symbols_with_orders():
                price = self.view.price(symbol, now_ms)
                low, high = desk.engine.touch_bounds(symbol)
                if price is not None and not low < price < high:
                    desk.refresh(symbol, now_ms)

    def _walk(self, start_ms: int, end_ms: int) -> None:
        if not self._meets_an_order(start_ms, end_ms):
            return

        def stretch_of(symbol: str) -> Stretch:
            bars, ends = self.view.segments(symbol, start_ms, end_ms)
            ends_ms = np.asarray(ends, np.int64)
            return Stretch(bars.open_ms, ends_ms, bars.open, bars.high, bars.low, bars.close, bars.volume)

        for _ in walk(self.engine, stretch_of):
            pass

    def _meets_an_order(self, start_ms: int, end_ms: int) -> bool:
        """False only when nothing can happen in between; told cheaply for the short steps between two requests."""
        waiting = self.engine.symbols_with_orders()
        if not waiting or start_ms // self.view.base_ms != end_ms // self.view.base_ms:
            return bool(waiting)
        for symbol in waiting:
            low, high = self.engine.touch_bounds(symbol)
            reach = self.view.reach(symbol, start_ms, end_ms)
            if reach is not None and (reach[0] <= low or reach[1] >= high):
                return True
        return False

    def refresh(self, symbol: str, now_ms: int) -> None:
        """Show the engine the price of this moment. Orders that it touches are filled."""
        price = self.view.price(symbol, now_ms)
        if price is None:
            return
        volume, average = self.view.liquidity(symbol, now_ms)
        window = now_ms // self.view.base_ms * self.view.base_ms
        self.engine.on_price(symbol, price, volume, window, now_ms, average)

    def show_prices(self, symbols: Iterable[str], now_ms: int) -> None:
        """Show both engines the prices of this moment: they moved, or a market opened, while the clock stood still."""
        for symbol in symbols:
            self.refresh(symbol, now_ms)
            self.futures.refresh(symbol, now_ms)

    # ------------------------------------------------------------------------------------------- accounts and accidents
    def create_account(
        self,
        balances: Mapping[str, Decimal],
        account_id: str | None = None,
        api_key: str | None = None,
        api_secret: str | None = None,
        *,
        can_trade: bool = True,
        maker_fee_ppm: int | None = None,
        taker_fee_ppm: int | None = None,
    ) -> ApiKey:
        """Open an account and give it a key. Raises ValueError when the account or the key exists."""
        account_id = account_id or secrets.token_hex(8)
        fresh = self.make_key(account_id, can_trade)
        key = ApiKey(api_key or fresh.api_key, api_secret or fresh.api_secret, account_id, can_trade)
        if key.api_key in self.keys:
            raise ValueError("this API key is in use")
        data = {
            "maker_fee_ppm": self.fee_ppm if maker_fee_ppm is None else maker_fee_ppm,
            "taker_fee_ppm": self.fee_ppm if taker_fee_ppm is None else taker_fee_ppm,
            "uid": int(hashlib.sha256(account_id.encode()).hexdigest()[:8], 16),
        }
        self.engine.open_account(
            account_id, {a: atoms(v) for a, v in balances.items()}, **{k: data[k] for k in list(data)[:2]}
        )
        self.accounts[account_id] = data
        self._extra.put("accounts", (account_id,), to_json(data))
        self.add_key(key)
        return key

    @staticmethod
    def make_key(account_id: str, can_trade: bool = True) -> ApiKey:
        return ApiKey(secrets.token_hex(32), secrets.token_hex(32), account_id, can_trade)

    def add_key(self, key: ApiKey) -> None:
        self.keys[key.api_key] = key
        self._extra.put("keys", (key.api_key,), to_json(asdict(key)))

    def add_shock(self, shock: Shock) -> None:
        """From its time on the market is elsewhere. Orders between are met when the market is walked there."""
        self.view.add_shock(shock)
        self._extra.put("meta", ("shocks",), to_json([asdict(s) for s in self.view.shocks]))

    def keep_conditions(self) -> None:
        """Write down what the operator has made of the markets."""
        self._extra.put("meta", ("conditions",), to_json(self.conditions.as_row()))

    def keep_account(self, account_id: str) -> None:
        """Write down the account's fees, and let the engines take them."""
        data = self.accounts[account_id]
        self._extra.put("accounts", (account_id,), to_json(data))
        set_fees(self.engine.book.accounts[account_id], data)
        if "futures" in data:
            self.futures.account(account_id)
            set_fees(self.futures.engine.book.accounts[account_id], data["futures"])

    def transfer(self, account_id: str, asset: str, atom_count: int, now_ms: int) -> Transfer:
        """Pay in, or out (negative). Raises Refusal(INSUFFICIENT_BALANCE) beyond what is free."""
        self.engine.book.deposit(account_id, asset, atom_count)
        self.transfers.append(Transfer(len(self.transfers) + 1, account_id, asset, atom_count, now_ms))
        self._extra.put("meta", ("transfers",), to_json([asdict(t) for t in self.transfers]))
        return self.transfers[-1]

    def delist(self, symbol: str, now_ms: int, *, vanishes: bool) -> None:
        """The market of a symbol ends: its orders expire, futures positions are settled at the mark price.

        It vanishes, so that nobody finds it any more, or stays listed as BREAK with a book of zeros.
        """
        self.engine.expire_all(symbol, now_ms)
        mark = self.view.price(symbol, now_ms)
        if mark is not None:
            self.futures.engine.settle(symbol, mark, now_ms)
        if vanishes:
            self.conditions.delisted.add(symbol)
        self.conditions.set_status(symbol, "BREAK")
        self.conditions.bend(symbol, Shape.ZERO)
        self.keep_conditions()

    def set_broken(self, symbol: str, broken: bool) -> None:
        """The symbol's prices stopped coming, or came back."""
        if (symbol in self.conditions.broken) != broken:
            (self.conditions.broken.add if broken else self.conditions.broken.discard)(symbol)
            self.conditions.apply()

    def is_listed(self, symbol: str) -> bool:
        return symbol in self.engine.rules and symbol not in self.conditions.delisted

    def adopt_listings(self, listings: Mapping[str, dict[str, Any]]) -> None:
        """Take over a real exchange's rules. The units of a symbol stay what they were when it was first seen.

        Orders and trades are counted in ticks and lots, so a changed grid would change what they say.
        """
        for symbol, entry in listings.items():
            rules, known = rules_from_listing(entry), self._listings.get(symbol)
            if known == entry:
                continue
            if known is not None:
                old = rules_from_listing(known)
                if (old.tick, old.step) != (rules.tick, rules.step):
                    log.warning("%s has a new price or quantity grid; this account goes on trading the old one", symbol)
                    continue
            self._listings[symbol] = entry
            self.market.rules[symbol] = self.engine.rules[symbol] = rules
            if symbol in self.conditions.rules:
                self.conditions.change_rules(symbol, self.conditions.rules[symbol])
            self._extra.put("meta", ("listings",), to_json(self._listings))

    def balances(self, account_id: str) -> dict[str, tuple[Decimal, Decimal]]:
        """(free, locked) by asset, for every asset the market lists or the account holds."""
        account = self.engine.book.accounts[account_id]
        assets = {a for r in self.engine.rules.values() for a in (r.base, r.quote)} | set(account.balances)
        return {a: (amount(account.balance(a).free), amount(account.balance(a).locked)) for a in sorted(assets)}


def set_fees(account: Account, data: Mapping[str, Any]) -> None:
    """Take over an account's fees from its saved row."""
    account.maker_fee_ppm, account.taker_fee_ppm = data["maker_fee_ppm"], data["taker_fee_ppm"]
    account.symbol_fees = {symbol: (maker, taker) for symbol, (maker, taker) in data.get("symbol_fees", {}).items()}
    account.fee_asset = data.get("fee_asset", "")
