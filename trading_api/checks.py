"""Is each part alive: PostgreSQL, Redis, Airflow, the exchange, the risk watch. Asked together, answered by name."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx
import psycopg
import redis

from tradewind.errors import TradewindError
from tradewind.jobs.permission import WATCH

if TYPE_CHECKING:
    from .services import Services

_TIMEOUT_S = 2.0
_KEEP_S = 2.0
_WAIT_S = 10.0
_HEARTBEAT = "SELECT at FROM heartbeats WHERE account = %s AND name = %s"
_MONEY_DAGS = ("run_trade_cycle", "manage_positions", "watch_risk", "trip_circuit_breaker")
_AIRFLOW_PARTS = ("metadatabase", "scheduler", "triggerer", "dag_processor")
# Where each real mode's exchange tells its time; the paper exchange speaks the same dialect at its own address.
_TIME_PATH = "/api/v3/time"
_PUBLIC_HOSTS = {
    ("testnet", "spot"): "https://testnet.binance.vision/api/v3/time",
    ("live", "spot"): "https://api.binance.com/api/v3/time",
    ("testnet", "usdm"): "https://testnet.binancefuture.com/fapi/v1/time",
    ("live", "usdm"): "https://fapi.binance.com/fapi/v1/time",
}


@dataclass(frozen=True, slots=True)
class Check:
    """One part's answer. `detail` is for a person; `value` is a number where there is one (ms, s)."""

    name: str
    ok: bool
    detail: str
    value: float | None = None


class Checks:
    """Asks every part at once, each with 2 s, and keeps the answers for a while, so that asking often costs nothing."""

    def __init__(self, made: Services, wait_s: float = _WAIT_S) -> None:
        self.wait_s = wait_s
        self._services = made
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(6, thread_name_prefix="check")
        self._answers: tuple[Check, ...] = ()
        self._asked_at_s = -1e9

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

    def _renew_and_release(self) -> None:
        try:
            self._renew()
        finally:
            self._lock.release()

    def _renew(self) -> None:
        self._answers = self._ask()
        self._asked_at_s = time.monotonic()

    def as_dicts(self) -> list[dict[str, Any]]:
        return [asdict(check) for check in self.all()]

    def _ask(self) -> tuple[Check, ...]:
        asked: list[tuple[str, Callable[[], Check]]] = [
            ("postgresql", self._postgresql),
            ("redis", self._redis),
            ("airflow", self._airflow),
            ("exchange", self._exchange),
            ("watch", self._watch),
        ]
        futures = [(name, self._pool.submit(_guarded, name, ask)) for name, ask in asked]
        deadline = time.monotonic() + _TIMEOUT_S + 1.0
        answers = []
        for name, future in futures:
            try:
                answers.append(future.result(max(0.0, deadline - time.monotonic())))
            except FutureTimeout:
                answers.append(Check(name, False, f"no answer within {_TIMEOUT_S:.0f} s"))
        return tuple(answers)

    def _postgresql(self) -> Check:
        dsn = self._services.settings.database_url.get_secret_value()
        started = time.perf_counter()
        with psycopg.connect(dsn, connect_timeout=int(_TIMEOUT_S), autocommit=True) as connection:
            connection.execute("SELECT 1")
        took_ms = (time.perf_counter() - started) * 1000
        return Check("postgresql", True, f"answers in {took_ms:.0f} ms", took_ms)

    def _redis(self) -> Check:
        started = time.perf_counter()
        url = self._services.settings.cache_url.get_secret_value()
        with redis.Redis.from_url(url, socket_timeout=_TIMEOUT_S, socket_connect_timeout=_TIMEOUT_S) as client:
            client.ping()
        took_ms = (time.perf_counter() - started) * 1000
        return Check("redis", True, f"answers in {took_ms:.0f} ms", took_ms)

    def _airflow(self) -> Check:
        with self._services.airflow_client(_TIMEOUT_S) as airflow:
            health = airflow.health()
            ill = [part for part in _AIRFLOW_PARTS if health.get(part, {}).get("status") != "healthy"]
            if ill:
                return Check("airflow", False, f"not healthy: {', '.join(ill)}")
            dags = {dag["dag_id"]: dag for dag in airflow.list_dags()}
        missing = [dag_id for dag_id in _MONEY_DAGS if dag_id not in dags]
        if missing:
            return Check("airflow", False, f"DAGs not loaded: {', '.join(missing)}")
        paused = [dag_id for dag_id in _MONEY_DAGS if dags[dag_id]["is_paused"]]
        if paused:
            return Check("airflow", False, f"paused: {', '.join(paused)}")
        return Check("airflow", True, "scheduler, triggerer and DAG processor are healthy")

    def _exchange(self) -> Check:
        settings = self._services.settings
        url = (
            f"{settings.exchange_url.rstrip('/')}{_TIME_PATH}"
            if settings.exchange_url
            else _PUBLIC_HOSTS[settings.mode, settings.market_type]
        )
        local = urlsplit(url).hostname in ("127.0.0.1", "localhost")
        before_ms = time.time() * 1000
        answer = httpx.get(url, timeout=_TIMEOUT_S, trust_env=not local)
        answer.raise_for_status()
        after_ms = time.time() * 1000
        offset_ms = float(answer.json()["serverTime"]) - (before_ms + after_ms) / 2
        return Check("exchange", True, f"answers in {after_ms - before_ms:.0f} ms", offset_ms)

    def _watch(self) -> Check:
        # A connection of its own: the pool would wait far longer than this check may.
        dsn = self._services.settings.database_url.get_secret_value()
        with psycopg.connect(dsn, connect_timeout=int(_TIMEOUT_S), autocommit=True) as connection:
            row = connection.execute(_HEARTBEAT, (self._services.account, WATCH)).fetchone()
        if row is None:
            return Check("watch", False, "the risk watch has never reported")
        age_s = (datetime.now(UTC) - row[0]).total_seconds()
        limit_s = self._services.wiring.params.watch_silent_s
        words = f"last heartbeat {age_s:.0f} s ago"
        return Check("watch", age_s <= limit_s, words if age_s <= limit_s else f"{words}, limit {limit_s:.0f} s", age_s)


def _guarded(name: str, ask: Callable[[], Check]) -> Check:
    """A check that fails says how, without addresses or passwords."""
    try:
        return ask()
    except TradewindError as error:
        return Check(name, False, str(error))
    except Exception as error:  # noqa: BLE001 - whatever a library raises here means that the part does not answer
        return Check(name, False, f"does not answer ({type(error).__name__})")
