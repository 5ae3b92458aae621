"""Whatever happens, money is conserved, nothing is negative, and every order and list is in a legal state."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from decimal import Decimal

import pytest

from tests.support.paper_events import SOAK, Commands
from tradewind.core.matching import Engine
from tradewind.core.matching_book import BarTicks, MatchingSettings
from tradewind.core.matching_conditions import Grid, PriceRange
from tradewind.core.matching_rules import SymbolRules
from tradewind.core.matching_types import OrderSide, OrderStatus, Refusal

RULES = (
    SymbolRules("BNBUSDT", "BNB", "USDT", Decimal("0.01"), Decimal("0.001"), max_algo_orders=40),
    SymbolRules("BTCUSDT", "BTC", "USDT", Decimal("0.01"), Decimal("0.00001"), max_algo_orders=40),
    SymbolRules("XRPUSDT", "XRP", "USDT", Decimal("0.0001"), Decimal("0.1"), max_algo_orders=40),
)
START = {"BTCUSDT": 6_000_000, "XRPUSDT": 20_000, "BNBUSDT": 60_000}
LOTS = {"BTCUSDT": 40_000, "XRPUSDT": 5_000, "BNBUSDT": 2_000}
ACCOUNTS = ("a", "b")
DEPOSIT = {"USDT": 50_000 * 10**8, "BTC": 10**8, "XRP": 20_000 * 10**8, "BNB": 10**8 // 20}


class Crowd:
    """A seeded crowd that throws orders, cancels and bars at an engine."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        settings = MatchingSettings(limit_needs_trade_through=bool(seed % 2))
        self.engine = Engine(RULES, settings)
        for account in ACCOUNTS:
            self.engine.open_account(account, DEPOSIT)
        in_bnb = self.engine.book.accounts["b"]
        in_bnb.fee_asset, in_bnb.symbol_fees = "BNB", {"XRPUSDT": (0, 300), "BTCUSDT": (200, 2000)}
        self.price = dict(START)
        self.now = 0
        self.commands = Commands(self.rng, LOTS)
        self.outcomes: Counter[str] = Counter()
        self.net: Counter[tuple[str, str]] = Counter()
        for symbol, price in self.price.items():
            self.engine.on_price(symbol, price, 10 * LOTS[symbol], 0, 0)

    def step(self) -> None:
        self.now += 1
        action = self.rng.random()
        symbol = self.rng.choice(list(START))
        account = self.rng.choice(ACCOUNTS)
        try:
            if action < 0.40:
                self.move(symbol)
            elif action < 0.46:
                self.trouble(symbol, account)
            elif action < 0.67:
                new = self.commands.order(symbol, self.price[symbol])
                mode = self.rng.choice(("NONE", "EXPIRE_TAKER", "EXPIRE_MAKER", "EXPIRE_BOTH", "DECREMENT"))
                self.engine.place(account, replace(new, tags=(("selfTradePreventionMode", mode),)), self.now)
            elif action < 0.86:
                self.engine.place_list(account, self.commands.order_list(symbol, self.price[symbol]), self.now)
            else:
                open_orders = self.engine.open_orders(account)
                if open_orders:
                    order = self.rng.choice(open_orders)
                    if self.rng.random() < 0.3:
                        lots = self.rng.randrange(order.lots + 2)
                        self.engine.amend(account, order.order_id, lots, self.commands.name(), self.now)
                    else:
                        self.engine.cancel(account, order.order_id, self.now)
            self.outcomes["accepted"] += 1
        except Refusal as refused:
            self.outcomes[refused.reason.value] += 1

    def trouble(self, symbol: str, account: str) -> None:
        """What an exchange does to a market or an account beside trading."""
        conditions, what = self.engine.conditions, self.rng.randrange(7)
        self.outcomes[f"trouble {what}"] += 1
        resting = self.engine.open_orders(account, symbol)
        if what == 0:
            conditions.halted.clear()
            conditions.halted.update({symbol} if self.rng.random() < 0.3 else ())
        elif what == 1:
            conditions.dry = {symbol: frozenset({self.rng.choice(list(OrderSide))})} if not conditions.dry else {}
        elif what == 2:
            conditions.ranges = {symbol: PriceRange(999_000, 1_001_000)} if not conditions.ranges else {}
        elif what == 3:
            conditions.grids = {symbol: Grid(10, 10)} if not conditions.grids else {}
        elif what == 4 and resting:
            status = self.rng.choice((OrderStatus.EXPIRED, OrderStatus.EXPIRED_IN_MATCH))
            self.engine.expire(self.rng.choice(resting), self.now, status)
        elif what == 5 and resting:
            order = self.rng.choice(resting)
            self.engine.fill_resting(order, self.rng.randrange(1, order.lots + 2), self.now)
        elif what == 6:
            asset, moved = self.rng.choice(list(DEPOSIT)), self.rng.randrange(-(10**8), 10**8) or 1
            self.engine.book.deposit(account, asset, moved)
            self.net[(account, asset)] += moved

    def move(self, symbol: str) -> None:
        last = self.price[symbol]
        opened = max(100, int(last * self.rng.uniform(0.985, 1.015))) if self.rng.random() < 0.1 else last
        closed = max(100, int(opened * self.rng.uniform(0.985, 1.015)))
        high = int(max(opened, closed) * self.rng.uniform(1, 1.01))
        low = int(min(opened, closed) * self.rng.uniform(0.99, 1))
        volume = int(LOTS[symbol] * self.rng.uniform(0, 30))
        self.price[symbol] = closed
        self.engine.on_bar(symbol, BarTicks(opened, high, low, closed, volume), self.now * 60_000, self.now)

    def check(self) -> None:
        """Every promise, from what the engine itself reported."""
        engine, book = self.engine, self.engine.book
        changes = engine.drain()
        rules = engine.rules
        for fill in changes.fills:
            rule = rules[fill.symbol]
            assert fill.quote_atoms == fill.price_ticks * fill.lots * rule.quote_atoms_per_ticklot
            base = fill.lots * rule.base_atoms_per_lot * fill.side
            self.net[(fill.account_id, rule.base)] += base
            self.net[(fill.account_id, rule.quote)] -= fill.quote_atoms * fill.side
            self.net[(fill.account_id, fill.commission_asset)] -= fill.commission_atoms
            self.net[("fees", fill.commission_asset)] += fill.commission_atoms
        for account_id, account in book.accounts.items():
            for asset, balance in account.balances.items():
                assert balance.total == DEPOSIT.get(asset, 0) + self.net[(account_id, asset)]
                assert 0 <= balance.locked <= balance.total, (account_id, asset, balance)
                assert balance.locked == sum(
                    atoms for owner, held, atoms in book._locks.values() if (owner, held) == (account_id, asset)
                )
        for asset in DEPOSIT:
            assert book.fees_collected.get(asset, 0) == self.net[("fees", asset)]
        for order in changes.orders.values():
            assert (
                0 <= order.filled_lots + order.prevented_lots <= order.lots or order.status is OrderStatus.PENDING_NEW
            )
            assert (order.status is OrderStatus.FILLED) <= (order.remaining_lots == 0 < order.lots)
            if order.status is OrderStatus.PARTIALLY_FILLED:
                assert 0 < order.filled_lots < order.lots
        for order_list in changes.lists.values():
            self.check_list(order_list.list_id)

    def check_list(self, list_id: int) -> None:
        order_list = self.engine.lists[list_id]
        orders = [self.engine.orders[i] for i in order_list.order_ids]
        assert order_list.is_done == (not any(o.is_open for o in orders))
        pending = [self.engine.orders[i] for i in order_list.pending_ids]
        if order_list.kind.has_working_leg:
            waiting = any(o.status is OrderStatus.PENDING_NEW for o in pending)
            assert waiting == (orders[0].is_open)
            if any(o.filled_lots for o in pending):
                assert orders[0].status is OrderStatus.FILLED
        if len(pending) == 2:  # at most one leg of a pair ever trades
            assert sum(o.filled_lots > 0 for o in pending) <= 1


@pytest.mark.timeout(3600 if SOAK else 120)
@pytest.mark.parametrize("seed", range(6))
def test_random_crowd(seed: int) -> None:
    crowd = Crowd(seed)
    for _ in range(20_000 if SOAK else 3000):
        crowd.step()
        crowd.check()
    for list_id in crowd.engine.lists:
        crowd.check_list(list_id)
    assert crowd.outcomes["accepted"] > 1000
    kinds = Counter(o.status for o in crowd.engine.orders.values())
    assert min(kinds[s] for s in (OrderStatus.FILLED, OrderStatus.CANCELED, OrderStatus.EXPIRED)) > 20
    assert kinds[OrderStatus.EXPIRED_IN_MATCH] > 0
    assert crowd.engine.book.fees_collected["BNB"] > 0


def test_same_commands_same_state() -> None:
    one, two = Crowd(3), Crowd(3)
    for _ in range(500):
        one.step()
        two.step()
    assert one.engine.drain() == two.engine.drain()
    assert one.engine.orders == two.engine.orders


@pytest.mark.parametrize("seed", range(3))
def test_skipping_untouched_bars_changes_nothing(seed: int) -> None:
    """The cheap test is right: bars that it passes over would have changed nothing."""
    rng = random.Random(seed)
    crowd = Crowd(seed)
    for _ in range(1500):
        crowd.step()
        symbol = rng.choice(list(START))
        low, high = crowd.engine.touch_bounds(symbol)
        if low < crowd.price[symbol] < high:
            crowd.engine.drain()
            top = min(high - 1, int(crowd.price[symbol] * 1.02))
            bottom = max(low + 1, int(crowd.price[symbol] * 0.98))
            last = crowd.price[symbol]
            crowd.now += 1
            crowd.engine.on_bar(symbol, BarTicks(last, top, bottom, last, 10**6), crowd.now * 60_000, crowd.now)
            assert not crowd.engine.drain()


@pytest.mark.parametrize("seed", range(3))
def test_restored_engine_goes_on_as_the_first_would(seed: int) -> None:
    crowd = Crowd(seed)
    for _ in range(800):
        crowd.step()
    engine = crowd.engine
    copy = Engine(RULES, engine.settings)
    for account_id, account in engine.book.accounts.items():
        copy.open_account(account_id, {a: b.total for a, b in account.balances.items()})
    import copy as copying

    copy.restore(
        copying.deepcopy(list(engine.orders.values())),
        copying.deepcopy(list(engine.lists.values())),
        {s: n - 1 for s, n in engine._next_trade_id.items()},
    )
    assert {a: x.balances for a, x in copy.book.accounts.items()} == {
        a: x.balances for a, x in engine.book.accounts.items()
    }
    for symbol, price in crowd.price.items():
        fresh = 10**9
        for each in (engine, copy):
            each.on_price(symbol, price, 10 * LOTS[symbol], fresh, fresh)
            each.on_bar(
                symbol, BarTicks(price, int(price * 1.05), int(price * 0.95), price, 10**6), fresh + 1, fresh + 1
            )
    assert copy.orders == engine.orders
    assert copy.lists == engine.lists
