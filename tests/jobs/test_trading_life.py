"""The life of a trade through the jobs, on a stepped market, against a real exchange server and a real ledger."""

from __future__ import annotations

from decimal import Decimal

from tests.support.trading_rig import Rig
from tradewind.core.types import OrderRole, OrderState, PositionStatus
from tradewind.jobs.positions import manage_positions
from tradewind.jobs.trading import place_brackets, record_cycle


def enter(rig: Rig, **options: object) -> str:
    rig.make_ready()
    intent = rig.decide(**options)  # type: ignore[arg-type]
    result = place_brackets(rig, intent.intent_id)
    assert result["outcome"] == "filled", result
    return intent.intent_id


def test_entry_is_filled_and_protected_at_once(rig: Rig) -> None:
    position_id = enter(rig)
    position = rig.trading_store.position(position_id)
    assert position is not None
    assert position.status is PositionStatus.OPEN
    assert position.quantity > 0
    resting = rig.exchange_orders()
    assert sorted(order["type"] for order in resting) == ["LIMIT_MAKER", "STOP_LOSS"]
    stop = next(order for order in resting if order["type"] == "STOP_LOSS")
    assert Decimal(stop["stopPrice"]) == position.stop_price
    assert position.quantity - Decimal(stop["origQty"]) < Decimal("0.00001")
    assert manage_positions(rig)["clean"]
    rig.assert_agrees()
