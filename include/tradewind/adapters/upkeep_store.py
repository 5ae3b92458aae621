"""Retention and statistics of our own tables.

What explains or moved money is never removed: decisions, orders, fills, positions, the latch's history, the audit, and
every candle. Removed is what repeats itself: old verdicts on data, clean reconciliations, delivered alerts, finished
jobs, and all but the telling ones of the equity marks.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from .database import Database

# By table: rows older than the bound that say nothing any more. `now` is the market's time where the column holds it.
_EXPIRED = {
    "data_quality": "DELETE FROM data_quality WHERE bar < %(now)s - interval '90 days'",
    "reconciliations": "DELETE FROM reconciliations WHERE clean AND at < %(now)s - interval '14 days'",
    "alerts": "DELETE FROM alerts WHERE sent_at IS NOT NULL AND created_at < now() - interval '180 days'",
    "jobs": "DELETE FROM jobs WHERE state IN ('done', 'failed') AND finished_at < now() - interval '180 days'",
    # Marks come every few seconds. After a week the highest (the peak that drawdown is measured from), the lowest and
    # the last of each quarter of an hour tell as much.
    "equity": """
DELETE FROM equity e USING (
    SELECT ctid,
           row_number() OVER (quarter ORDER BY equity_quote DESC, at) AS from_top,
           row_number() OVER (quarter ORDER BY equity_quote, at) AS from_bottom,
           row_number() OVER (quarter ORDER BY at DESC) AS from_end
    FROM equity
    WHERE kind = 'mark' AND at < %(now)s - interval '7 days' AND at >= %(now)s - interval '40 days'
    WINDOW quarter AS (PARTITION BY account, date_bin('15 minutes', at, 'epoch'))
) AS ranked
WHERE e.ctid = ranked.ctid AND from_top > 1 AND from_bottom > 1 AND from_end > 1
""",
}
_ANALYZE = "SELECT renew_statistics()"
_SIZES = """
SELECT relname AS name, pg_total_relation_size(oid) AS bytes, greatest(reltuples, 0)::bigint AS rows
FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY 2 DESC LIMIT 12
"""


class PgUpkeep:
    """Satisfies core.ports.Upkeep."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def remove_expired(self, now: datetime) -> dict[str, int]:
        """Delete what has outlived its use at `now` (the market's time); returns the rows removed by table."""
        return {table: self._database.execute(sql, {"now": now}) for table, sql in _EXPIRED.items()}

    def refresh_statistics(self) -> list[dict[str, Any]]:
        """Let the planner see today's tables; returns name, bytes and estimated rows of the largest."""
        self._database.execute(_ANALYZE)
        return self._database.rows(_SIZES)
