"""Holdings that a person gave up: they leave the ledger without a fill, and are not ours in the account any more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Final

from tradewind.adapters.account_store import as_json
from tradewind.adapters.payment_store import PaymentStore
from tradewind.adapters.safety_store import SafetyStore
from tradewind.core.ports import LedgerTotal, WriteOff
from tradewind.core.types import OrderState, Position

ZERO: Final = Decimal(0)
_TOLD: Final = ("position_id", "symbol", "quantity", "cost_quote", "settled_quote", "reason")
_COLUMNS: Final = "position_id, account, symbol, quantity, cost_quote, settled_quote, reason, actor, at"


class WriteOffStore(PaymentStore, SafetyStore):
    """The rows of write-offs, and the ledger's sums with them."""

    INSERT_WRITE_OFF: Final = f"""
        INSERT INTO write_offs ({_COLUMNS}) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)
        ON CONFLICT DO NOTHING RETURNING position_id"""  # noqa: S608 - the columns are a constant above
    WRITE_OFF: Final = f"SELECT {_COLUMNS} FROM write_offs WHERE position_id = %s AND account = %s"  # noqa: S608
    END_ORDERS: Final = """
        UPDATE orders o SET state = %(state)s, reason = %(reason)s, updated_at = %(at)s
        FROM (SELECT client_order_id, state FROM orders
              WHERE account = %(account)s AND client_order_id = ANY(%(ids)s) FOR UPDATE) before
        WHERE o.client_order_id = before.client_order_id RETURNING o.client_order_id, before.state AS was"""

    def write_off(self, position: Position, given_up: WriteOff, ended: Sequence[str], *, source: str) -> WriteOff:
        """Close the position, keep the write-off, end these orders and audit it, in one transaction and once.

        Returns the write-off that is kept. Raises LockNotAcquired without the newest lock on the position.
        """
        at, reason = position.closed_at or given_up.at, f"its market is gone: {given_up.reason}"
        told = {name: getattr(given_up, name) for name in _TOLD}
        with self._database.transaction() as connection:
            self._require_fence(connection, position.position_id)
            values = (
                given_up.position_id,
                self.account,
                given_up.symbol,
                given_up.quantity,
                given_up.cost_quote,
                given_up.settled_quote,
                given_up.reason,
                given_up.actor,
                given_up.at,
            )
            if connection.execute(self.INSERT_WRITE_OFF, values).fetchone() is not None:
                self._save(connection, position, "written_off", at, told)
                wanted = {"state": OrderState.EXPIRED.value, "reason": reason, "at": at, "ids": list(ended)}
                for ended_row in connection.execute(self.END_ORDERS, {**wanted, "account": self.account}).fetchall():
                    step = (ended_row["client_order_id"], ended_row["was"], OrderState.EXPIRED.value)
                    event = (*step, as_json({"reason": reason}))
                    connection.execute(self.INSERT_EVENT, (*event, at))
                detail = as_json({"account": self.account, **told})
                connection.execute(self.AUDIT, (given_up.actor, "write-off", "written off", detail, source))
            row = connection.execute(self.WRITE_OFF, (position.position_id, self.account)).fetchone()
        assert row is not None  # just inserted, or there before
        return WriteOff(**row)

    WRITE_OFFS: Final = f"""
        SELECT {_COLUMNS} FROM write_offs WHERE account = %s ORDER BY at, position_id"""  # noqa: S608 - constant columns

    def write_offs(self) -> list[WriteOff]:
        """Every holding that was given up, oldest first."""
        return [WriteOff(**row) for row in self._database.rows(self.WRITE_OFFS, (self.account,))]

    # ---------------------------------------------------------------------------------------------------------- sums
    def ledger_totals(self) -> dict[str, LedgerTotal]:
        """All fills, payments and write-offs of each symbol, summed exactly."""
        totals = super().ledger_totals()
        for gone in self.write_offs():
            known = totals.get(gone.symbol, LedgerTotal(gone.symbol, ZERO, ZERO, {}))
            totals[gone.symbol] = replace(
                known,
                base_quantity=known.base_quantity - gone.quantity,
                cash_quote=known.cash_quote + gone.settled_quote,
            )
        return totals

    def baseline(self) -> dict[str, Decimal] | None:
        """What the account holds that is not ours: what it held before us, what a person explained or gave up since.

        None before the first reconciliation.
        """
        held = super().baseline()
        if held is None:
            return None
        for gone in self.write_offs():
            base = gone.symbol.split("/")[0]
            held[base] = held.get(base, ZERO) + gone.quantity
        return held
