"""What Airflow loads from `plugins/`, and what it must not find there."""

from __future__ import annotations

import importlib
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.airflow_home import PROJECT_DIR
from tradewind.orchestration.defaults import PRIORITY, Pool
from tradewind.orchestration.links import DecisionsLink, OrdersLink
from tradewind.orchestration.preloading import preload


@pytest.fixture
def plugins(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports a module of `plugins/` as Airflow does, by its bare name."""
    monkeypatch.syspath_prepend(str(PROJECT_DIR / "plugins"))
    return importlib.import_module


def test_nothing_is_served_without_login(plugins: Any) -> None:
    plugin = plugins("tradewind_plugin").TradewindPlugin
    # Airflow mounts these two without asking for a login.
    assert plugin.fastapi_apps == []
    assert plugin.fastapi_root_middlewares == []
    assert plugin.flask_blueprints == []
    (view,) = plugin.external_views
    assert view["href"].startswith("http://127.0.0.1:")


def test_airflow_loads_the_plugin_without_an_error(plugins: Any) -> None:
    from airflow import plugins_manager

    _, import_errors = plugins_manager._get_plugins()
    assert import_errors == {}
    assert {type(link) for link in plugins_manager.get_operator_extra_links()} == {DecisionsLink, OrdersLink}


@pytest.mark.parametrize("run_id", ["backfill__2026-01-01T00:00:00+00:00", "scheduled__x", "manual__backfill__x", None])
def test_backfilled_runs_queue_with_the_bulk(plugins: Any, run_id: str | None) -> None:
    task_instance = SimpleNamespace(run_id=run_id, pool="market", queue="market", priority_weight=PRIORITY[Pool.MARKET])
    plugins("airflow_local_settings").task_instance_mutation_hook(task_instance)
    wanted = Pool.BULK if run_id is not None and run_id.startswith("backfill__") else Pool.MARKET
    found = (task_instance.pool, task_instance.queue, task_instance.priority_weight)
    assert found == (wanted, wanted, PRIORITY[wanted])


@pytest.mark.parametrize("command", [["api-server"], ["dag-processor"], ["db", "migrate"], ["celery", "flower"], []])
def test_commands_that_fork_no_tasks_preload_nothing(command: list[str]) -> None:
    assert preload(command) == ()


def test_preloading_leaves_our_own_modules_and_openmp_alone() -> None:
    """In a process of its own: what is imported, that none of it is ours, and that no thread is left for the fork."""
    code = (
        "import sys, threading\n"
        "from tradewind.orchestration.preloading import preload\n"
        "before = set(sys.modules)\n"
        "names = preload(['scheduler'])\n"
        "new = set(sys.modules) - before\n"
        "assert {'lightgbm', 'xgboost', 'catboost', 'ccxt', 'talib', 'pandas'} <= set(names) & set(sys.modules)\n"
        "assert not [name for name in new if name.partition('.')[0] in ('tradewind', 'trading_api')], new\n"
        "assert threading.active_count() == 1, threading.enumerate()\n"
    )
    environment = {"PYTHONPATH": str(PROJECT_DIR / "include"), "PATH": "/usr/bin:/bin"}
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=300, env=environment
    )
    assert answer.returncode == 0, answer.stderr


def test_links_are_empty_outside_the_trade_cycle() -> None:
    key: Any = SimpleNamespace(dag_id="collect_candles_15m", task_id="collect_candles", run_id="x", map_index=-1)
    assert DecisionsLink().get_link(None, ti_key=key) == ""
    key.dag_id = "run_trade_cycle"
    assert OrdersLink().get_link(None, ti_key=key) == ""
