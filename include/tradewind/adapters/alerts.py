"""The outbox of alerts: whoever notices something writes a row; `alert_dispatcher` sends it. No channel blocks a trade.

::

    raise_alert ──► alerts (outbox) ──► AlertDispatcher ──► apprise: Telegram, Slack, e-mail … by URL
                    same key within      claims by row,
                    the hour: repeats+1  backs off, gives up after a day
"""

from __future__ import annotations

import logging
from datetime import timedelta

import psycopg

from tradewind.adapters.database import Database
from tradewind.errors import StoreUnavailable

_log = logging.getLogger(__name__)

SEVERITIES = ("info", "warning", "critical")
DEDUPLICATION = timedelta(hours=1)
_LONGEST_TITLE = 200
_LONGEST_BODY = 4000

# Serialises the writers of one key, so that two processes noticing the same thing make one row.
_LOCK_KEY = "SELECT pg_advisory_xact_lock(hashtextextended(%(account)s || ' ' || %(key)s, 71))"

_REPEAT = """
    UPDATE alerts SET repeats = repeats + 1, last_seen_at = now(), body = %(body)s
    WHERE alert_id = (
        SELECT alert_id FROM alerts
        WHERE account = %(account)s AND key = %(key)s AND severity = %(severity)s AND last_seen_at > now() - %(window)s
        ORDER BY last_seen_at DESC LIMIT 1
    )"""

_INSERT = """
    INSERT INTO alerts (account, severity, key, title, body)
    VALUES (%(account)s, %(severity)s, %(key)s, %(title)s, %(body)s)"""


class OutboxAlerts:
    """`ports.Alerts` of one account over the outbox table."""

    def __init__(self, database: Database, account: str, *, deduplication: timedelta = DEDUPLICATION) -> None:
        self._database = database
        self._account = account
        self._deduplication = deduplication

    def raise_alert(self, severity: str, key: str, title: str, body: str) -> None:
        """Put an alert into the outbox, or count a repeat of the one that says the same.

        An alert is often raised while something else is failing, so a store that does not answer is logged instead of
        raised: the caller's own error must not be replaced by ours. Raises ValueError for an unknown severity.
        """
        try:
            self.store(severity, key, title, body)
        except (psycopg.Error, StoreUnavailable):
            _log.exception("alert could not be stored: %s: %s: %s", severity, title, body)

    def store(self, severity: str, key: str, title: str, body: str) -> None:
        """The same for who can wait and repeat: raises StoreUnavailable when PostgreSQL does not answer."""
        if severity not in SEVERITIES:
            raise ValueError(f"severity must be one of {', '.join(SEVERITIES)}, not {severity!r}")
        values = {
            "account": self._account,
            "severity": severity,
            "key": key,
            "title": title[:_LONGEST_TITLE],
            "body": body[:_LONGEST_BODY],
            "window": self._deduplication,
        }
        with self._database.transaction() as connection:
            connection.execute(_LOCK_KEY, values)
            if connection.execute(_REPEAT, values).rowcount == 0:
                connection.execute(_INSERT, values)

    KNOWN = "SELECT 1 FROM alerts WHERE account = %s AND key = %s LIMIT 1"

    def is_known(self, key: str) -> bool:
        """Whether an alert of this key was ever raised."""
        return self._database.row(self.KNOWN, (self._account, key)) is not None
