"""The latch with its history, heartbeats, equity, flattenings, baselines, reconciliations and the audit.

The latch is its history: functions of the database add a row for each change, and nothing else can. It only ever
tightens, except through `open_latch`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

from tradewind.adapters.account_store import AccountStore, as_json
from tradewind.core.ports import Flattening, ReconciliationRecord
from tradewind.core.transfers import Reading
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

    OPEN: Final = """
        SELECT mode, reason, since, sequence FROM open_latch(
            %(account)s, %(sequence)s, %(reason)s, %(actor)s, %(source)s, %(at)s, %(market_at)s, %(equity)s,
            '{}', %(link)s)"""
    OPEN_AS_REQUESTED: Final = """
        SELECT mode, reason, since, sequence FROM open_latch_as_requested(
            %(account)s, %(request)s, %(reason)s, %(at)s, %(market_at)s, %(equity)s, %(link)s)"""

    def open_latch(
        self,
        reason: str,
        at: datetime,
        *,
        actor: str,
        source: str,
        sequence: int,
        equity: Reading,
        request: str | None = None,
    ) -> Latch:
        """Open the latch, with its history, its audit row and the equity from which losses count anew: all or nothing.

        With `request` the database takes actor, source and sequence from that request, which must be signed.
        Raises TradingHalted when the latch is not at `sequence` any more: what closed it since was not looked at.
        """
        values = {
            "account": self.account, "sequence": sequence, "reason": reason, "actor": actor, "source": source,
            "at": at, "market_at": equity.at, "equity": equity.equity_quote, "link": equity.link, "request": request,
        }  # fmt: skip
        row = self._database.row(self.OPEN if request is None else self.OPEN_AS_REQUESTED, values)
        if row is None:
            raise TradingHalted("the latch was closed anew meanwhile: look at the reason and resume again")
        return Latch(self.account, TradingMode(row["mode"]), row["reason"], row["since"], row["sequence"])

    SIGNED_REQUEST: Final = "SELECT actor, source FROM signed_request(%s, %s, %s)"

    def signed_request(self, action: str, request: str) -> Mapping[str, Any] | None:
        """Actor and source of a request that bears the control token's signature; None for an old or a forged one."""
        return self._database.row(self.SIGNED_REQUEST, (self.account, action, request))

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
