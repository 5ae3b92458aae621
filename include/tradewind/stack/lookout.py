"""Looks every few seconds at what no single task can see, and says so: by alerts, by metrics, by a ping.

::

    every 5 s   ask each part ──► alert when one fails, once more an hour, and when it is back
                rows ──► alert on late bars, an old model, a naked position, a latched halt
                jobs that wait for an Airflow run ──► their state
    every 15 s  gauges (`gauges.py`)          once a day   the summary (`summary.py`)
    beside it   the outbox's dispatcher, the ping to a watchdog outside

While PostgreSQL is away its alerts wait here and go out directly. The embedded stack runs it in the supervisor, which
outlives every other process; elsewhere it is a process of its own: `python -m tradewind.stack.lookout`.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from datetime import UTC, datetime, timedelta
from datetime import time as datetime_time
from typing import Final

import psycopg

from tradewind.adapters.alert_dispatcher import AlertDispatcher, quiet_hours
from tradewind.adapters.database import Database
from tradewind.adapters.dead_man import DeadManPing
from tradewind.adapters.logs import configure_logging
from tradewind.errors import BadSetting, RetryError, StoreUnavailable
from tradewind.jobs.fetching import market_symbols
from tradewind.settings import Settings, load_settings
from tradewind.stack.airflow_api import AirflowClient
from tradewind.stack.checks import Check, Checks
from tradewind.stack.gauges import Gauges
from tradewind.stack.job_following import fail_silent_jobs, follow_jobs
from tradewind.stack.state import StackState, state_file
from tradewind.stack.summary import daily_summary
from tradewind.wiring import Wiring

log = logging.getLogger(__name__)

_EVERY_S: Final = 5.0
_GAUGES_EVERY_S: Final = 15.0
# One failed answer may be a hiccup; two in a row are not.
_BAD_FOR_S: Final = 4.0
# The watch is a DAG run like any other: a stack that has just started needs a while until it beats.
_WATCH_GRACE_S: Final = 180.0
_REMIND_S: Final = 3600.0
_SEVERITY: Final = {"redis": "warning"}
_BAR_S: Final = 900
_LATE_AFTER_S: Final = 300

_LATE: Final = """
    SELECT wanted.symbol, last.open_time
    FROM unnest(%(symbols)s::text[]) AS wanted (symbol)
    LEFT JOIN LATERAL (
        SELECT open_time FROM candles WHERE symbol = wanted.symbol AND timeframe = '15m'
        ORDER BY open_time DESC LIMIT 1
    ) last ON true
    WHERE last.open_time < %(late)s"""
_CHAMPION: Final = "SELECT version, trained_until FROM models WHERE state = 'champion'"
_NAKED: Final = """
    SELECT s.position_id, p.symbol, s.cause, s.started_at
    FROM unprotected_spans s JOIN positions p USING (position_id)
    WHERE p.account = %(account)s AND s.ended_at IS NULL
      AND s.started_at < clock_timestamp() - make_interval(secs => %(bound_s)s)"""
_LATCH: Final = "SELECT mode, reason, sequence FROM latches WHERE account = %(account)s AND mode <> 'active'"


class Lookout:
    """One a deployment; `start` and `stop` run it in a thread, `look` is one turn."""

    def __init__(self, settings: Settings, *, every_s: float = _EVERY_S) -> None:
        # It writes alerts and job rows and has no business with the schema.
        self._settings = settings.model_copy(update={"database_url": settings.writer_database_url})
        self._wiring = Wiring(self._settings)
        self._every_s = every_s
        self._checks = Checks(self._settings, self._wiring.params.watch_silent_s)
        self._gauges = Gauges(self._wiring)
        self._gauges_at_s = -1e9
        self._started_s = time.monotonic()
        self._bad_since_s: dict[str, float] = {}
        self._raised_s: dict[str, float] = {}
        self._restarts: dict[str, int] = {}
        self._waiting: list[tuple[str, str, str, str]] = []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self.run, name="lookout", daemon=True)
        self._ill: tuple[Check, ...] | None = None
        # Connections of its own: it must not wait for the lookout's, nor verify anything while PostgreSQL is away.
        outbox = Database(self._settings.database_url.get_secret_value(), max_connections=1)
        urls = [url.get_secret_value() for url in settings.alert_urls]
        self._dispatcher = AlertDispatcher(outbox, urls, quiet=_quiet(settings)) if urls else None
        dead_man = settings.dead_man_url.get_secret_value()
        self._ping = DeadManPing(dead_man, lambda: self._ill == ()) if dead_man else None

    # ------------------------------------------------------------------------------------------------------- running
    def start(self) -> None:
        """Run until `stop`."""
        self._thread.start()
        if self._dispatcher is not None:
            self._dispatcher.start()
        if self._ping is not None:
            self._ping.start()

    def stop(self) -> None:
        self._stopping.set()
        for helper in (self._dispatcher, self._ping):
            if helper is not None:
                helper.stop()
        if self._thread.is_alive():
            self._thread.join(timeout=15)
        self._wiring.close()

    def run(self) -> None:
        """Look until `stop`; whatever goes wrong in one turn, the next one looks again."""
        while not self._stopping.wait(self._every_s):
            try:
                self.look()
            except Exception:  # the one who watches the others must not end
                log.exception("the lookout failed, and looks again")

    def look(self) -> tuple[Check, ...]:
        """One turn; returns what each part answered."""
        checks = self._checks.ask()
        self._ill = tuple(check for check in checks if not check.ok)
        self._look_at_parts(checks)
        self._look_at_restarts()
        failed = {check.name for check in self._ill}
        if "postgresql" not in failed:
            try:
                self._deliver()
                self._look_at_rows(exchange_answers="exchange" not in failed)
                if "airflow" not in failed:
                    self._follow_jobs()
            except (StoreUnavailable, psycopg.Error, RetryError) as error:
                log.warning("the lookout's turn ended early: %s", error)
        self._wiring.metrics.count("tradewind.lookout.turns")
        if time.monotonic() - self._gauges_at_s >= _GAUGES_EVERY_S:
            self._gauges_at_s = time.monotonic()
            self._gauges.emit(checks, self._checks.dags())
        return checks

    # -------------------------------------------------------------------------------------------------------- alerts
    def _raise(self, severity: str, key: str, title: str, body: str) -> None:
        """Into the outbox; where that cannot be reached, to the channels, and into the outbox later."""
        try:
            self._wiring.alerts.store(severity, key, title, body)
        except (StoreUnavailable, psycopg.Error):
            log.error("alert waits for PostgreSQL: %s: %s: %s", severity, title, body)
            self._waiting.append((severity, key, title, body))
            if self._dispatcher is not None:
                self._dispatcher.send_directly(severity, title, body)

    def _deliver(self) -> None:
        while self._waiting:
            self._wiring.alerts.store(*self._waiting[0])
            self._waiting.pop(0)

    def _condition(self, key: str, severity: str, title: str, body: str, *, holds: bool, over: str = "") -> None:
        """Say what holds, again every hour while it does, and that it is over."""
        now_s = time.monotonic()
        if holds:
            if now_s - self._raised_s.get(key, -1e9) >= _REMIND_S:
                self._raised_s[key] = now_s
                self._raise(severity, key, title, body)
        elif self._raised_s.pop(key, None) is not None and over:
            self._raise("info", f"{key}:over", over, f"It was said: {title}.")

    def _look_at_parts(self, checks: tuple[Check, ...]) -> None:
        now_s = time.monotonic()
        for check in checks:
            if check.name == "processes":
                continue  # a process that died is told by name, below
            if check.ok:
                self._bad_since_s.pop(check.name, None)
            since_s = now_s if check.ok else self._bad_since_s.setdefault(check.name, now_s)
            grace_s = _WATCH_GRACE_S if check.name == "watch" and check.value is None else 0.0
            holds = not check.ok and now_s - since_s >= _BAD_FOR_S and now_s - self._started_s >= grace_s
            if check.ok or holds:
                effect = "" if check.name == "redis" else " No entry is sent while this lasts."
                self._condition(
                    f"part:{check.name}",
                    _SEVERITY.get(check.name, "critical"),
                    f"{check.name}: {check.detail}",
                    f"{check.name} has not been well for {now_s - since_s:.0f} s: {check.detail}.{effect}"
                    " Open positions stay protected at the exchange.",
                    holds=holds,
                    over=f"{check.name} is well again",
                )

    def _look_at_restarts(self) -> None:
        """A process that died and was started again within seconds is still worth a line."""
        state = StackState.load(state_file(self._settings.home_dir))
        for process in state.processes if state is not None else []:
            before = self._restarts.get(process.name, process.restarts)
            self._restarts[process.name] = process.restarts
            if process.restarts > before:
                self._raise(
                    "warning",
                    f"process:{process.name}",
                    f"{process.name} died and is started again",
                    f"Restart {process.restarts} of {process.name}; ./tradewind logs {process.name} says why.",
                )

    # ---------------------------------------------------------------------------------------------------------- rows
    def _look_at_rows(self, *, exchange_answers: bool) -> None:
        wiring = self._wiring
        # In a demo the market's clock is the exchange's.
        now = wiring.clock.now() if exchange_answers else datetime.now(UTC)
        self._look_at_data(now)
        champion = wiring.database.row(_CHAMPION)
        age_s = (now - champion["trained_until"]).total_seconds() if champion else 0.0
        self._condition(
            "model-stale",
            "warning",
            "The champion model is too old",
            f"{champion['version'] if champion else ''} knows nothing of the last {age_s / 86400:.1f} days; entries "
            "are blocked. Trigger retrain_models.",
            holds=age_s > wiring.params.max_model_age_s,
            over="The champion model is fresh again",
        )
        values = {"account": wiring.account, "bound_s": 2 * wiring.params.protection_deadline_s}
        naked = wiring.database.rows(_NAKED, values)
        for row in naked:
            self._condition(
                f"naked:{row['position_id']}",
                "critical",
                f"{row['symbol']} has no resting stop",
                f"Since {row['started_at']:%H:%M:%S} UTC ({row['cause']}). See manage_positions.",
                holds=True,
            )
        if latch := wiring.database.row(_LATCH, {"account": wiring.account}):
            # The CLI and the breaker have said so already; a halt on the status page has not.
            key = f"halt-{latch['sequence']}"
            if key not in self._raised_s:
                self._raised_s[key] = time.monotonic()
                if latch["mode"] == "reduce_only" and not wiring.alerts.is_known(key):
                    self._raise("warning", key, f"Trading is {latch['mode']}", latch["reason"])
        self._summarise(now)

    def _look_at_data(self, now: datetime) -> None:
        late = now - timedelta(seconds=2 * _BAR_S + _LATE_AFTER_S)
        symbols = market_symbols(self._wiring)
        rows = self._wiring.database.rows(_LATE, {"symbols": list(symbols), "late": late})
        names = ", ".join(f"{row['symbol']} since {row['open_time']:%d %b %H:%M}" for row in rows)
        self._condition(
            "stale-data",
            "warning",
            f"No new 15m bars for {len(rows)} of {len(symbols)} symbols",
            f"The newest stored bars: {names}. See collect_candles_15m and the exchange.",
            holds=bool(rows),
            over="Bars arrive again",
        )

    def _summarise(self, now: datetime) -> None:
        wall = datetime.now(UTC)
        key = f"summary-{wall:%Y-%m-%d}"
        if wall.hour < self._settings.summary_hour_utc or key in self._raised_s:
            return
        if not self._wiring.alerts.is_known(key):
            title, body = daily_summary(self._wiring, now)
            self._raise("info", key, title, body)
        self._raised_s[key] = time.monotonic()

    def _follow_jobs(self) -> None:
        fail_silent_jobs(self._wiring.database)
        settings = self._settings
        password = settings.airflow_password.get_secret_value()
        with AirflowClient(settings.airflow_url, settings.airflow_username, password, timeout_s=5.0) as airflow:
            follow_jobs(self._wiring.database, airflow)


def _quiet(settings: Settings) -> tuple[datetime_time, datetime_time] | None:
    try:
        return quiet_hours(settings.alert_quiet_hours)
    except ValueError as error:
        raise BadSetting("TRADEWIND_ALERT_QUIET_HOURS", str(error), "22:00-07:00") from None


def main() -> None:
    """Look out until SIGTERM."""
    settings = load_settings()
    configure_logging(settings.log_level, process="lookout")
    lookout = Lookout(settings)
    done = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: done.set())
    lookout.start()
    done.wait()
    lookout.stop()


if __name__ == "__main__":
    main()
