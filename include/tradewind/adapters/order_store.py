"""Orders and fills: an order changes by the steps of `core.orders` alone, under a row lock, each with an event row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from tradewind.adapters.account_store import as_json
from tradewind.adapters.position_store import PositionStore
from tradewind.core.orders import is_allowed
from tradewind.core.ports import LedgerTotal
from tradewind.core.types import Fill, Order, OrderRole, OrderState
from tradewind.errors import LedgerMismatch

_ORDER_COLUMNS: Final = (
    "client_order_id, account, position_id, symbol, role, is_buy, lot, generation, order_type, quantity, price, "
    "stop_price, list_client_id, state, exchange_order_id, filled_quantity, planned_at, sent_at, updated_at, reason, "
    "seen_at"
)
FILL_COLUMNS: Final = (
    "f.account, f.symbol, f.trade_id, client_order_id, f.is_buy, f.quantity, f.price, f.fee, f.fee_asset, f.is_maker, "
    "f.at"
)


def order_of(row: Mapping[str, Any]) -> Order:
    """An order from its row."""
    return Order(**{**row, "role": OrderRole(row["role"]), "state": OrderState(row["state"])})


class OrderStore(PositionStore):
    """The rows of orders, their events and their fills."""

    INSERT_ORDER: Final = f"""
        INSERT INTO orders ({_ORDER_COLUMNS})
        VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
        ON CONFLICT DO NOTHING RETURNING client_order_id"""  # noqa: S608 - the columns are a constant above
    INSERT_EVENT: Final = """
        INSERT INTO order_events (client_order_id, from_state, to_state, detail, at) VALUES (%s, %s, %s, %s, %s)"""
    ORDERS_BY_ID: Final = f"""
        SELECT {_ORDER_COLUMNS} FROM orders WHERE client_order_id = ANY(%s)"""  # noqa: S608 - constant columns

    def plan_orders(self, orders: Sequence[Order]) -> list[Order]:
        """Commit the rows before anything is sent; rows that exist are returned as they are, in the given order.

        Raises LockNotAcquired without the newest lock on the position, LedgerMismatch when a row of another id already
        holds the place (position, role, lot, generation).
        """
        ids = [order.client_order_id for order in orders]
        with self._database.transaction() as connection:
            for position_id in {order.position_id for order in orders}:
                self._require_fence(connection, position_id)
            for order in orders:
                values = (
                    order.client_order_id,
                    self.account,
                    order.position_id,
                    order.symbol,
                    order.role.value,
                    order.is_buy,
                    order.lot,
                    order.generation,
                    order.order_type,
                    order.quantity,
                    order.price,
                    order.stop_price,
                    order.list_client_id,
                    order.state.value,
                    order.exchange_order_id,
                    order.filled_quantity,
                    order.planned_at,
                    order.sent_at,
                    order.updated_at,
                    order.reason,
                    order.seen_at,
                )
                if connection.execute(self.INSERT_ORDER, values).fetchone() is not None:
                    event = (order.client_order_id, "", order.state.value, as_json({"reason": order.reason}))
                    connection.execute(self.INSERT_EVENT, (*event, order.planned_at))
            rows = connection.execute(self.ORDERS_BY_ID, (ids,)).fetchall()
        stored = {row["client_order_id"]: order_of(row) for row in rows}
        missing = [client_id for client_id in ids if client_id not in stored]
        if missing:
            raise LedgerMismatch(f"orders {missing} could not be planned: orders of other ids are in their places")
        return [stored[client_id] for client_id in ids]

    LOCK_ORDER: Final = f"""
        SELECT {_ORDER_COLUMNS} FROM orders
        WHERE client_order_id = %s AND account = %s FOR UPDATE"""  # noqa: S608 - constant columns
    MOVE_ORDER: Final = f"""
        UPDATE orders SET state = %(state)s,
            exchange_order_id = coalesce(%(exchange_order_id)s, exchange_order_id),
            quantity = coalesce(%(quantity)s, quantity),
            filled_quantity = greatest(filled_quantity, coalesce(%(filled_quantity)s, filled_quantity)),
            sent_at = coalesce(%(sent_at)s, sent_at),
            reason = coalesce(%(reason)s, reason),
            updated_at = %(at)s
        WHERE client_order_id = %(id)s RETURNING {_ORDER_COLUMNS}"""  # noqa: S608 - constant columns

    def move_order(self, client_order_id: str, to: OrderState, *, at: datetime, **detail: Any) -> Order:
        """One allowed step; a step to the state the order is in already only refreshes its figures, without an event,
        unless it is the step to SENT with `sent_at`: that one is taken from PLANNED alone, by whoever then sends.

        Raises LedgerMismatch for a forbidden step or an unknown id.
        """
        with self._database.transaction() as connection:
            row = connection.execute(self.LOCK_ORDER, (client_order_id, self.account)).fetchone()
            if row is None:
                raise LedgerMismatch(f"no order {client_order_id} in the ledger of account {self.account}")
            current = order_of(row)
            # A step to SENT with its time is the right to send, and is given once.
            sends = to is OrderState.SENT and "sent_at" in detail
            if not is_allowed(current.state, to) and (sends or to is not current.state):
                raise LedgerMismatch(
                    f"order {client_order_id} is {current.state.value} in the ledger and cannot become {to.value}"
                )
            if to is OrderState.SENT:
                self._require_fence(connection, current.position_id)
            values = {
                "state": to.value,
                "exchange_order_id": detail.get("exchange_order_id"),
                "quantity": detail.get("quantity"),
                "filled_quantity": detail.get("filled_quantity"),
                "sent_at": detail.get("sent_at"),
                "reason": detail.get("reason"),
                "at": at,
                "id": client_order_id,
            }
            moved = connection.execute(self.MOVE_ORDER, values).fetchone()
            if to is not current.state:
                event = (client_order_id, current.state.value, to.value, as_json(detail), at)
                connection.execute(self.INSERT_EVENT, event)
        assert moved is not None  # the row is locked
        return order_of(moved)

    SEEN: Final = "UPDATE orders SET seen_at = greatest(seen_at, %s) WHERE account = %s AND client_order_id = ANY(%s)"

    def mark_seen(self, client_order_ids: Sequence[str], at: datetime) -> None:
        """These orders were seen at the exchange at that moment (wall time)."""
        if client_order_ids:
            self._database.execute(self.SEEN, (at, self.account, list(client_order_ids)))

    ORDER: Final = f"SELECT {_ORDER_COLUMNS} FROM orders WHERE client_order_id = %s AND account = %s"  # noqa: S608

    def order(self, client_order_id: str) -> Order | None:
        """The ledger's row of an id, or None."""
        row = self._database.row(self.ORDER, (client_order_id, self.account))
        return None if row is None else order_of(row)

    ORDERS_IN: Final = f"""
        SELECT {_ORDER_COLUMNS} FROM orders
        WHERE account = %s AND state = ANY(%s) ORDER BY planned_at, client_order_id"""  # noqa: S608 - constant columns

    def orders_in(self, states: Sequence[OrderState]) -> list[Order]:
        """All orders in one of the states, oldest first."""
        rows = self._database.rows(self.ORDERS_IN, (self.account, [state.value for state in states]))
        return [order_of(row) for row in rows]

    ORDERS_OF: Final = f"""
        SELECT {_ORDER_COLUMNS} FROM orders WHERE account = %s AND position_id = %s
        ORDER BY generation, lot, role"""  # noqa: S608 - constant columns

    def orders_of(self, position_id: str) -> list[Order]:
        """Every order of a position, by generation, lot and role."""
        return [order_of(row) for row in self._database.rows(self.ORDERS_OF, (self.account, position_id))]

    ORDERS_BY_EXCHANGE_ID: Final = """
        SELECT exchange_order_id, client_order_id FROM orders
        WHERE account = %s AND symbol = %s AND exchange_order_id = ANY(%s)"""

    def orders_by_exchange_id(self, symbol: str, exchange_order_ids: Sequence[str]) -> dict[str, str]:
        """Our client order id of each exchange id that the ledger knows."""
        if not exchange_order_ids:
            return {}
        rows = self._database.rows(self.ORDERS_BY_EXCHANGE_ID, (self.account, symbol, list(exchange_order_ids)))
        return {row["exchange_order_id"]: row["client_order_id"] for row in rows}

    EVENTS: Final = """
        SELECT e.from_state, e.to_state, e.detail, e.at FROM order_events e JOIN orders o USING (client_order_id)
        WHERE o.account = %s AND e.client_order_id = %s ORDER BY e.event_id"""

    def order_events(self, client_order_id: str) -> list[Mapping[str, Any]]:
        """Every step of one order's life, oldest first."""
        return list(self._database.rows(self.EVENTS, (self.account, client_order_id)))

    INSERT_FILL: Final = """
        INSERT INTO fills
            (account, symbol, trade_id, client_order_id, is_buy, quantity, price, fee, fee_asset, is_maker, at)
        VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING"""

    def insert_fills(self, fills: Sequence[Fill]) -> int:
        """Executions, each once by its trade id; returns how many were new."""
        if not fills:
            return 0
        rows = [
            (
                self.account,
                fill.symbol,
                fill.trade_id,
                fill.client_order_id,
                fill.is_buy,
                fill.quantity,
                fill.price,
                fill.fee,
                fill.fee_asset,
                fill.is_maker,
                fill.at,
            )
            for fill in fills
        ]
        with self._database.transaction() as connection, connection.cursor() as cursor:
            cursor.executemany(self.INSERT_FILL, rows)
            return cursor.rowcount

    FILLS_OF: Final = f"""
        SELECT {FILL_COLUMNS} FROM fills f JOIN orders o USING (client_order_id)
        WHERE o.account = %s AND f.account = o.account AND o.position_id = %s
        ORDER BY f.at, length(f.trade_id), f.trade_id"""  # noqa: S608 - constant columns

    def fills_of(self, position_id: str) -> list[Fill]:
        """Every execution of a position's orders, in time; those of one millisecond as the exchange numbered them."""
        return [Fill(**row) for row in self._database.rows(self.FILLS_OF, (self.account, position_id))]

    LAST_FILL_AT: Final = """
        SELECT symbol, max(at) AS at FROM fills WHERE account = %s AND symbol = ANY(%s) GROUP BY symbol"""

    def last_fill_at(self, symbols: Sequence[str]) -> dict[str, datetime]:
        """The newest execution's time of each symbol that has any."""
        rows = self._database.rows(self.LAST_FILL_AT, (self.account, list(symbols)))
        return {row["symbol"]: row["at"] for row in rows}

    TOTALS: Final = """
        SELECT symbol,
            sum(CASE WHEN is_buy THEN quantity ELSE -quantity END
                - CASE WHEN fee_asset = split_part(symbol, '/', 1) THEN fee ELSE 0 END) AS base_quantity,
            sum(CASE WHEN is_buy THEN -quantity * price ELSE quantity * price END
                - CASE WHEN fee_asset = split_part(symbol, '/', 2) THEN fee ELSE 0 END) AS cash_quote
        FROM fills WHERE account = %s GROUP BY symbol"""
    OTHER_FEES: Final = """
        SELECT symbol, fee_asset, sum(fee) AS fee, coalesce(sum(fee_quote), 0) AS fee_quote FROM fills
        WHERE account = %s AND fee_asset NOT IN (split_part(symbol, '/', 1), split_part(symbol, '/', 2))
        GROUP BY symbol, fee_asset"""

    def ledger_totals(self) -> dict[str, LedgerTotal]:
        """All fills of each symbol, summed exactly."""
        with self._database.transaction() as connection:
            totals = connection.execute(self.TOTALS, (self.account,)).fetchall()
            others = connection.execute(self.OTHER_FEES, (self.account,)).fetchall()
        found = {
            row["symbol"]: LedgerTotal(row["symbol"], row["base_quantity"], row["cash_quote"], {}) for row in totals
        }
        for row in others:
            found[row["symbol"]] = found[row["symbol"]].with_fee(row["fee_asset"], row["fee"], row["fee_quote"])
        return found
