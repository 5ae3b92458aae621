"""The latch with its history, heartbeats, equity, flattenings, baselines, reconciliations and the audit.

The latch only ever tightens, except through `open_latch`, and every change of it has its history row in the same
transaction.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from tradewind.adapters.account_store import AccountStore, as_json
from tradewind.core.ports import Flattening, ReconciliationRecord
from tradewind.core.types import Latch, TradingMode
from tradewind.errors import TradingHalted

_NEVER: Final = datetime.fromtimestamp(0, UTC)


class SafetyStore(AccountStore):
    """What stops trading, and what says whether it must."""

    # --------------------------------------------------------------------------------------------------------- latch
    LATCH: Final = "SELECT mode, reason, since, sequence FROM latches WHERE account = %s"

    def latch(self) -> Latch:
        """The latch as it lies; ACTIVE with sequence 0 where it was never touched."""
        row = self._database.row(self.LATCH, (self.account,))
        if row is None:
            return Latch(self.account, TradingMode.ACTIVE, "", _NEVER, 0)
        return Latch(self.account, TradingMode(row["mode"]), row["reason"], row["since"], row["sequence"])

    # The rule itself lies in the database, where it also serves a role that may do nothing else.
    TIGHTEN: Final = "SELECT mode, reason, since, sequence FROM tighten_latch(%s, %s, %s, %s, %s)"

    def set_latch(self, mode: TradingMode, reason: str, at: datetime, *, actor: str) -> Latch:
        """Tighten the latch; one that is as tight already stays as it is, with its first reason."""
        row = self._database.row(self.TIGHTEN, (self.account, mode.value, reason, actor, at))
        assert row is not None  # the function always returns the latch
        return Latch(self.account, TradingMode(row["mode"]), row["reason"], row["since"], row["sequence"])

    LOCK_LATCH: Final = "SELECT mode, sequence FROM latches WHERE account = %s FOR UPDATE"
    CHANGE_LATCH: Final = """
        UPDATE latches SET mode = %s, reason = %s, since = %s, sequence = %s WHERE account = %s"""
    INSERT_HISTORY: Final = """
        INSERT INTO latch_history (account, sequence, mode, reason, actor, at) VALUES (%s, %s, %s, %s, %s, %s)"""

    def open_latch(self, reason: str, at: datetime, *, actor: str, sequence: int | None = None) -> Latch:
        """Open the latch: the last step of an audited resume, after its checks.

        Raises TradingHalted when it is not at `sequence` any more: what closed it since was not looked at.
        """
        mode = TradingMode.ACTIVE
        with self._database.transaction() as connection:
            row = connection.execute(self.LOCK_LATCH, (self.account,)).fetchone()
            if row is not None and sequence is not None and row["sequence"] != sequence:
                raise TradingHalted("the latch was closed anew meanwhile: look at the reason and resume again")
            if row is not None and row["mode"] != mode.value:
                sequence = row["sequence"] + 1
                connection.execute(self.CHANGE_LATCH, (mode.value, reason, at, sequence, self.account))
                connection.execute(self.INSERT_HISTORY, (self.account, sequence, mode.value, reason, actor, at))
        return self.latch()

    HISTORY: Final = """
        SELECT sequence, mode, reason, actor, at FROM latch_history WHERE account = %s ORDER BY sequence"""

    def latch_history(self) -> list[Mapping[str, Any]]:
        """Every change of the latch, oldest first."""
        return list(self._database.rows(self.HISTORY, (self.account,)))

    # ---------------------------------------------------------------------------------------------------- flattening
    START_FLATTENING: Final = """
        INSERT INTO flattenings (account, latch_sequence, started_at, last_attempt_at, attempts, report)
        VALUES (%s, %s, %s, %s, 0, '{}')
        ON CONFLICT (account, latch_sequence) DO UPDATE SET last_attempt_at = excluded.last_attempt_at"""

    def start_flattening(self, latch_sequence: int, at: datetime) -> None:
        """Say that somebody is at work on it."""
        self._database.execute(self.START_FLATTENING, (self.account, latch_sequence, at, at))

    RECORD_FLATTENING: Final = """
        INSERT INTO flattenings
            (account, latch_sequence, started_at, last_attempt_at, attempts, verified_flat_at, report)
        VALUES (%(account)s, %(sequence)s, %(at)s, %(at)s, 1, CASE WHEN %(flat)s THEN %(at)s END, %(report)s)
        ON CONFLICT (account, latch_sequence) DO UPDATE
        SET last_attempt_at = excluded.last_attempt_at, attempts = flattenings.attempts + 1, report = excluded.report,
            verified_flat_at = coalesce(flattenings.verified_flat_at, excluded.verified_flat_at)
        RETURNING latch_sequence, started_at, last_attempt_at, attempts, verified_flat_at, report"""

    def record_flattening(
        self, latch_sequence: int, at: datetime, report: Mapping[str, Any], *, flat: bool
    ) -> Flattening:
        """Count one attempt to flatten; `flat` marks it verified, the first time for good."""
        values = {
            "account": self.account,
            "sequence": latch_sequence,
            "at": at,
            "flat": flat,
            "report": as_json(report),
        }
        row = self._database.row(self.RECORD_FLATTENING, values)
        assert row is not None  # an upsert always returns its row
        return Flattening(**row)

    FLATTENING: Final = """
        SELECT latch_sequence, started_at, last_attempt_at, attempts, verified_flat_at, report
        FROM flattenings WHERE account = %s AND latch_sequence = %s"""

    def flattening(self, latch_sequence: int) -> Flattening | None:
        """The work after one latch, or None before its first attempt."""
        row = self._database.row(self.FLATTENING, (self.account, latch_sequence))
        return None if row is None else Flattening(**row)

    # ----------------------------------------------------------------------------------------------------- heartbeats
    BEAT: Final = """
        INSERT INTO heartbeats (account, name, at) VALUES (%s, %s, least(%s, clock_timestamp()))
        ON CONFLICT (account, name) DO UPDATE SET at = CASE
            WHEN heartbeats.at > clock_timestamp() THEN excluded.at ELSE greatest(heartbeats.at, excluded.at) END"""

    def beat(self, name: str, at: datetime) -> None:
        """Say that something is alive (wall time). By the server's clock no beat is in the future: one of a machine
        that is ahead counts as made now, and one that was made before a clock was set right gives way."""
        self._database.execute(self.BEAT, (self.account, name, at))

    HEARTBEATS: Final = "SELECT name, at FROM heartbeats WHERE account = %s"

    def heartbeats(self) -> dict[str, datetime]:
        """When each was last alive (wall time)."""
        return {row["name"]: row["at"] for row in self._database.rows(self.HEARTBEATS, (self.account,))}

    # -------------------------------------------------------------------------------------------------- reconciliation
    INSERT_BASELINE: Final = """
        INSERT INTO baselines (account, asset, quantity, taken_at) VALUES (%s, %s, %s, %s)"""
    LOCK_BASELINE: Final = "SELECT pg_advisory_xact_lock(hashtextextended('tradewind.baseline:' || %s, 0))"
    BASELINE: Final = "SELECT asset, quantity FROM baselines WHERE account = %s"

    def take_baseline(self, holdings: Mapping[str, Decimal], at: datetime) -> dict[str, Decimal]:
        """Keep what the account held before us, once and as a whole; returns what is kept."""
        with self._database.transaction() as connection:
            connection.execute(self.LOCK_BASELINE, (self.account,))
            kept = connection.execute(self.BASELINE, (self.account,)).fetchall()
            if kept:
                return {row["asset"]: row["quantity"] for row in kept}
            for asset, quantity in holdings.items():
                connection.execute(self.INSERT_BASELINE, (self.account, asset, quantity, at))
        return dict(holdings)

    def baseline(self) -> dict[str, Decimal] | None:
        """What the account holds that is not ours, by asset: what it held before us and what a person explained since.

        None before the first reconciliation.
        """
        rows = self._database.rows(self.BASELINE, (self.account,))
        if not rows:
            return None
        held: dict[str, Decimal] = {row["asset"]: row["quantity"] for row in rows}
        for asset, quantity in self.accepted_differences().items():
            held[asset] = held.get(asset, Decimal(0)) + quantity
        return held

    ACCEPTED: Final = """
        SELECT asset, sum(quantity) AS quantity FROM accepted_differences WHERE account = %s GROUP BY asset"""

    def accepted_differences(self) -> dict[str, Decimal]:
        """What was explained in all, by asset."""
        return {row["asset"]: row["quantity"] for row in self._database.rows(self.ACCEPTED, (self.account,))}

    INSERT_RECONCILIATION: Final = """
        INSERT INTO reconciliations (account, at, clean, report) VALUES (%s, %s, %s, %s)"""

    def record_reconciliation(self, at: datetime, clean: bool, report: Mapping[str, Any]) -> None:
        """Keep the outcome of one comparison (wall time)."""
        self._database.execute(self.INSERT_RECONCILIATION, (self.account, at, clean, as_json(report)))

    LAST_RECONCILIATION: Final = """
        SELECT at, clean, report FROM reconciliations WHERE account = %s ORDER BY reconciliation_id DESC LIMIT 1"""

    def last_reconciliation(self) -> ReconciliationRecord | None:
        """The comparison that was stored last, or None before the first."""
        row = self._database.row(self.LAST_RECONCILIATION, (self.account,))
        return None if row is None else ReconciliationRecord(**row)

    # ---------------------------------------------------------------------------------------------------------- audit
    AUDIT: Final = """
        INSERT INTO audit (actor, action, outcome, detail, source) VALUES (%s, %s, %s, %s, %s)"""

    def audit(self, actor: str, action: str, outcome: str, detail: Mapping[str, Any], *, source: str) -> None:
        """Who did what to the account, and how it ended."""
        values = (actor, action, outcome, as_json({"account": self.account, **detail}), source)
        self._database.execute(self.AUDIT, values)

    LOCK_REQUEST: Final = "SELECT pg_advisory_xact_lock(hashtextextended('tradewind.request:' || %s, 0))"
    REQUEST: Final = """
        SELECT actor, source FROM audit a
        WHERE action = %(action)s AND outcome = 'requested' AND detail ->> 'request' = %(request)s
          AND at > clock_timestamp() - %(max_age)s
          AND NOT EXISTS (SELECT 1 FROM audit t WHERE t.action = %(action)s AND t.outcome = 'taken'
                          AND t.detail ->> 'request' = %(request)s)"""

    def take_request(self, action: str, request: str, max_age: timedelta) -> Mapping[str, Any] | None:
        """Actor and source of a request that the audit holds, once: None without one, for an old or a taken one."""
        values = {"action": action, "request": request, "max_age": max_age}
        with self._database.transaction() as connection:
            connection.execute(self.LOCK_REQUEST, (request,))
            row = connection.execute(self.REQUEST, values).fetchone()
            if row is not None:
                detail = as_json({"account": self.account, "request": request})
                connection.execute(self.AUDIT, (row["actor"], action, "taken", detail, row["source"]))
        return row
