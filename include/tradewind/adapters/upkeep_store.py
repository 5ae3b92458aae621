"""Retention and statistics of our own tables.

What moved money or explains it is never removed: orders, fills, positions, every bar of which an entry came, the
history of the latch, the audit, and every candle. Bars that were decided and declined are kept for more than a year
(`TRADEWIND_DECISIONS_KEPT_DAYS`), and so are the reports of parity. Removed sooner is what repeats itself: old verdicts
on data, clean reconciliations, delivered alerts, finished jobs, and all but the telling ones of the equity marks.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from .database import Database

# By table: rows older than the bound that say nothing any more. `now` is the market's time where the column holds it.
_EXPIRED = {
    "data_quality": "DELETE FROM data_quality WHERE bar < %(now)s - interval '90 days'",
    "reconciliations": "DELETE FROM reconciliations WHERE clean AND at < %(now)s - interval '14 days'",
    "alerts": "DELETE FROM alerts WHERE sent_at IS NOT NULL AND created_at < now() - interval '180 days'",
    "jobs": "DELETE FROM jobs WHERE state IN ('done', 'failed') AND finished_at < now() - interval '180 days'",
    "parity_reports": "DELETE FROM parity_reports WHERE at < %(now)s - %(decisions_kept)s",
}
# A bar's decisions explain each other: where one symbol was entered, all of the bar stays. The rows that name the entry
# go last.
_DECIDED = ("cycle_inputs", "predictions", "filter_verdicts", "decisions")
_EXPIRED |= {
    table: f"""
DELETE FROM {table} t WHERE t.bar < %(now)s - %(decisions_kept)s AND NOT EXISTS (
    SELECT 1 FROM decisions d WHERE d.account = t.account AND d.bar = t.bar AND d.outcome = 'intent'
)
"""  # noqa: S608 - constants only
    for table in _DECIDED
}
# The equity marks that say nothing any more: a rule of the database's, so that no task can take the peak away.
_EXPIRED_MARKS = "SELECT remove_expired_marks(%(now)s) AS removed"
_ANALYZE = "SELECT renew_statistics()"
_SIZES = """
SELECT relname AS name, pg_total_relation_size(oid) AS bytes, greatest(reltuples, 0)::bigint AS rows
FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY 2 DESC LIMIT 12
"""


class PgUpkeep:
    """Satisfies core.ports.Upkeep. `decisions_kept`: how long a bar stays of which nothing was bought."""

    def __init__(self, database: Database, decisions_kept: timedelta) -> None:
        self._database = database
        self._decisions_kept = decisions_kept

    def remove_expired(self, now: datetime) -> dict[str, int]:
        """Delete what has outlived its use at `now` (the market's time); returns the rows removed by table."""
        values = {"now": now, "decisions_kept": self._decisions_kept}
        removed = {table: self._database.execute(sql, values) for table, sql in _EXPIRED.items()}
        marks = self._database.row(_EXPIRED_MARKS, values)
        return removed | {"equity": marks["removed"] if marks else 0}

    def refresh_statistics(self) -> list[dict[str, Any]]:
        """Let the planner see today's tables; returns name, bytes and estimated rows of the largest."""
        self._database.execute(_ANALYZE)
        return self._database.rows(_SIZES)
