"""Whatever happens beside it, protection never covers less of what is held than before, and nobody's coins are sold.

A person trades on the same account, the market halts and opens, ticks and minimums change, prices are missing, stops
are moved: after each of it the looks of the minute and of the watch are taken, and the exchange itself is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from decimal import Decimal
from random import Random

import pytest

from tests.support.trading_rig import Rig
from tradewind.adapters.ccxt_trading import CcxtTrading
from tradewind.core.brackets import floor_to_step
from tradewind.core.types import BookTop, Instrument, Position, PositionStatus
from tradewind.jobs.safety import flatten
from tradewind.jobs.tending import protect_naked, tend_all
from tradewind.jobs.trading import place_brackets

SYMBOL, BASE, STEP = "ETH/USDT", "ETH", Decimal("0.0001")
OVER = (PositionStatus.CLOSED, PositionStatus.DUST)
ACTS = 24


class Moody(CcxtTrading):
    """The same market, whose rules change and whose book is empty at times."""

    tick = Decimal("0.01")
    least = Decimal(5)
    is_blind = False

    def instruments(self, symbols: Sequence[str]) -> dict[str, Instrument]:
        found = super().instruments(symbols)
        return {s: replace(i, tick_size=self.tick, min_notional_quote=self.least) for s, i in found.items()}

    def book_tops(self, symbols: Sequence[str]) -> dict[str, BookTop]:
        if not self.is_blind:
            return super().book_tops(symbols)
        nothing = Decimal(0)
        return {s: replace(top, bid=nothing, ask=nothing) for s, top in super().book_tops(symbols).items()}


class World:
    """One account, its position, and what the person on it holds."""

    def __init__(self, rig: Rig, random: Random) -> None:
        self.rig, self.random = rig, random
        self.exchange = Moody(rig.client, rig.account)
        rig.exchange = self.exchange
        self.own = Decimal(2)  # of the person's coins
        self.position_id = ""

    def act(self) -> str:
        name = self.random.choice(
            [
                "move",
                "move",
                "move",
                "halt",
                "open",
                "open",
                "sell",
                "buy",
                "tick",
                "least",
                "blind",
                "see",
                "price",
                "close",
            ]
        )
        getattr(self, f"_{name}")()
        return name

    def _move(self) -> None:
        near = Decimal(self.random.randint(9520, 9820)) / 10_000
        stop = floor_to_step(self.rig.bid(SYMBOL) * near, Decimal("0.01")) if not self.exchange.is_blind else None
        self._save(lambda now: replace(now, stop_price=max(stop or now.stop_price, now.stop_price)))

    def _close(self) -> None:
        if self.random.random() < 0.1:
            self._save(lambda now: replace(now, status=PositionStatus.CLOSING, exit_reason="time_stop"))

    def _save(self, change: Callable[[Position], Position]) -> None:
        position = self.position()
        if position is None:
            return
        with self.rig.trading_store.position_lock(position.position_id):
            self.rig.trading_store.save_position(change(position), "test", self.rig.clock.now())

    def _halt(self) -> None:
        self.rig.admin.halt(SYMBOL)

    def _open(self) -> None:
        self.rig.admin.halt(SYMBOL, halted=False)

    def _sell(self) -> None:
        """Some of the person's own, as far as it is free."""
        self._trade("SELL", -floor_to_step(self.own * Decimal(self.random.random()), STEP))

    def _buy(self) -> None:
        self._trade("BUY", Decimal("0.01"))

    def _trade(self, side: str, moved: Decimal) -> None:
        if abs(moved) * 3000 < 6 or SYMBOL in self._halted():
            return
        order = {"symbol": "ETHUSDT", "side": side, "type": "MARKET", "quantity": str(abs(moved))}
        answer = self.rig.client.read("private_post_order", {**order, "newOrderRespType": "FULL"})
        fees = sum((Decimal(f["commission"]) for f in answer["fills"] if f["commissionAsset"] == BASE), Decimal(0))
        self.own += Decimal(answer["executedQty"]) * (1 if side == "BUY" else -1) - fees

    def _halted(self) -> list[str]:
        return [] if self.exchange.market_status(SYMBOL).value == "trading" else [SYMBOL]

    def _tick(self) -> None:
        self.exchange.tick = self.random.choice([Decimal("0.01"), Decimal("0.1"), Decimal("0.5")])

    def _least(self) -> None:
        self.exchange.least = self.random.choice([Decimal(5), Decimal(10), Decimal(1300)])

    def _blind(self) -> None:
        self.exchange.is_blind = True

    def _see(self) -> None:
        self.exchange.is_blind = False

    def _price(self) -> None:
        if not self._halted():
            self.rig.admin.shock(self.random.choice([-0.008, 0.008, -0.004]), SYMBOL)

    # ------------------------------------------------------------------------------------------------------- what is so
    def position(self) -> Position | None:
        found = self.rig.trading_store.position(self.position_id)
        return None if found is None or found.status in OVER else found

    def covered(self) -> Decimal:
        """What stops at the exchange would sell, by its own word."""
        stops = [order for order in self.rig.exchange_orders() if order["type"] == "STOP_LOSS"]
        return sum((Decimal(order["origQty"]) - Decimal(order["executedQty"]) for order in stops), Decimal(0))

    def enter(self, *, two_lots: bool) -> None:
        self.rig.step()
        intent = self.rig.decide(
            SYMBOL, notional=Decimal(2400), stop_frac=Decimal("0.05"), target_frac=Decimal("0.05"), two_lots=two_lots
        )
        place_brackets(self.rig, intent.intent_id)
        self.position_id = intent.intent_id


@pytest.mark.parametrize("seed", range(4))
def test_protection_never_becomes_smaller_and_nothing_of_a_persons_is_sold(
    make_rig: Callable[..., Rig], seed: int
) -> None:
    rig = make_rig({"USDT": "10000", BASE: "2"})
    rig.make_ready()
    world, told, seen = World(rig, Random(seed)), [], 0
    world.enter(two_lots=seed % 2 == 1)
    assert world.covered() > 0
    for _ in range(ACTS):
        before = world.covered()
        told.append(world.act())
        tend_all(rig, apply_rules=False)
        protect_naked(rig)
        position = world.position()
        if position is not None:
            seen += 1
            held = floor_to_step(position.quantity, STEP)
            assert world.covered() >= min(before, held) - STEP, f"{told}: {before} before, {held} held"
        assert rig.holds(BASE) == world.own + rig.trading_store.ledger_totals()[SYMBOL].base_quantity, told
        fills = rig.trading_store.fills_of(world.position_id)
        sold = sum((fill.quantity for fill in fills if not fill.is_buy), Decimal(0))
        bought = sum((fill.quantity for fill in fills if fill.is_buy), Decimal(0))
        assert sold <= bought, told
    assert seen >= 5, "the walk ended before it was one"
    world._open()
    world._see()
    world.exchange.tick, world.exchange.least = Decimal("0.01"), Decimal(5)
    assert flatten(rig, "a person")["flat"], told
    assert rig.holds(BASE) >= world.own
