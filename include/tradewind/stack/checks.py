"""Is each part alive: the processes, PostgreSQL, Redis, Airflow, the exchange, the risk watch. Answered by name."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import psycopg
import redis

from tradewind.adapters.exchange_clock import ask_clock, clock_url
from tradewind.errors import TradewindError
from tradewind.jobs.permission import CLOCKS_DIFFER_S, WATCH
from tradewind.settings import Settings
from tradewind.stack.airflow_api import AirflowClient
from tradewind.stack.state import READY, StackState, state_file

MONEY_DAGS: Final = ("run_trade_cycle", "manage_positions", "watch_risk", "trip_circuit_breaker")
_TIMEOUT_S: Final = 2.0
_KEEP_S: Final = 2.0
_WAIT_S: Final = 10.0
_RUNS_KEPT_S: Final = 20.0
_JUST_RESTARTED_S: Final = 20.0
_HEARTBEAT: Final = "SELECT at FROM heartbeats WHERE account = %s AND name = %s"
_AIRFLOW_PARTS: Final = ("metadatabase", "scheduler", "triggerer", "dag_processor")


@dataclass(frozen=True, slots=True)
class Check:
    """One part's answer. `detail` is for a person; `value` is a number where there is one (ms, s)."""

    name: str
    ok: bool
    detail: str
    value: float | None = None


@dataclass(frozen=True, slots=True)
class DagHealth:
    """One DAG: whether it is paused, how its last run stands, and how many failed within a day."""

    dag_id: str
    paused: bool
    last_state: str | None
    last_start: datetime | None
    failed_24h: int


class Checks:
    """Asks every part at once, each with 2 s, and keeps the answers for a while, so that asking often costs nothing.

    Parameters
    ----------
    watch_silent_s : age of the risk watch's heartbeat from which entries are blocked.
    wait_s : answers older than this are not given any more; new ones are waited for.
    """

    def __init__(self, settings: Settings, watch_silent_s: float, wait_s: float = _WAIT_S) -> None:
        self.wait_s = wait_s
        self._settings = settings
        self._watch_silent_s = watch_silent_s
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(7, thread_name_prefix="check")
        self._answers: tuple[Check, ...] = ()
        self._asked_at_s = -1e9
        self._dags: tuple[DagHealth, ...] = ()
        self._dags_at_s = -1e9

    def all(self) -> tuple[Check, ...]:
        """The newest answers: up to 10 s old ones at once, while new ones are fetched; older ones are waited for."""
        age_s = time.monotonic() - self._asked_at_s
        if age_s > self.wait_s:
            with self._lock:
                # Whoever waited for the lock finds the answers of the one who held it.
                if time.monotonic() - self._asked_at_s > self.wait_s:
                    self._renew()
        elif age_s > _KEEP_S and self._lock.acquire(blocking=False):
            threading.Thread(target=self._renew_and_release, name="checks", daemon=True).start()
        return self._answers

    def dags(self) -> tuple[DagHealth, ...]:
        """How each DAG does, as Airflow last told; empty before it first answered."""
        return self._dags

    def as_dicts(self) -> list[dict[str, Any]]:
        return [asdict(check) for check in self.all()]

    def ask(self) -> tuple[Check, ...]:
        """Ask now, without regard to what is kept; takes 3 s at most."""
        asked: list[tuple[str, Callable[[], Check]]] = [
            ("postgresql", self._postgresql),
            ("redis", self._redis),
            ("airflow", self._airflow),
            ("exchange", self._exchange),
            ("watch", self._watch),
        ]
        if state_file(self._settings.home_dir).exists():
            asked.insert(0, ("processes", self._processes))
        futures = [(name, self._pool.submit(_guarded, name, ask)) for name, ask in asked]
        deadline = time.monotonic() + _TIMEOUT_S + 1.0
        answers = []
        for name, future in futures:
            try:
                answers.append(future.result(max(0.0, deadline - time.monotonic())))
            except FutureTimeout:
                answers.append(Check(name, False, f"no answer within {_TIMEOUT_S:.0f} s"))
        return tuple(answers)

    def _renew_and_release(self) -> None:
        try:
            self._renew()
        finally:
            self._lock.release()

    def _renew(self) -> None:
        self._answers = self.ask()
        self._asked_at_s = time.monotonic()

    # --------------------------------------------------------------------------------------------------------- parts
    def _processes(self) -> Check:
        """What the embedded stack's supervisor wrote down: it sees a process die before anything else does."""
        state = StackState.load(state_file(self._settings.home_dir))
        if state is None:
            return Check("processes", False, "the stack is going down")
        if not state.supervisor.alive():
            return Check("processes", False, "the supervisor is dead: nothing is restarted; run ./tradewind up")
        ill = [f"{process.name} is {process.state}" for process in state.processes if process.state != READY]
        for process in state.processes:
            # Named for a while, so that whoever asks every quarter minute learns of a death that lasted a second.
            age_s = time.time() - process.mark.started_s if process.mark is not None else 0.0
            if process.state == READY and process.restarts and age_s < _JUST_RESTARTED_S:
                ill.append(f"{process.name} died and was started again {age_s:.0f} s ago")
        restarts = sum(process.restarts for process in state.processes)
        return Check("processes", not ill, ", ".join(ill) or f"all run, {restarts} restarts", float(restarts))

    def _postgresql(self) -> Check:
        dsn = self._settings.database_url.get_secret_value()
        started = time.perf_counter()
        with psycopg.connect(dsn, connect_timeout=int(_TIMEOUT_S), autocommit=True) as connection:
            connection.execute("SELECT 1")
        took_ms = (time.perf_counter() - started) * 1000
        return Check("postgresql", True, f"answers in {took_ms:.0f} ms", took_ms)

    def _redis(self) -> Check:
        started = time.perf_counter()
        url = self._settings.cache_url.get_secret_value()
        with redis.Redis.from_url(url, socket_timeout=_TIMEOUT_S, socket_connect_timeout=_TIMEOUT_S) as client:
            client.ping()
        took_ms = (time.perf_counter() - started) * 1000
        return Check("redis", True, f"answers in {took_ms:.0f} ms", took_ms)

    def _airflow(self) -> Check:
        settings = self._settings
        password = settings.airflow_password.get_secret_value()
        with AirflowClient(settings.airflow_url, settings.airflow_username, password, timeout_s=_TIMEOUT_S) as airflow:
            health = airflow.health()
            ill = [part for part in _AIRFLOW_PARTS if health.get(part, {}).get("status") != "healthy"]
            if ill:
                return Check("airflow", False, f"not healthy: {', '.join(ill)}")
            dags = {dag["dag_id"]: dag for dag in airflow.list_dags()}
            if time.monotonic() - self._dags_at_s > _RUNS_KEPT_S:
                self._dags = dag_health(airflow, dags)
                self._dags_at_s = time.monotonic()
        missing = [dag_id for dag_id in MONEY_DAGS if dag_id not in dags]
        if missing:
            return Check("airflow", False, f"DAGs not loaded: {', '.join(missing)}")
        paused = [dag_id for dag_id in MONEY_DAGS if dags[dag_id]["is_paused"]]
        if paused:
            return Check("airflow", False, f"paused: {', '.join(paused)}")
        return Check("airflow", True, "scheduler, triggerer and DAG processor are healthy")

    def _exchange(self) -> Check:
        """The exchange in use, at the address that is traded at."""
        used = self._settings
        url = clock_url(used.exchange, used.market_type, base_url=used.exchange_url, testnet=used.mode == "testnet")
        took_ms, offset_ms = ask_clock(url, used.exchange, _TIMEOUT_S)
        return Check("exchange", True, f"answers in {took_ms:.0f} ms", offset_ms)

    def _watch(self) -> Check:
        # A connection of its own: a pool would wait far longer than this check may.
        dsn = self._settings.database_url.get_secret_value()
        with psycopg.connect(dsn, connect_timeout=int(_TIMEOUT_S), autocommit=True) as connection:
            row = connection.execute(_HEARTBEAT, (self._settings.account_id, WATCH)).fetchone()
        age_s = None if row is None else (datetime.now(UTC) - row[0]).total_seconds()
        return watch_check(age_s, self._watch_silent_s)


def watch_check(age_s: float | None, limit_s: float) -> Check:
    """What the age of the risk watch's last heartbeat means; None: it never beat."""
    if age_s is None:
        return Check("watch", False, "the risk watch has never reported")
    if age_s < -CLOCKS_DIFFER_S:
        words = f"last heartbeat {-age_s:.0f} s in the future: the clock ran backwards"
        return Check("watch", False, words, age_s)
    words = f"last heartbeat {age_s:.0f} s ago"
    return Check("watch", age_s <= limit_s, words if age_s <= limit_s else f"{words}, limit {limit_s:.0f} s", age_s)


def dag_health(airflow: AirflowClient, dags: Mapping[str, Mapping[str, Any]]) -> tuple[DagHealth, ...]:
    """Every DAG with its last run and its failures of a day, in two requests a DAG at most."""
    since = (datetime.now(UTC) - timedelta(days=1)).isoformat()
    failed: dict[str, int] = {}
    for run in airflow.newest_runs("~", state="failed", start_date_gte=since):
        failed[run["dag_id"]] = failed.get(run["dag_id"], 0) + 1
    found = []
    for dag_id in sorted(dags):
        runs: Sequence[Mapping[str, Any]] = airflow.newest_runs(dag_id, count=1)
        last = runs[0] if runs else None
        start = datetime.fromisoformat(last["start_date"]) if last and last["start_date"] else None
        paused = bool(dags[dag_id]["is_paused"])
        found.append(DagHealth(dag_id, paused, last["state"] if last else None, start, failed.get(dag_id, 0)))
    return tuple(found)


def _guarded(name: str, ask: Callable[[], Check]) -> Check:
    """A check that fails says how, without addresses or passwords."""
    try:
        return ask()
    except TradewindError as error:
        return Check(name, False, str(error))
    except Exception as error:  # noqa: BLE001 - whatever a library raises here means that the part does not answer
        return Check(name, False, f"does not answer ({type(error).__name__})")
