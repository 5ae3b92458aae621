"""Positions, and the lock that keeps two hands off one of them.

The lock is a PostgreSQL advisory lock on a connection of its own. A task that loses that connection (a restart of the
server) loses the lock without noticing, so each holder also draws a fence number: it is stamped on the position, and a
write or a send under an older number is refused. The newest holder wins; the older one stops at its next step.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Final

from tradewind.adapters.account_store import AccountStore, as_json
from tradewind.adapters.database import Connection, Database
from tradewind.core.codec import decode
from tradewind.core.params import PositionRules
from tradewind.core.ports import UnprotectedSpan
from tradewind.core.types import ClosedTrade, Minimums, Position, PositionStatus, RegimeFamily, Side
from tradewind.errors import LockNotAcquired

_COLUMNS: Final = (
    "position_id, account, strategy_version, symbol, side, family, status, bar, opened_at, closed_at, quantity, "
    "entry_quantity, entry_price, initial_stop_price, stop_price, target_price, atr_quote, best_close, managed_bar, "
    "realised_quote, fees_quote, exit_reason, minimums"
)


def _position(row: Mapping[str, Any]) -> Position:
    return Position(
        **{
            **row,
            "side": Side(row["side"]),
            "family": RegimeFamily(row["family"]),
            "status": PositionStatus(row["status"]),
            "minimums": None if row["minimums"] is None else decode(Minimums, row["minimums"]),
        }
    )


class PositionStore(AccountStore):
    """The rows of positions, their events, their locks and their unprotected spans."""

    def __init__(self, database: Database, account: str, strategy_version: str) -> None:
        super().__init__(database, account, strategy_version)
        self._fences: dict[str, int] = {}

    # ---------------------------------------------------------------------------------------------------------- lock
    TRY_LOCK: Final = "SELECT pg_try_advisory_xact_lock(hashtextextended('tradewind.position:' || %s, 0)) AS held"
    DRAW_FENCE: Final = "SELECT nextval('position_fences') AS fence"
    STAMP_FENCE: Final = "UPDATE positions SET fence = %s WHERE position_id = %s AND fence < %s"

    @contextmanager
    def position_lock(self, position_id: str) -> Iterator[bool]:
        """Held until the block ends, or until its connection is lost; yields False when someone else holds it."""
        if position_id in self._fences:
            raise LockNotAcquired(f"this process holds the lock on {position_id} already: locks do not nest")
        with self._database.transaction() as connection:
            row = connection.execute(self.TRY_LOCK, (position_id,)).fetchone()
            if row is None or not row["held"]:
                yield False
                return
            self._fences[position_id] = self._draw_fence(position_id)
            try:
                yield True
            finally:
                del self._fences[position_id]

    def _draw_fence(self, position_id: str) -> int:
        with self._database.transaction() as connection:
            row = connection.execute(self.DRAW_FENCE).fetchone()
            assert row is not None  # nextval always answers
            connection.execute(self.STAMP_FENCE, (row["fence"], position_id, row["fence"]))
        return int(row["fence"])

    FENCE: Final = "SELECT fence FROM positions WHERE position_id = %s FOR SHARE"

    def _require_fence(self, connection: Connection, position_id: str) -> None:
        """Raise LockNotAcquired unless this process holds the newest lock on the position."""
        held = self._fences.get(position_id)
        if held is None:
            raise LockNotAcquired(f"acting on {position_id} needs its lock: take position_lock first")
        row = connection.execute(self.FENCE, (position_id,)).fetchone()
        if row is not None and row["fence"] != held:
            raise LockNotAcquired(f"another task has taken over {position_id}: leave it to that task")

    # ----------------------------------------------------------------------------------------------------- positions
    INSERT: Final = f"""
        INSERT INTO positions ({_COLUMNS}, rules, fence)
        VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
        ON CONFLICT DO NOTHING RETURNING position_id"""  # noqa: S608 - the columns are a constant above
    INSERT_POSITION_EVENT: Final = """
        INSERT INTO position_events (position_id, event, detail, at) VALUES (%s, %s, %s, %s)"""
    SELECT: Final = f"SELECT {_COLUMNS} FROM positions WHERE position_id = %s AND account = %s"  # noqa: S608

    def open_position(self, position: Position, rules: PositionRules) -> Position:
        """Insert the position with the rules it follows; one that exists is returned unchanged. Needs its lock."""
        with self._database.transaction() as connection:
            self._require_fence(connection, position.position_id)
            values = (*_values(position, self.account), as_json(rules), self._fences[position.position_id])
            if connection.execute(self.INSERT, values).fetchone() is not None:
                event = (position.position_id, "planned", as_json({"bar": position.bar}), position.bar)
                connection.execute(self.INSERT_POSITION_EVENT, event)
            row = connection.execute(self.SELECT, (position.position_id, self.account)).fetchone()
        assert row is not None  # just inserted, or there before
        return _position(row)

    # In the same transaction: a task killed right after it would leave a span open for good.
    END_SPAN_NOW: Final = """
        UPDATE unprotected_spans SET ended_at = greatest(now(), started_at),
            seconds = extract(epoch FROM greatest(now(), started_at) - started_at)
        WHERE position_id = %s AND ended_at IS NULL"""
    SAVE: Final = """
        UPDATE positions SET status = %(status)s, opened_at = %(opened_at)s, closed_at = %(closed_at)s,
            quantity = %(quantity)s, entry_quantity = %(entry_quantity)s, entry_price = %(entry_price)s,
            stop_price = %(stop_price)s, target_price = %(target_price)s, best_close = %(best_close)s,
            managed_bar = %(managed_bar)s, realised_quote = %(realised_quote)s, fees_quote = %(fees_quote)s,
            exit_reason = %(exit_reason)s
        WHERE position_id = %(position_id)s AND account = %(account)s"""

    def save_position(self, position: Position, event: str, at: datetime, **detail: Any) -> None:
        """Replace what may change of a position and add an event, if the lock's fence is still the newest.

        Side, bar, first stop and ATR are what was decided and stay. Raises LockNotAcquired under an older fence.
        """
        with self._database.transaction() as connection:
            self._require_fence(connection, position.position_id)
            self._save(connection, position, event, at, detail)

    def _save(
        self, connection: Connection, position: Position, event: str, at: datetime, detail: Mapping[str, Any]
    ) -> None:
        values = {
            "position_id": position.position_id,
            "account": self.account,
            "status": position.status.value,
            "opened_at": position.opened_at,
            "closed_at": position.closed_at,
            "quantity": position.quantity,
            "entry_quantity": position.entry_quantity,
            "entry_price": position.entry_price,
            "stop_price": position.stop_price,
            "target_price": position.target_price,
            "best_close": position.best_close,
            "managed_bar": position.managed_bar,
            "realised_quote": position.realised_quote,
            "fees_quote": position.fees_quote,
            "exit_reason": position.exit_reason,
        }
        connection.execute(self.SAVE, values)
        connection.execute(self.INSERT_POSITION_EVENT, (position.position_id, event, as_json(detail), at))
        if position.status in (PositionStatus.CLOSED, PositionStatus.DUST):
            connection.execute(self.END_SPAN_NOW, (position.position_id,))

    def position(self, position_id: str) -> Position | None:
        """The position of an intent, or None."""
        row = self._database.row(self.SELECT, (position_id, self.account))
        return None if row is None else _position(row)

    LIVE: Final = f"""
        SELECT {_COLUMNS} FROM positions WHERE account = %s AND status IN ('opening', 'open', 'closing')
        ORDER BY bar, position_id"""  # noqa: S608 - constant columns

    def live_positions(self) -> list[Position]:
        """Positions that are not closed, oldest first."""
        return [_position(row) for row in self._database.rows(self.LIVE, (self.account,))]

    WITH_FILLS_SINCE: Final = f"""
        SELECT {_COLUMNS} FROM positions WHERE account = %s AND position_id IN (
            SELECT o.position_id FROM fills f JOIN orders o USING (client_order_id)
            WHERE f.account = %s AND f.at >= %s)
        ORDER BY bar, position_id"""  # noqa: S608 - constant columns

    def positions_with_fills_since(self, since: datetime) -> list[Position]:
        """Positions, closed ones too, that an execution since then belongs to."""
        rows = self._database.rows(self.WITH_FILLS_SINCE, (self.account, self.account, since))
        return [_position(row) for row in rows]

    RULES: Final = """
        SELECT position_id, rules FROM positions
        WHERE account = %s AND position_id = ANY(%s) AND rules IS NOT NULL"""

    def position_rules(self, position_ids: Sequence[str]) -> dict[str, Mapping[str, Any]]:
        """The rules that positions were opened with, as stored; one of before they were kept is absent."""
        rows = self._database.rows(self.RULES, (self.account, list(position_ids)))
        return {row["position_id"]: row["rules"] for row in rows}

    POSITION_EVENTS: Final = """
        SELECT event, detail, at FROM position_events WHERE position_id = %s ORDER BY event_id"""

    def position_events(self, position_id: str) -> list[Mapping[str, Any]]:
        """What happened to a position, oldest first."""
        return list(self._database.rows(self.POSITION_EVENTS, (position_id,)))

    CLOSED_TRADES: Final = """
        SELECT position_id, symbol, closed_at, realised_quote AS net_quote,
            CASE WHEN entry_quantity > 0 AND entry_price <> initial_stop_price
                THEN (realised_quote / (entry_quantity * abs(entry_price - initial_stop_price)))::double precision
                ELSE 0 END AS net_r
        FROM positions
        WHERE account = %s AND status IN ('closed', 'dust') AND entry_quantity > 0 AND closed_at >= %s
        ORDER BY closed_at, position_id"""

    def closed_trades(self, since: datetime) -> list[ClosedTrade]:
        """Positions closed since then that had a fill, oldest first."""
        return [ClosedTrade(**row) for row in self._database.rows(self.CLOSED_TRADES, (self.account, since))]

    # ---------------------------------------------------------------------------------------------------- protection
    START_SPAN: Final = """
        INSERT INTO unprotected_spans (position_id, cause, started_at) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING"""

    def start_unprotected(self, position_id: str, cause: str, at: datetime) -> None:
        """Begin a span without protection (wall time); one that is open already goes on."""
        self._database.execute(self.START_SPAN, (position_id, cause, at))

    END_SPAN: Final = """
        UPDATE unprotected_spans SET ended_at = %(at)s, seconds = extract(epoch FROM %(at)s - started_at)
        WHERE position_id = %(id)s AND ended_at IS NULL RETURNING seconds"""

    def end_unprotected(self, position_id: str, at: datetime) -> float | None:
        """End the open span; returns its seconds, or None when none was open."""
        row = self._database.row(self.END_SPAN, {"at": at, "id": position_id})
        return None if row is None else float(row["seconds"])

    SPANS: Final = """
        SELECT s.position_id, s.cause, s.started_at, s.ended_at, s.seconds
        FROM unprotected_spans s JOIN positions p USING (position_id)
        WHERE p.account = %(account)s AND (%(id)s::text IS NULL OR s.position_id = %(id)s) ORDER BY s.span_id"""

    OPEN_SPANS: Final = """
        SELECT s.position_id FROM unprotected_spans s JOIN positions p USING (position_id)
        WHERE p.account = %s AND s.ended_at IS NULL"""

    def unprotected_now(self) -> set[str]:
        """The positions with an open span: somebody is replacing their protection, or died while doing so."""
        return {row["position_id"] for row in self._database.rows(self.OPEN_SPANS, (self.account,))}

    def unprotected_spans(self, position_id: str | None = None) -> list[UnprotectedSpan]:
        """Every span of a position, or of all, oldest first."""
        rows = self._database.rows(self.SPANS, {"account": self.account, "id": position_id})
        return [UnprotectedSpan(**row) for row in rows]


def _values(position: Position, account: str) -> tuple[Any, ...]:
    return (
        position.position_id,
        account,
        position.strategy_version,
        position.symbol,
        position.side.value,
        position.family.value,
        position.status.value,
        position.bar,
        position.opened_at,
        position.closed_at,
        position.quantity,
        position.entry_quantity,
        position.entry_price,
        position.initial_stop_price,
        position.stop_price,
        position.target_price,
        position.atr_quote,
        position.best_close,
        position.managed_bar,
        position.realised_quote,
        position.fees_quote,
        position.exit_reason,
        None if position.minimums is None else as_json(position.minimums),
    )
