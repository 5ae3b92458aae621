"""A position of a replay with its orders and fills, as the ledger would hold them.

The engine's records are the truth; our rows are made of them when somebody reads them, since most are never read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

from tradewind.core import matching_types as engine_types
from tradewind.core.ledger import FillTotals
from tradewind.core.matching_rules import SymbolRules
from tradewind.core.matching_types import OrderStatus
from tradewind.core.orders import is_final
from tradewind.core.timeframes import to_ms
from tradewind.core.types import Fill, Intent, Order, OrderRole, OrderState, Position, PositionStatus
from tradewind.core.values import changed

from .results import Trade
from .signals import moment

LIVE = (PositionStatus.OPENING, PositionStatus.OPEN, PositionStatus.CLOSING)

STATES: Mapping[OrderStatus, OrderState] = {
    OrderStatus.PENDING_NEW: OrderState.WORKING,
    OrderStatus.NEW: OrderState.WORKING,
    OrderStatus.PARTIALLY_FILLED: OrderState.PARTIAL,
    OrderStatus.FILLED: OrderState.FILLED,
    OrderStatus.CANCELED: OrderState.CANCELLED,
    OrderStatus.EXPIRED: OrderState.EXPIRED,
    OrderStatus.REJECTED: OrderState.REJECTED,
}


@dataclass(slots=True)
class Holding:
    """A position with its orders, fills and the stops it has had.

    `quiet_until` is the index of the replay's bar before which nothing can happen to it, −1 where that must be found
    anew. `looked_until` is the index up to which its closes are in the position's best one.
    """

    position: Position
    intent: Intent
    regime: str
    rules: SymbolRules
    totals: FillTotals | None = None
    fills: list[Fill] = field(default_factory=list)
    stop_path: list[tuple[int, float]] = field(default_factory=list)
    cash_quote: Decimal = Decimal(0)
    is_fine: bool = False  # its protection is known to be fine, and stays so while nothing changes
    quiet_until: int = -1
    looked_until: int = -1
    _rows: dict[str, Order] = field(default_factory=dict)
    _records: dict[str, engine_types.Order] = field(default_factory=dict)
    _stale: dict[str, None] = field(default_factory=dict)  # client ids whose record is newer than their row

    @property
    def is_live(self) -> bool:
        return self.position.status in LIVE

    @property
    def orders(self) -> dict[str, Order]:
        """Our rows by client order id, as they now are."""
        if self._stale:
            for client_id in self._stale:
                self._rows[client_id] = _row_after(self._rows[client_id], self._records[client_id], self.rules)
            self._stale.clear()
        return self._rows

    def remember(self, order: Order) -> None:
        """A new row, or one whose state no record of the engine tells."""
        self._rows[order.client_order_id] = order
        self.disturb()

    def note(self, record: engine_types.Order) -> None:
        """The engine's record of one of the orders has changed."""
        self._records[record.client_id] = record
        self._stale[record.client_id] = None

    def disturb(self) -> None:
        """Something has changed: what was known of its quiet is not known any more."""
        self.is_fine = False
        self.quiet_until = -1

    def state_of(self, client_id: str) -> OrderState:
        """The state of one order."""
        record = self._records.get(client_id)
        return STATES[record.status] if record is not None else self._rows[client_id].state

    def working(self) -> tuple[bool, bool]:
        """Whether an entry, and whether a stop, a target or an exit may still fill."""
        entering = leaving = False
        for client_id, row in self._rows.items():
            record = self._records.get(client_id)
            if record.is_open if record is not None else not is_final(row.state):
                if row.role is OrderRole.ENTRY:
                    entering = True
                else:
                    leaving = True
        return entering, leaving

    def managed(self, best_close: Decimal, bar: datetime) -> None:
        """Keep what the position rule saw at a close."""
        self.position = changed(self.position, best_close=best_close, managed_bar=bar)


def trade_of(holding: Holding, net_r: float) -> Trade:
    """A closed position as the report shows it."""
    position, totals = holding.position, holding.totals
    assert totals is not None
    assert totals.entry_price is not None
    assert position.opened_at is not None
    assert position.closed_at is not None
    return Trade(
        position_id=position.position_id,
        symbol=position.symbol,
        side=position.side,
        family=position.family.value,
        regime=holding.regime,
        bar_ms=to_ms(position.bar),
        entry_ms=to_ms(position.opened_at),
        entry_price=float(totals.entry_price),
        exit_ms=to_ms(position.closed_at),
        exit_price=float(totals.exit_price or totals.entry_price),
        quantity=float(totals.entry_quantity),
        initial_stop_price=float(position.initial_stop_price),
        target_price=float(position.target_price),
        stop_path=tuple(holding.stop_path),
        net_r=net_r,
        net_quote=float(position.realised_quote),
        fees_quote=float(position.fees_quote),
        exit_reason=position.exit_reason,
    )


def _state_after(row: Order, record: engine_types.Order) -> OrderState:
    state = STATES[record.status]
    if state is OrderState.EXPIRED and row.role in (OrderRole.STOP, OrderRole.TARGET) and row.list_client_id is None:
        return OrderState.CANCELLED  # no list of the exchange's ends it: live cancels what the other one left
    return state


def _row_after(row: Order, record: engine_types.Order, rules: SymbolRules) -> Order:
    """Our row of an order as the engine now has it."""
    return changed(
        row,
        state=_state_after(row, record),
        exchange_order_id=str(record.order_id),
        quantity=rules.quantity(record.lots) if record.lots else row.quantity,
        filled_quantity=rules.quantity(record.filled_lots),
        updated_at=moment(record.updated_ms),
        reason=record.reject_reason or row.reason,
    )
