"""The executor's side of the scaled-out stack: what Celery makes of the compose file, and where each task may run."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.dags.conftest import dags
from tests.ops.test_compose import SERVICES, queues_of
from tests.support.airflow_home import PROJECT_DIR
from tradewind import stack
from tradewind.orchestration.defaults import Pool, read_pools
from tradewind.stack.compose_secrets import init_compose_secrets

if TYPE_CHECKING:
    from airflow.sdk import DAG

__all__ = ["dags"]
MONEY = ("run_trade_cycle", "manage_positions", "watch_risk", "trip_circuit_breaker", "resume_trading")
_CONFIGURATION = """
import json
from airflow.providers.celery.executors.default_celery import DEFAULT_CELERY_CONFIG as found
wanted = ["task_acks_late", "worker_prefetch_multiplier", "broker_transport_options", "task_default_queue"]
wanted.append("broker_url")
print(json.dumps({name: found[name] for name in wanted}))
"""
_WORKER = """
import sys
sys.argv = ["airflow", "celery", "worker", "-q", "trading"]
sys.path.insert(0, {plugins!r})
import airflow_local_settings
from celery.signals import worker_init
assert "lightgbm" not in sys.modules
worker_init.send(sender=None)
assert {{"lightgbm", "xgboost", "catboost", "ccxt", "talib", "pandas"}} <= set(sys.modules)
import threading
assert threading.active_count() == 1, threading.enumerate()
import psutil
assert not psutil.Process().children()
"""

_BEATING = """
import sys
sys.argv = ["airflow", "celery", "worker", "-q", "trading"]
sys.path.insert(0, {plugins!r})
import airflow_local_settings
from pathlib import Path
airflow_local_settings.WORKER_ALIVE = Path({alive!r})
from celery import Celery
from celery.signals import worker_init
worker_init.disconnect(airflow_local_settings.preload_before_fork)
Celery(broker="memory://").worker_main(["worker", "--pool", "solo", "--without-gossip", "--without-mingle"])
"""


@pytest.fixture(scope="module")
def celery_config(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Celery's configuration as Airflow's provider makes it from the worker's environment and secret files."""
    directory = tmp_path_factory.mktemp("secrets")
    environment = {"PATH": "/usr/bin:/bin", "AIRFLOW_HOME": str(tmp_path_factory.mktemp("airflow"))}
    for name, value in SERVICES["trading-worker"]["environment"].items():
        if name.startswith(("AIRFLOW__CELERY", "AIRFLOW__OPERATORS")):
            environment[name] = value.replace("/run/secrets", str(directory))
    (directory / "airflow_broker_url").write_text("redis://:hidden@redis:6379/1")
    (directory / "airflow_result_backend").write_text("db+postgresql://airflow:hidden@postgres:5432/airflow")
    answer = subprocess.run(
        [sys.executable, "-c", _CONFIGURATION],
        env=environment, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr
    found: dict[str, Any] = json.loads(answer.stdout.splitlines()[-1])
    return found


def test_a_lost_worker_loses_no_task(celery_config: dict[str, Any]) -> None:
    assert celery_config["task_acks_late"] is True
    assert celery_config["worker_prefetch_multiplier"] == 1
    assert celery_config["broker_url"] == "redis://:hidden@redis:6379/1"


def test_no_running_task_is_delivered_again(celery_config: dict[str, Any], dags: dict[str, DAG]) -> None:
    visible = timedelta(seconds=celery_config["broker_transport_options"]["visibility_timeout"])
    limits = {task.execution_timeout for dag in dags.values() for task in dag.tasks}
    assert None not in limits
    assert visible > max(limit for limit in limits if limit is not None)


def test_its_loss_is_noticed_long_before(celery_config: dict[str, Any]) -> None:
    noticed_s = int(SERVICES["scheduler"]["environment"]["AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT"])
    assert noticed_s <= 60
    assert celery_config["broker_transport_options"]["visibility_timeout"] > 100 * noticed_s


def test_money_is_moved_by_the_trading_worker_alone(dags: dict[str, DAG]) -> None:
    trading, training = queues_of("trading-worker"), queues_of("training-worker")
    assert trading == {Pool.TRADING, Pool.MARKET}
    assert training == {Pool.BULK, Pool.TRAINING}
    assert trading | training == set(read_pools())
    for dag_id, dag in dags.items():
        for task in dag.tasks:
            assert task.queue in trading | training, f"{dag_id}.{task.task_id} would wait for ever"
            if dag_id in MONEY:
                assert task.queue == Pool.TRADING, f"{dag_id}.{task.task_id}"


def test_bulk_work_cannot_fill_the_trading_worker(celery_config: dict[str, Any]) -> None:
    assert celery_config["task_default_queue"] == Pool.BULK
    parallelism = int(SERVICES["scheduler"]["environment"]["AIRFLOW__CORE__PARALLELISM"].split(":-")[1].rstrip("}"))
    others = sum(size["slots"] for name, size in read_pools().items() if name != Pool.TRADING)
    assert parallelism - others >= 3


def test_a_worker_preloads_before_it_forks_and_compiles_meanwhile(tmp_path: Path) -> None:
    """The kernels of a cycle lie in numba's cache soon; the worker waits for them no longer than for its imports."""
    compiled = tmp_path / "numba"
    environment = {
        "PYTHONPATH": str(PROJECT_DIR / "include"), "PATH": "/usr/bin:/bin", "AIRFLOW_HOME": str(tmp_path),
        "NUMBA_CACHE_DIR": str(compiled),
    }  # fmt: skip
    code = _WORKER.format(plugins=str(PROJECT_DIR / "plugins"))
    # Into a file: a pipe would be read until the compiler too has closed it.
    with (tmp_path / "said").open("w") as said:
        answer = subprocess.run(
            [sys.executable, "-c", code], env=environment, stdout=said, stderr=said, check=False, timeout=200
        )
    assert answer.returncode == 0, (tmp_path / "said").read_text()
    deadline = time.monotonic() + 240
    while not {path.name.partition(".")[0] for path in compiled.rglob("*.nbi")} >= {"rolling", "regime"}:
        assert time.monotonic() < deadline, "nothing was compiled"
        time.sleep(0.5)
    assert SERVICES["trading-worker"]["environment"]["AIRFLOW__CELERY__POOL"] == "prefork"


def test_a_worker_is_well_while_its_heart_beats(tmp_path: Path) -> None:
    """A Celery worker touches the file that its container's health check looks at; an old one is no sign of life."""
    spec = importlib.util.spec_from_file_location("health", PROJECT_DIR / "include" / "ops" / "health.py")
    assert spec is not None
    assert spec.loader is not None
    health = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(health)
    alive = tmp_path / "alive"
    assert not health.worker_beats(alive)
    code = _BEATING.format(plugins=str(PROJECT_DIR / "plugins"), alive=str(alive))
    environment = {"PYTHONPATH": str(PROJECT_DIR / "include"), "PATH": "/usr/bin:/bin", "AIRFLOW_HOME": str(tmp_path)}
    worker = subprocess.Popen([sys.executable, "-c", code], env=environment)
    try:
        deadline = time.monotonic() + 240
        while not health.worker_beats(alive):
            assert worker.poll() is None
            assert time.monotonic() < deadline, "its heart does not beat"
            time.sleep(0.2)
    finally:
        worker.kill()
        worker.wait()
    os.utime(alive, (time.time() - 61, time.time() - 61))
    assert not health.worker_beats(alive)


def test_tasks_find_the_servers_by_the_file_of_connections(tmp_path: Path) -> None:
    """The backend that the compose file names reads it, and our tasks make the same addresses of it again."""
    from airflow.secrets.local_filesystem import LocalFilesystemBackend

    from tradewind.orchestration.runtime import CACHE_CONNECTION, DATABASE_CONNECTION, dsn_of

    settings = stack.with_secrets(home_dir=tmp_path)
    init_compose_secrets(settings)
    directory = tmp_path / "compose"
    environment = SERVICES["trading-worker"]["environment"]
    for section in ("SECRETS__BACKEND", "WORKERS__SECRETS_BACKEND"):
        assert environment[f"AIRFLOW__{section}"] == f"{LocalFilesystemBackend.__module__}.LocalFilesystemBackend"
        options = json.loads(environment[f"AIRFLOW__{section}_KWARGS"].replace("/run/secrets", str(directory)))
        backend = LocalFilesystemBackend(**options)
        database, cache = backend.get_connection(DATABASE_CONNECTION), backend.get_connection(CACHE_CONNECTION)
        assert database is not None
        assert cache is not None
        assert dsn_of(database, "postgresql") == (directory / "writer_database_url").read_text()
        assert dsn_of(cache, "redis") == (directory / "cache_url").read_text()
