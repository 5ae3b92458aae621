"""The chaos tests would notice: with a safeguard taken out, what they assert fails."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

import tradewind.jobs.orders as orders_module
import tradewind.jobs.protection as protection_module
import tradewind.jobs.settling as settling_module
from tests.chaos.crashing import run_and_die
from tests.chaos.test_kill_anywhere import Scene, assert_sound, heal, scene
from tests.support.trading_rig import Rig
from tradewind.core.ports import Ports
from tradewind.core.types import Order, OrderState
from tradewind.jobs.trading import place_brackets

__all__ = ["scene"]

pytestmark = pytest.mark.chaos


def test_without_the_lookup_by_id_a_fill_is_lost(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    def conclude_at_once(ports: Ports, order: Order) -> Order:
        if order.state in (OrderState.SENT, OrderState.UNKNOWN):
            return ports.trading_store.move_order(order.client_order_id, OrderState.EXPIRED, at=ports.clock.now())
        return order

    for module in (orders_module, settling_module, protection_module):
        monkeypatch.setattr(module, "ask", conclude_at_once)
    rig = scene.make()()
    rig.make_ready()
    intent = rig.decide()
    rig.admin.add_fault("drop_after", method="POST", path="/api/v3/orderList/*", times=1)
    place_brackets(rig, intent.intent_id)
    rig.admin.clear_faults()
    heal(rig)
    with pytest.raises(AssertionError):
        assert_sound(rig, intent.intent_id, intent.quantity)
    rig.close()


def test_without_commit_before_send_a_kill_loses_the_order(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    build = scene.make()
    rig = build()
    rig.make_ready()
    intent = rig.decide()

    def forgetful(own: Rig) -> None:
        """The rows are kept in memory until the answer is there."""
        planned: list[Order] = []

        def plan(rows: Sequence[Order]) -> list[Order]:
            planned.extend(rows)
            return list(rows)

        def move(client_order_id: str, to: OrderState, **_: Any) -> Order:
            return next(order for order in planned if order.client_order_id == client_order_id)

        target = own.trading_store._target  # type: ignore[attr-defined]
        monkeypatch.setattr(target, "plan_orders", plan)
        monkeypatch.setattr(target, "move_order", move)
        place_brackets(own, intent.intent_id)

    bought_unseen = False
    for at in range(20, 60):
        if not run_and_die(build, forgetful, at):
            break
        if rig.holds("BTC") > 0:
            bought_unseen = True
            break
    assert bought_unseen
    heal(rig)
    with pytest.raises(AssertionError):
        assert_sound(rig, intent.intent_id, intent.quantity)
    rig.close()
