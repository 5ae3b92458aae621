"""A person sold (or bought back) what was ours, or the exchange liquidated it: an exit of the position it came from.

Only where it is beyond doubt: the account held none of the asset before us, less of it is there than the ledger holds,
and the person's newest sales add up to exactly what is missing. Anything else stays a difference, and blocks entries.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Final

from tradewind.core.brackets import next_generation
from tradewind.core.ledger import lot_quantities
from tradewind.core.ports import Ports
from tradewind.core.positions import sign_of
from tradewind.core.types import Fill, Instrument, Order, OrderRole, OrderState, Position, Side

ZERO: Final = Decimal(0)
SOLD_BY_HAND: Final = "sold_by_hand"
LIQUIDATED: Final = "liquidated"
_LIQUIDATION_PREFIX: Final = "autoclose-"  # how the exchange names the orders by which it liquidates


def adopt_sales(ports: Ports, position: Position, foreign: Sequence[Fill], instrument: Instrument) -> int:
    """Take the person's trades that explain what is missing into the ledger; returns how many fills were adopted.

    The caller holds the position's lock and has taken in the position's own fills.
    """
    leaves_by_buying = position.side is Side.SHORT
    if not any(fill.is_buy is leaves_by_buying for fill in foreign):
        return 0
    baseline = ports.trading_store.baseline() or {}
    if baseline.get(instrument.base, ZERO) != 0:
        return 0
    total = ports.trading_store.ledger_totals().get(position.symbol)
    balance = ports.exchange.balances().get(instrument.base)
    missing = (total.base_quantity if total is not None else ZERO) - (balance.total if balance is not None else ZERO)
    sales = explaining(foreign, missing * sign_of(position.side), by_buying=leaves_by_buying)
    for client_order_id in dict.fromkeys(fill.client_order_id for fill in sales):
        own = [fill for fill in sales if fill.client_order_id == client_order_id]
        _adopt_order(ports, position, own, instrument)
    if sales:
        ports.alerts.raise_alert(
            "warning",
            f"adopted-{sales[-1].trade_id}",
            f"{position.symbol}: {sum((f.quantity for f in sales), ZERO)} of our position was closed behind our back",
            f"The ledger of {position.position_id} follows; what is left is protected.",
        )
    return len(sales)


def explaining(foreign: Sequence[Fill], missing: Decimal, *, by_buying: bool = False) -> list[Fill]:
    """The newest sales (purchases, for a short) that add up to exactly what is missing; none when there is none."""
    found: list[Fill] = []
    left = missing
    for fill in sorted((fill for fill in foreign if fill.is_buy is by_buying), key=lambda fill: fill.at, reverse=True):
        if left <= 0:
            break
        found.append(fill)
        left -= fill.quantity
    return list(reversed(found)) if found and left == 0 else []


def _adopt_order(ports: Ports, position: Position, fills: Sequence[Fill], instrument: Instrument) -> None:
    """One order row for the person's order, in the lot that holds most, and its fills."""
    store = ports.trading_store
    orders = store.orders_of(position.position_id)
    lots = lot_quantities(orders, store.fills_of(position.position_id), position.side, instrument)
    lot = max(lots, key=lambda number: lots[number], default=0)
    sold = sum((fill.quantity for fill in fills), ZERO)
    now = ports.clock.now()
    order = Order(
        client_order_id=fills[0].client_order_id,
        account=position.account,
        position_id=position.position_id,
        symbol=position.symbol,
        role=OrderRole.EXIT,
        is_buy=fills[0].is_buy,
        lot=lot,
        generation=next_generation(orders, lot),
        order_type="MARKET",
        quantity=sold,
        price=None,
        stop_price=None,
        list_client_id=None,
        state=OrderState.FILLED,
        exchange_order_id=None,
        filled_quantity=sold,
        planned_at=fills[0].at,
        sent_at=None,
        updated_at=now,
        reason=LIQUIDATED if fills[0].client_order_id.startswith(_LIQUIDATION_PREFIX) else SOLD_BY_HAND,
    )
    store.plan_orders([order])
    store.insert_fills(fills)
