"""Matching with margin: what opens, what only reduces, what is liquidated, and money that is conserved."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from tradewind.core.futures import liquidation_price, make_brackets
from tradewind.core.futures_accounts import IncomeKind
from tradewind.core.futures_engine import CLOSE_POSITION, REDUCE_ONLY, FuturesEngine, is_reducing
from tradewind.core.matching_book import BarTicks, MatchingSettings
from tradewind.core.matching_rules import SymbolRules
from tradewind.core.matching_types import (
    Fill,
    NewOrder,
    Order,
    OrderKind,
    OrderSide,
    OrderStatus,
    Refusal,
    RejectReason,
    TimeInForce,
)

D = Decimal
BUY, SELL = OrderSide.BUY, OrderSide.SELL
USDT = 10**8
RULES = [
    SymbolRules("BTCUSDT", "BTC", "USDT", D("0.01"), D("0.001"), max_algo_orders=200, max_trailing_bps=1000),
    SymbolRules("ETHUSDT", "ETH", "USDT", D("0.01"), D("0.01"), max_algo_orders=200, max_trailing_bps=1000),
]
BRACKETS = make_brackets([("0", "0.004", 125), ("50000", "0.005", 100), ("250000", "0.01", 50)])
EXACT = MatchingSettings(half_spread_ppm=0, slippage_ppm=0, level_step_ppm=1, limit_needs_trade_through=False)


class Exchange:
    """An engine with one account, whose drained changes are kept."""

    def __init__(self, money: int = 10_000, settings: MatchingSettings | None = EXACT, leverage: int = 10) -> None:
        self.engine = FuturesEngine(RULES, {rules.symbol: BRACKETS for rules in RULES}, settings)
        self.engine.open_account("a", {"USDT": money * USDT})
        self.now = 0
        for rules in RULES:
            self.engine.on_price(rules.symbol, 10_000, 10**7, 0, 0)
            self.engine.set_leverage("a", rules.symbol, leverage)
        self.fills: list[Fill] = []
        self.incomes: list[Any] = []
        self.numbers: Iterator[int] = iter(range(10**9))

    def place(self, side: OrderSide, kind: OrderKind, lots: int, **fields: Any) -> Order:
        symbol = fields.pop("symbol", "BTCUSDT")
        new = NewOrder(symbol, side, kind, f"c{next(self.numbers)}", lots, **fields)
        return self.engine.place("a", new, self.now)

    def market(self, side: OrderSide, lots: int, **fields: Any) -> Order:
        return self.place(side, OrderKind.MARKET, lots, **fields)

    def bar(self, low: int, high: int, close: int, symbol: str = "BTCUSDT", volume: int = 10**7) -> None:
        self.now += 60_000
        last = self.engine.quotes[symbol].last_ticks
        bar = BarTicks(last, max(high, last, close), min(low, last, close), close, volume)
        self.engine.on_bar(symbol, bar, self.now, self.now)

    def drain(self) -> None:
        self.fills += self.engine.drain().fills
        _, incomes, _ = self.engine.drain_futures()
        self.incomes += incomes

    @property
    def account(self) -> Any:
        return self.engine.margins["a"]

    def position(self, symbol: str = "BTCUSDT") -> Any:
        return self.account.position(symbol)

    def assert_conserved(self) -> None:
        self.drain()
        account = self.account
        assert account.wallet_atoms == sum(income.amount_atoms for income in self.incomes)
        moved = sum(-fill.side * fill.quote_atoms for fill in self.fills)
        held = sum(p.cost_atoms for p in account.positions.values())
        realised = sum(i.amount_atoms for i in self.incomes if i.kind is IncomeKind.REALIZED_PNL)
        assert realised == moved + held
        fees = sum(i.amount_atoms for i in self.incomes if i.kind is IncomeKind.COMMISSION)
        assert fees == -sum(fill.commission_atoms for fill in self.fills)
        assert account.wallet_atoms >= account.margins_atoms >= 0
        for position in account.positions.values():
            lots = sum(fill.side * fill.lots for fill in self.fills if fill.symbol == position.symbol)
            assert position.lots == lots
            assert position.margin_atoms >= 0
            if not position.lots:
                assert (position.cost_atoms, position.margin_atoms) == (0, 0)


def test_a_short_wins_when_the_price_falls() -> None:
    exchange = Exchange()
    exchange.market(SELL, 1_000)
    position = exchange.position()
    assert position.lots == -1_000
    assert position.margin_atoms == -(-abs(position.cost_atoms) // 10)
    exchange.bar(9_000, 10_000, 9_000)
    assert position.pnl_atoms(9_000, RULES[0]) > 9 * USDT
    exchange.market(BUY, 1_000, tags=((REDUCE_ONLY, 1),))
    assert position.lots == 0
    assert exchange.account.wallet_atoms > 10_009 * USDT
    exchange.assert_conserved()


def test_one_order_turns_a_position_around() -> None:
    exchange = Exchange()
    exchange.market(BUY, 1_000)
    exchange.market(SELL, 1_500)
    assert exchange.position().lots == -500
    exchange.assert_conserved()


def test_reduce_only_never_opens() -> None:
    exchange = Exchange()
    with pytest.raises(Refusal) as refused:
        exchange.market(SELL, 100, tags=((REDUCE_ONLY, 1),))
    assert refused.value.reason is RejectReason.REDUCE_ONLY
    exchange.market(BUY, 100)
    order = exchange.market(SELL, 250, tags=((REDUCE_ONLY, 1),))
    assert exchange.position().lots == 0
    assert (order.status, order.filled_lots) == (OrderStatus.EXPIRED, 100)


def test_two_stops_for_the_same_lots_sell_them_once() -> None:
    """A stop is replaced by placing the new one first: both may trigger in one bar."""
    exchange = Exchange()
    exchange.market(BUY, 100)
    stops = [
        exchange.place(SELL, OrderKind.STOP_LOSS, 100, stop_ticks=ticks, tags=((REDUCE_ONLY, 1),))
        for ticks in (9_800, 9_700)
    ]
    exchange.bar(9_600, 10_000, 9_650)
    assert exchange.position().lots == 0
    assert [order.status for order in stops] == [OrderStatus.FILLED, OrderStatus.EXPIRED]
    exchange.assert_conserved()


def test_close_position_takes_whatever_is_held_when_it_triggers() -> None:
    exchange = Exchange()
    exchange.market(SELL, 100)
    stop = exchange.place(BUY, OrderKind.STOP_LOSS, 0, stop_ticks=10_500, tags=((CLOSE_POSITION, 1),))
    exchange.market(SELL, 50)
    exchange.bar(10_000, 10_600, 10_550)
    assert exchange.position().lots == 0
    assert (stop.status, stop.filled_lots) == (OrderStatus.FILLED, 150)


def test_an_order_needs_margin_and_commission() -> None:
    exchange = Exchange(money=100)
    with pytest.raises(Refusal) as refused:
        exchange.market(BUY, 10_000)  # 1,000 of notional at 10×: all of the money, and nothing for the commission
    assert refused.value.reason is RejectReason.INSUFFICIENT_MARGIN
    exchange.market(BUY, 9_900)
    assert exchange.engine.available_atoms("a") >= 0


def test_resting_orders_hold_margin_back_once_for_both_sides() -> None:
    exchange = Exchange(money=100)
    exchange.place(BUY, OrderKind.LIMIT, 9_000, price_ticks=9_900)
    before = exchange.engine.available_atoms("a")
    exchange.place(SELL, OrderKind.LIMIT, 500, price_ticks=10_100)
    assert exchange.engine.available_atoms("a") == before
    with pytest.raises(Refusal):
        exchange.place(BUY, OrderKind.LIMIT, 9_000, price_ticks=9_900)


def test_fok_is_refused_unless_it_fills_whole() -> None:
    exchange = Exchange()
    with pytest.raises(Refusal) as refused:
        exchange.place(BUY, OrderKind.LIMIT, 100, price_ticks=9_900, time_in_force=TimeInForce.FOK)
    assert refused.value.reason is RejectReason.FOK_UNFILLED
    order = exchange.place(BUY, OrderKind.LIMIT, 100, price_ticks=10_050, time_in_force=TimeInForce.FOK)
    assert order.status is OrderStatus.FILLED


@pytest.mark.parametrize("side", [BUY, SELL])
def test_liquidation_at_the_formula_s_price_loses_no_more_than_the_margin(side: OrderSide) -> None:
    exchange = Exchange()
    exchange.market(side, 1_000)
    position = exchange.position()
    margin, rules = position.margin_atoms, RULES[0]
    level = position.liquidation_ticks(rules, exchange.engine.brackets["BTCUSDT"])
    entry = D(position.cost_atoms) / (position.lots * rules.quote_atoms_per_ticklot) * rules.tick
    formula = liquidation_price(D(margin) / USDT, rules.quantity(position.lots), entry, BRACKETS)
    assert formula is not None
    assert abs(rules.price(level) - formula) <= rules.tick
    wallet, near = exchange.account.wallet_atoms, level + side
    exchange.bar(min(near, 10_000), max(near, 10_000), 10_000)
    assert position.lots, "one tick before its level nothing happens"
    exchange.bar(min(level, 10_000), max(level, 10_000), 10_000)
    assert position.lots == 0
    lost = wallet - exchange.account.wallet_atoms
    assert 0 < lost <= margin
    exchange.assert_conserved()


def test_a_gap_through_bankruptcy_is_the_insurance_s() -> None:
    exchange = Exchange()
    exchange.market(BUY, 10_000)
    margin, wallet = exchange.position().margin_atoms, exchange.account.wallet_atoms
    exchange.engine.on_price("BTCUSDT", 5_000, 10**7, 99, 99)
    assert exchange.position().lots == 0
    assert wallet - exchange.account.wallet_atoms == margin
    exchange.assert_conserved()


def test_a_stop_before_the_liquidation_saves_the_margin() -> None:
    exchange = Exchange()
    exchange.market(BUY, 1_000)
    exchange.place(SELL, OrderKind.STOP_LOSS, 1_000, stop_ticks=9_500, tags=((REDUCE_ONLY, 1),))
    exchange.bar(8_000, 10_000, 8_500)
    exchange.drain()
    assert exchange.position().lots == 0
    assert not any(income.kind is IncomeKind.INSURANCE_CLEAR for income in exchange.incomes)


def test_funding_moves_the_wallet_by_the_rate() -> None:
    exchange = Exchange()
    exchange.market(BUY, 1_000)
    wallet = exchange.account.wallet_atoms
    exchange.engine.settle_funding("BTCUSDT", 10_000, 10_000, 8 * 3_600_000)  # 0.01 % of 100
    assert exchange.account.wallet_atoms == wallet - USDT // 100
    exchange.assert_conserved()


def test_leverage_follows_the_brackets_and_never_falls_under_a_position() -> None:
    exchange = Exchange(money=1_000_000)
    exchange.market(BUY, 1_000)
    exchange.engine.set_leverage("a", "BTCUSDT", 50)
    for leverage in (20, 126):
        with pytest.raises(Refusal):
            exchange.engine.set_leverage("a", "BTCUSDT", leverage)


@pytest.mark.parametrize("seed", range(12))
def test_money_is_conserved_whatever_happens(seed: int) -> None:
    """Random orders, cancels, bars with gaps, funding, leverage and margin changes over two symbols."""
    rng = np.random.default_rng(seed)
    exchange = Exchange(money=2_000, settings=MatchingSettings(), leverage=int(rng.choice([1, 3, 20, 100])))
    kinds = list(OrderKind)
    for step in range(1_500):
        symbol = RULES[int(rng.integers(2))].symbol
        last = exchange.engine.quotes[symbol].last_ticks
        action = rng.random()
        if action < 0.45:
            side = BUY if rng.random() < 0.5 else SELL
            kind = kinds[int(rng.integers(len(kinds)))]
            near = max(1, int(last * (1 + rng.normal(0, 0.01))))
            stop = max(1, int(last * (1 + rng.normal(0, 0.02)))) if kind.is_contingent else 0
            tags = (((REDUCE_ONLY, 1),), ((CLOSE_POSITION, 1),), ())[int(rng.integers(3))]
            fields = {"price_ticks": near if kind.has_price else 0, "stop_ticks": stop, "tags": tags, "symbol": symbol}
            if kind is OrderKind.LIMIT:
                fields["time_in_force"] = list(TimeInForce)[int(rng.integers(3))]
            with contextlib.suppress(Refusal):
                exchange.place(side, kind, int(rng.integers(1, 40_000)), **fields)
        elif action < 0.55:
            resting = exchange.engine.open_orders("a", symbol)
            if resting:
                exchange.engine.cancel("a", resting[int(rng.integers(len(resting)))].order_id, exchange.now)
        elif action < 0.9:
            close = max(100, int(last * np.exp(rng.standard_t(3) * 0.01)))
            spread = abs(rng.normal(0, 0.02))
            exchange.bar(
                int(close * (1 - spread)) + 1, int(close * (1 + spread)), close, symbol, int(rng.integers(10**5))
            )
        elif action < 0.95:
            exchange.engine.settle_funding(symbol, last, int(rng.integers(-300_000, 300_000)), exchange.now)
        else:
            with contextlib.suppress(Refusal):
                if rng.random() < 0.5:
                    exchange.engine.move_margin("a", symbol, int(rng.integers(-50, 50)) * USDT)
                else:
                    exchange.engine.set_leverage("a", symbol, int(rng.choice([1, 5, 50])))
        if step % 50 == 0:
            exchange.assert_conserved()
        if exchange.account.wallet_atoms < 50 * USDT:
            exchange.engine.transfer("a", 1_000 * USDT, exchange.now)
    exchange.assert_conserved()
    for order in exchange.engine.open_orders("a"):
        assert order.awaits_trigger or not is_reducing(order) or exchange.position(order.symbol).lots
    assert len(exchange.fills) > 50
    assert any(order.client_id.startswith("autoclose-") for order in exchange.engine.orders.values())


def test_what_the_free_wallet_cannot_pay_comes_out_of_the_position_then_of_the_insurance() -> None:
    exchange = Exchange(money=101)
    exchange.market(BUY, 10_000)
    margin = exchange.position().margin_atoms
    exchange.engine.settle_funding("BTCUSDT", 10_000, 500_000, 1)  # 0.5 %: more than is free
    assert exchange.position().margin_atoms < margin
    exchange.assert_conserved()
    exchange.engine.settle_funding("BTCUSDT", 10_000, 50_000_000, 2)  # more than there is
    assert exchange.position().margin_atoms == exchange.account.wallet_atoms == 0
    assert exchange.account.insured_atoms > 0
    exchange.assert_conserved()
