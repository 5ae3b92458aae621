"""`kill -9` at every step of entry, replacement and flatten, a seeded selection of them: healed, nothing doubled.

CHAOS_ALL=1 takes every step instead of the selection.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from tests.chaos.crashing import run_and_die
from tests.support.paper_server import PaperServerProcess
from tests.support.trading_rig import Rig
from tradewind.core.brackets import floor_to_step
from tradewind.core.orders import AT_EXCHANGE, is_final
from tradewind.core.types import OrderRole, PositionStatus, TradingMode
from tradewind.jobs.positions import manage_positions
from tradewind.jobs.safety import carry_on_flatten, trip_circuit_breaker
from tradewind.jobs.trading import place_brackets

pytestmark = pytest.mark.chaos

SEED = 20240305
SELECTION = 9
MOST_STEPS = 400


def moments() -> list[int]:
    """Which moments to kill at: a seeded few, more of them early, or all."""
    if os.environ.get("CHAOS_ALL"):
        return list(range(MOST_STEPS))
    draw = random.Random(SEED)
    return sorted(draw.sample(range(60), SELECTION))


class Scene:
    """Fresh accounts on one exchange and one database."""

    def __init__(self, server: PaperServerProcess, database_url: str) -> None:
        self.server, self.database_url = server, database_url
        self.number = 0

    def make(self) -> Callable[[], Rig]:
        """A new account, and how to build a rig for it in any process."""
        self.number += 1
        name = f"chaos-{self.number}"
        paper_account = self.server.create_account()

        def build() -> Rig:
            rig = Rig(self.server, self.database_url, paper_account)
            rig.account = name
            rig.trading_store = type(rig.trading_store)(rig.database, name, rig.params.strategy_version)
            rig.exchange = type(rig.exchange)(rig.client, name)
            return rig

        return build


@pytest.fixture
def scene(paper_server: PaperServerProcess, postgres_url: str) -> Scene:
    return Scene(paper_server, postgres_url)


def heal(rig: Rig) -> None:
    """What the next minutes do; what nobody answered for is old enough to be proven absent."""
    manage_positions(rig)
    rig.database.execute(
        "UPDATE orders SET sent_at = sent_at - interval '60 seconds' WHERE account = %s AND state = 'unknown'",
        (rig.account,),
    )
    manage_positions(rig)


def assert_sound(rig: Rig, position_id: str, quantity: Decimal) -> None:
    """Nothing doubled, nothing naked, ledger and exchange equal to the last digit, every order in a known state."""
    store = rig.trading_store
    bought = [order for order in rig.exchange_orders(["FILLED", "PARTIALLY_FILLED"]) if order["side"] == "BUY"]
    assert sum((Decimal(order["executedQty"]) for order in bought), Decimal(0)) <= quantity
    for order in store.orders_of(position_id):
        assert is_final(order.state) or order.state in AT_EXCHANGE, order
    rig.assert_agrees()
    position = store.position(position_id)
    held = position.quantity if position is not None else Decimal(0)
    instrument = rig.exchange.instruments(["BTC/USDT"])["BTC/USDT"]
    stops = [o for o in rig.exchange_orders() if o["type"] == "STOP_LOSS"]
    protected = sum((Decimal(o["origQty"]) - Decimal(o["executedQty"]) for o in stops), Decimal(0))
    if position is None or position.status in (PositionStatus.CLOSED, PositionStatus.DUST):
        assert rig.exchange_orders() == []
    else:
        assert protected <= held
        assert held - protected < 2 * instrument.step_size
        assert {Decimal(o["stopPrice"]) for o in stops} == {position.stop_price}
    assert floor_to_step(rig.holds("BTC"), instrument.step_size) == floor_to_step(held, instrument.step_size)
    record = store.last_reconciliation()
    assert record is not None
    assert record.clean, record.report


def test_entry_killed_at_any_step(scene: Scene) -> None:
    killed = 0
    for at in moments():
        build = scene.make()
        rig = build()
        rig.make_ready()
        intent = rig.decide(two_lots=True)
        if not run_and_die(build, lambda own, one=intent: place_brackets(own, one.intent_id), at):
            rig.close()
            break
        killed += 1
        # The task is run again by a person pressing Clear, and the minutes go on.
        place_brackets(rig, intent.intent_id)
        heal(rig)
        place_brackets(rig, intent.intent_id)
        assert_sound(rig, intent.intent_id, intent.quantity)
        rig.close()
    assert killed >= 6


def opened(scene: Scene) -> tuple[Callable[[], Rig], Rig, str, Decimal]:
    build = scene.make()
    rig = build()
    rig.make_ready()
    intent = rig.decide(two_lots=True, stop_frac=Decimal("0.05"), target_frac=Decimal("0.05"))
    assert place_brackets(rig, intent.intent_id)["outcome"] == "filled"
    return build, rig, intent.intent_id, intent.quantity


def want_higher_stop(rig: Rig, position_id: str) -> None:
    """What the bar rule leaves behind: a wanted stop that does not rest yet."""
    store = rig.trading_store
    with store.position_lock(position_id) as held:
        assert held
        position = store.position(position_id)
        assert position is not None
        moved = floor_to_step(position.stop_price * Decimal("1.02"), Decimal("0.01"))
        store.save_position(replace(position, stop_price=moved), "stop_moved", rig.clock.now())


def test_stop_replacement_killed_at_any_step(scene: Scene) -> None:
    killed = 0
    for at in moments():
        build, rig, position_id, quantity = opened(scene)
        want_higher_stop(rig, position_id)
        if not run_and_die(build, manage_positions, at):
            rig.close()
            break
        killed += 1
        heal(rig)
        assert_sound(rig, position_id, quantity)
        position = rig.trading_store.position(position_id)
        assert position is not None
        assert position.status is PositionStatus.OPEN
        rig.close()
    assert killed >= 6


def test_flatten_killed_at_any_step(scene: Scene) -> None:
    killed = 0
    for at in moments():
        build, rig, position_id, quantity = opened(scene)
        if not run_and_die(build, trip_circuit_breaker, at):
            rig.close()
            break
        killed += 1
        latch = rig.trading_store.latch()
        if latch.mode is not TradingMode.HALTED:
            rig.trading_store.set_latch(TradingMode.HALTED, "again", rig.wall.now(), actor="chaos")
        heal(rig)
        assert carry_on_flatten(rig) is True
        manage_positions(rig)
        assert_sound(rig, position_id, quantity)
        position = rig.trading_store.position(position_id)
        assert position is not None
        assert position.status in (PositionStatus.CLOSED, PositionStatus.DUST)
        assert rig.trading_store.latch().mode is TradingMode.HALTED
        sold = [o for o in rig.trading_store.orders_of(position_id) if o.role is OrderRole.EXIT]
        assert sum((o.filled_quantity for o in sold), Decimal(0)) <= quantity
        rig.close()
    assert killed >= 6


FAULTS: list[dict[str, Any]] = [
    {"action": "hang_after", "seconds": 3},
    {"action": "drop_after"},
    {"action": "error_after", "status": 503},
    {"action": "refuse"},
    {"action": "error_before", "status": 500},
    {"action": "rate_limited", "retry_after_s": 1},
    {"action": "timeout_before", "seconds": 3},
]
CALLS = [
    ("POST", "/api/v3/orderList/*"),
    ("DELETE", "/api/v3/orderList"),
    ("POST", "/api/v3/order"),
    ("GET", "/api/v3/order"),
    ("GET", "/api/v3/myTrades"),
    ("GET", "/api/v3/account"),
]


def test_faulty_exchange_at_every_call(scene: Scene) -> None:
    """One fault at one kind of call through entry, replacement and flatten; then the exchange behaves again."""
    draw = random.Random(SEED)
    pairs = [(call, fault) for call in CALLS for fault in FAULTS]
    chosen = pairs if os.environ.get("CHAOS_ALL") else draw.sample(pairs, 7)
    for (method, path), fault in chosen:
        build = scene.make()
        rig = build()
        rig.client.config = replace(rig.client.config, timeout_s=1.0)
        rig.client.exchange.timeout = 1000
        rig.make_ready()
        intent = rig.decide(two_lots=True, stop_frac=Decimal("0.05"), target_frac=Decimal("0.05"))
        rig.admin.add_fault(**fault, method=method, path=path, nth=1)
        quietly(place_brackets, rig, intent.intent_id)
        rig.admin.clear_faults()
        heal(rig)
        assert_sound(rig, intent.intent_id, intent.quantity)
        position = rig.trading_store.position(intent.intent_id)
        if position is not None and position.status is PositionStatus.OPEN:
            want_higher_stop(rig, intent.intent_id)
            rig.admin.add_fault(**fault, method=method, path=path, nth=1)
            quietly(manage_positions, rig)
            rig.admin.clear_faults()
            heal(rig)
            assert_sound(rig, intent.intent_id, intent.quantity)
        rig.admin.add_fault(**fault, method=method, path=path, nth=1)
        quietly(trip_circuit_breaker, rig)
        rig.admin.clear_faults()
        heal(rig)
        assert carry_on_flatten(rig) is True
        manage_positions(rig)
        assert_sound(rig, intent.intent_id, intent.quantity)
        assert rig.trading_store.latch().mode is TradingMode.HALTED
        rig.close()


def quietly(job: Callable[..., Any], *args: Any) -> None:
    """A task that fails is a red square in the UI; what counts is what it leaves behind."""
    from tradewind.errors import TradewindError

    try:
        job(*args)
    except TradewindError:
        return
