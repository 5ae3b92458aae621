"""The chaos table would notice: with a safeguard taken out, the very judgement that it is made of fails."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

import tradewind.jobs.leaving as leaving_module
import tradewind.jobs.orders as orders_module
import tradewind.jobs.protection as protection_module
import tradewind.jobs.settling as settling_module
from tests.chaos.arena import Arena
from tests.chaos.crashing import Fuse, mined
from tests.chaos.faults import KILLED, TWICE, Fault
from tests.chaos.life import Judgement, Life
from tests.chaos.troubles import Trouble
from tradewind.adapters.ccxt_trading import CcxtTrading
from tradewind.adapters.price_store import PriceStore
from tradewind.adapters.trading_store import PgTradingStore
from tradewind.core.ports import Ports
from tradewind.core.types import Balance, MarketStatus, Order, OrderState, Position

pytestmark = pytest.mark.chaos

DROPPED = {"action": "drop_after", "method": "POST", "path": "/api/v3/orderList/*", "times": 1}


def moments(life: Life, phase: str, call: str) -> list[int]:
    """The moments around each of a job's calls of this name, when nothing goes wrong."""
    life.prepare(phase)
    found: list[int] = []

    fuse = Fuse(None)
    rig = mined(life.build(), fuse)
    for port in (rig.exchange, rig.trading_store):
        target = port._target  # type: ignore[attr-defined]
        if hasattr(target, call):
            original = getattr(target, call)

            def noted(*args: Any, _original: Any = original, **kwargs: Any) -> Any:
                found.append(fuse.seen)  # the fuse has burnt before the call and will burn after it
                return _original(*args, **kwargs)

            setattr(target, call, noted)
    life.job(phase)(rig)
    return found


def judge(arena: Arena, phase: str, fault: Fault, trouble_of: Callable[[str], Trouble] | None = None) -> Judgement:
    """A trade of its own, brought to the phase, with this fault in it; its trouble may be one of its account."""
    life = Life(arena, random.Random(1))
    if trouble_of is not None:
        fault = replace(fault, trouble=trouble_of(life.stage.account.account_id))
    if phase != "entry":
        life.prepare("entry")
        life.job("entry")(life.build())
    judgement = life.undergo(phase, fault)
    life.close()
    assert judgement is not None, "the fault did not strike"
    return judgement


def test_without_the_lookup_by_id_a_bracket_is_doubled(arena: Arena, monkeypatch: pytest.MonkeyPatch) -> None:
    fault = Fault("accepted, then dropped", 1, DROPPED)
    assert judge(arena, "entry", fault).wrongs == {}

    def conclude_at_once(ports: Ports, order: Order) -> Order:
        if order.state in (OrderState.SENT, OrderState.UNKNOWN):
            return ports.trading_store.move_order(order.client_order_id, OrderState.EXPIRED, at=ports.clock.now())
        return order

    for module in (orders_module, settling_module, protection_module, leaving_module):
        monkeypatch.setattr(module, "ask", conclude_at_once)
    assert judge(arena, "entry", fault).doubled


def test_without_commit_before_send_a_kill_loses_the_order(arena: Arena, monkeypatch: pytest.MonkeyPatch) -> None:
    after_the_send = moments(Life(arena, random.Random(1)), "entry", "send_bracket")[0]
    arena.close()
    fault = Fault(KILLED, after_the_send)
    assert judge(arena, "entry", fault).wrongs == {}

    kept: dict[str, Order] = {}
    plan, move = PgTradingStore.plan_orders, PgTradingStore.move_order

    def plan_in_memory(store: PgTradingStore, orders: Sequence[Order]) -> list[Order]:
        kept.update({order.client_order_id: order for order in orders})
        return list(orders)

    def move_in_memory(store: PgTradingStore, client_order_id: str, to: OrderState, **detail: Any) -> Order:
        """The rows are written when the answer is there."""
        if to is OrderState.SENT and "sent_at" in detail and client_order_id in kept:
            return kept[client_order_id]
        order = kept.pop(client_order_id, None)
        if order is not None:
            plan(store, [order])
            move(store, client_order_id, OrderState.SENT, at=detail["at"])
        return move(store, client_order_id, to, **detail)

    monkeypatch.setattr(PgTradingStore, "plan_orders", plan_in_memory)
    monkeypatch.setattr(PgTradingStore, "move_order", move_in_memory)
    found = judge(arena, "entry", fault)
    assert found.doubled or found.lost_fills or found.unequal


def test_without_the_position_lock_two_tasks_sell_twice(arena: Arena, monkeypatch: pytest.MonkeyPatch) -> None:
    life = Life(arena, random.Random(1))
    life.prepare("entry")
    life.job("entry")(life.build())
    before_it_cancels = moments(life, "flatten", "cancel_list")[0] - 1
    arena.close()
    fault = Fault(TWICE, before_it_cancels)
    assert judge(arena, "flatten", fault).wrongs == {}

    @contextmanager
    def no_lock(store: PgTradingStore, position_id: str) -> Iterator[bool]:
        store._fences[position_id] = 1
        yield True

    monkeypatch.setattr(PgTradingStore, "position_lock", no_lock)
    monkeypatch.setattr(PgTradingStore, "_require_fence", lambda *_: None)
    assert judge(arena, "flatten", fault).doubled


def test_a_rig_counts_its_own_steps(arena: Arena) -> None:
    """Otherwise faults would be drawn for steps that no job has."""
    steps = Life(arena, random.Random(1)).count_steps("entry")
    assert steps.moments > 50
    assert steps.calls > 5


# ------------------------------------------------------------------------------------------------ what exchanges do
def of_every_module(monkeypatch: pytest.MonkeyPatch, name: str, stand_in: Any) -> None:
    """Put a stand-in wherever a function is known by this name."""
    for module in [module for key, module in sys.modules.items() if key.startswith("tradewind.")]:
        if hasattr(module, name):
            monkeypatch.setattr(module, name, stand_in)


def test_a_zero_bid_taken_for_a_price_is_noticed(arena: Arena, monkeypatch: pytest.MonkeyPatch) -> None:
    zeros = {"action": "book", "shape": "zero", "path": "*/bookTicker", "of_symbol": "BTCUSDT", "times": 6}
    fault = Fault("zero bid", 1, zeros)
    assert judge(arena, "stop replacement", fault).wrongs == {}
    of_every_module(monkeypatch, "is_price", lambda bid, ask: True)
    of_every_module(monkeypatch, "is_jump", lambda bid, ask, before: False)
    monkeypatch.setattr(PriceStore, "keep_prices", lambda store, prices: None)  # its table takes no zero either
    assert judge(arena, "stop replacement", fault).latch


def test_protection_cancelled_during_a_halt_is_noticed(arena: Arena, monkeypatch: pytest.MonkeyPatch) -> None:
    halt = Trouble(
        (("status", {"symbol": "BTCUSDT", "status": "HALT"}),),
        (("status", {"symbol": "BTCUSDT", "status": "TRADING"}),),
        closes=True,
    )
    fault = Fault("halted", 0, trouble=halt)
    assert judge(arena, "stop replacement", fault).wrongs == {}
    monkeypatch.setattr(CcxtTrading, "market_status", lambda exchange, symbol: MarketStatus.TRADING)
    assert judge(arena, "stop replacement", fault).shrunk


def test_a_baseline_that_comes_before_the_position_is_noticed(arena: Arena, monkeypatch: pytest.MonkeyPatch) -> None:
    """A person takes their own coins out of the account: what is missing is theirs, and the position can be left."""
    withdrawn = {"market": "spot", "asset": "BTC", "amount": "-0.5"}

    def judged() -> Judgement:
        return judge(arena, "flatten", Fault("withdrawal", 0), lambda account: Trouble(
            (("transfer", {**withdrawn, "account_id": account}),), moves_money=True
        ))  # fmt: skip

    assert judged().wrongs == {}

    def baseline_first(
        position: Position, orders: Sequence[Order], balance: Balance | None, baseline: Decimal, *_: Any
    ) -> Decimal:
        total = balance.total if balance is not None else Decimal(0)
        return max(min(position.quantity, total - baseline), Decimal(0))

    of_every_module(monkeypatch, "sellable", baseline_first)
    assert judged().unequal
