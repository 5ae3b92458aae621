"""Sends the outbox of alerts through apprise. One process does so; those that raise alerts need nothing of this."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, time, timedelta

import apprise
import psycopg

from tradewind.adapters.alerts import SEVERITIES
from tradewind.adapters.database import Database
from tradewind.errors import StoreUnavailable

_log = logging.getLogger(__name__)

_GIVE_UP_AFTER = timedelta(days=1)
_BATCH = 20
_KINDS = {
    "info": apprise.NotifyType.INFO,
    "warning": apprise.NotifyType.WARNING,
    "critical": apprise.NotifyType.FAILURE,
}

# A failed attempt waits 2, 4, 8 … minutes, at most an hour. SKIP LOCKED lets several dispatchers share the work.
_CLAIM = """
    UPDATE alerts SET attempts = attempts + 1, last_attempt_at = now()
    WHERE alert_id IN (
        SELECT alert_id FROM alerts
        WHERE sent_at IS NULL AND created_at > now() - %(give_up)s
          AND (severity = ANY(%(severities)s))
          AND (last_attempt_at IS NULL
               OR last_attempt_at < now() - least(interval '1 hour', interval '1 minute' * 2 ^ least(attempts, 6)))
        ORDER BY (severity = 'critical') DESC, created_at
        LIMIT %(limit)s
        FOR UPDATE SKIP LOCKED
    )
    RETURNING alert_id, severity, key, title, body, created_at, repeats"""

_SENT = "UPDATE alerts SET sent_at = now(), last_error = NULL WHERE alert_id = %s"
_FAILED = "UPDATE alerts SET last_error = %s WHERE alert_id = %s"


class AlertDispatcher:
    """Sends the outbox through apprise; each alert goes to every channel.

    Parameters
    ----------
    database : where the outbox lies.
    urls : apprise URLs. Without any, alerts stay in the outbox, where the status page shows them.
    quiet : start and end of the UTC hours in which info and warning wait; None for no such hours.
    send : replaces the channels, for whoever delivers in another way: (title, body, severity) -> delivered.
    """

    def __init__(
        self,
        database: Database,
        urls: Sequence[str],
        *,
        quiet: tuple[time, time] | None = None,
        send: Callable[[str, str, str], bool] | None = None,
    ) -> None:
        self._database = database
        self._quiet = quiet
        self._channels = apprise.Apprise()
        for position, url in enumerate(urls, start=1):
            if not self._channels.add(url):
                # The URL holds a token: its place in the list names it well enough.
                _log.error("TRADEWIND_ALERT_URLS: number %d is no address that apprise knows", position)
        self._send = send or self._notify if (urls or send) else None
        self._stop = threading.Event()

    def dispatch_once(self, now: datetime | None = None) -> int:
        """Send what is due; returns how many alerts went out."""
        if self._send is None:
            return 0
        hushed = self._quiet is not None and _within(self._quiet, (now or datetime.now(UTC)).time())
        claimed = self._database.rows(
            _CLAIM,
            {
                "give_up": _GIVE_UP_AFTER,
                "severities": ["critical"] if hushed else list(SEVERITIES),
                "limit": _BATCH,
            },
        )
        sent = 0
        for alert in claimed:
            title = f"[{alert['severity']}] {alert['title']}"
            repeats = f"\n(seen {alert['repeats'] + 1} times)" if alert["repeats"] else ""
            body = f"{alert['body']}{repeats}\n{alert['created_at']:%Y-%m-%d %H:%M UTC}"
            if self._send(title, body, alert["severity"]):
                self._database.execute(_SENT, (alert["alert_id"],))
                sent += 1
            else:
                self._database.execute(_FAILED, ("no channel took it", alert["alert_id"]))
        return sent

    def send_directly(self, severity: str, title: str, body: str) -> bool:
        """Past the outbox, for when the outbox itself is what failed; says whether a channel took it."""
        return self._send is not None and self._send(f"[{severity}] {title}", body, severity)

    def run(self, poll_s: float = 5.0) -> None:
        """Dispatch until `stop`; a store that is down is tried again at the next turn."""
        while not self._stop.wait(poll_s):
            try:
                self.dispatch_once()
            except (psycopg.Error, StoreUnavailable) as error:
                _log.warning("alerts wait: PostgreSQL does not answer (%s)", type(error).__name__)

    def start(self, poll_s: float = 5.0) -> threading.Thread:
        """Run in a daemon thread."""
        thread = threading.Thread(target=self.run, args=(poll_s,), name="alert-dispatcher", daemon=True)
        thread.start()
        return thread

    def stop(self) -> None:
        self._stop.set()

    def _notify(self, title: str, body: str, severity: str) -> bool:
        return bool(self._channels.notify(title=title, body=body, notify_type=_KINDS[severity]))


def quiet_hours(text: str) -> tuple[time, time] | None:
    """`22:00-07:00` as two times of day; None for "". Raises ValueError where these are none."""
    if not text:
        return None
    start, _, end = text.partition("-")
    return time.fromisoformat(start), time.fromisoformat(end)


def _within(span: tuple[time, time], moment: time) -> bool:
    start, end = span
    return start <= moment < end if start <= end else moment >= start or moment < end
