"""The services of a deployment and what each needs before it can start.

::

    postgres ─▶ databases ─┬─▶ exchange ─▶ account ────────────────────────┐
        │                  ├─▶ airflow-db ─▶ airflow-parent ─▶ api-server ─┼─▶ scheduler, triggerer, dag-processor
    valkey ────────────────┴─▶ status                             └─▶ pools┘
    kernels (compiled meanwhile, for nobody to wait for)
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import httpx

from tradewind.paper.admin import PaperAdmin
from tradewind.settings import PROJECT_DIR, Settings
from tradewind.stack import databases
from tradewind.stack.airflow_api import AirflowClient
from tradewind.stack.airflow_parent import AirflowParent
from tradewind.stack.environment import (
    airflow_environment,
    airflow_home,
    paper_environment,
    prepare_airflow_home,
    status_environment,
)
from tradewind.stack.postgres import EmbeddedPostgres
from tradewind.stack.processes import LOCALHOST, open_log, spawn
from tradewind.stack.supervisor import Process, Service, Step
from tradewind.stack.valkey import EmbeddedValkey

# Their directories in the home, beside which their sockets lie.
EMBEDDED = ("postgres", "valkey")
PARTS = frozenset({"postgres", "valkey", "exchange", "airflow", "status"})
_POOLS_FILE = PROJECT_DIR / "include" / "tradewind" / "orchestration" / "pools.json"
_DAGS_FOLDER = PROJECT_DIR / "dags"
_DAGS_TIMEOUT_S = 240.0
_KERNELS_TIMEOUT_S = 120.0
# Airflow's four processes, with what the health endpoint calls them.
_COMPONENTS = {"scheduler": "scheduler", "triggerer": "triggerer", "dag-processor": "dag_processor"}


def log_dir(settings: Settings) -> Path:
    return settings.home_dir / "logs"


def embedded_postgres(settings: Settings) -> EmbeddedPostgres:
    """The deployment's embedded server, whether it runs or not."""
    return EmbeddedPostgres(
        settings.home_dir / EMBEDDED[0],
        password=settings.postgres_password.get_secret_value(),
        log=log_dir(settings) / "postgres.log",
    )


def embedded_valkey(settings: Settings) -> EmbeddedValkey:
    """The deployment's embedded cache server, whether it runs or not."""
    return EmbeddedValkey(
        settings.home_dir / EMBEDDED[1],
        password=settings.cache_password.get_secret_value(),
        log=log_dir(settings) / "valkey.log",
    )


def airflow_client(settings: Settings) -> AirflowClient:
    """A client of this deployment's Airflow."""
    password = settings.airflow_password.get_secret_value()
    return AirflowClient(settings.airflow_url, settings.airflow_username, password)


def build(settings: Settings, parts: frozenset[str], *, fresh: bool = False) -> list[Service | Step]:
    """The nodes of the wanted parts.

    Parameters
    ----------
    parts : a subset of PARTS; what external servers take over is left out by itself.
    fresh : drop the demo's databases first, so that it begins from nothing.
    """
    nodes: list[Service | Step] = []
    server = None
    if "postgres" in parts and settings.uses_embedded_database:
        server = embedded_postgres(settings)
        nodes.append(_postgres(settings, server))
    if "valkey" in parts and settings.uses_embedded_cache:
        nodes.append(_valkey(settings))
    if "postgres" in parts:
        nodes.append(_databases(settings, server, fresh=fresh))
    if "exchange" in parts and settings.uses_embedded_exchange:
        nodes += _exchange(settings)
    if "airflow" in parts:
        nodes += _airflow(settings, server)
    if "status" in parts and importlib.util.find_spec("trading_api") is not None:
        nodes.append(_status(settings))
    return nodes


def urls(settings: Settings, parts: frozenset[str]) -> dict[str, str]:
    """Where people and clients find the parts; without passwords."""
    addresses = {
        "airflow": settings.airflow_url,
        "exchange": settings.exchange_url,
        "status": f"http://{LOCALHOST}:{settings.status_port}",
    }
    return {part: address for part, address in addresses.items() if part in parts and address}


def _postgres(settings: Settings, server: EmbeddedPostgres) -> Service:
    return Service(
        name="postgres",
        needs=(),
        launch=server.launch,
        ready=server.ready,
        log=server.log,
        stop_signal=signal.SIGINT,
        grace_s=30.0,
    )


def _valkey(settings: Settings) -> Service:
    server = embedded_valkey(settings)
    return Service(name="valkey", needs=(), launch=server.launch, ready=server.ready, log=server.log)


def _databases(settings: Settings, server: EmbeddedPostgres | None, *, fresh: bool) -> Step:
    def run() -> None:
        if fresh and server is not None:
            databases.recreate(settings, server)
        databases.ensure(settings, server)

    return Step("databases", ("postgres",), run)


def open_paper_account(settings: Settings) -> None:
    """Make this deployment's account at the paper exchange; one that is there already stays as it is."""
    key = settings.exchange_api_key.get_secret_value()
    capital = {settings.quote_currency: settings.paper_capital_quote}
    is_spot = settings.market_type == "spot"
    with PaperAdmin(settings.exchange_url, settings.exchange_admin_token.get_secret_value()) as admin:
        admin.create_account(
            capital if is_spot else {settings.quote_currency: Decimal(0)},
            futures_balances=None if is_spot else capital,
            # Named after its key, so that every later start finds it, and another key is another account.
            account_id=hashlib.sha256(key.encode()).hexdigest()[:12],
            api_key=key,
            api_secret=settings.exchange_api_secret.get_secret_value(),
        )


def _exchange(settings: Settings) -> list[Service | Step]:
    environment = paper_environment(settings)
    log = log_dir(settings) / "exchange.log"

    # The demo steps through days of market in minutes of wall time, on which limits are counted.
    limits = ["--weight-limit", "1000000", "--order-limit", "10000"] if settings.mode == "demo" else []

    service = Service(
        name="exchange",
        needs=("databases",),
        launch=lambda: spawn(
            [sys.executable, "-m", "tradewind.paper", *limits], log=log, env=environment, cwd=PROJECT_DIR
        ),
        ready=lambda: _answers(f"http://{LOCALHOST}:{settings.exchange_port}/api/v3/ping"),
        log=log,
        port=settings.exchange_port,
        port_setting="TRADEWIND_EXCHANGE_PORT",
        is_ours=True,
    )
    return [service, Step("account", ("exchange",), lambda: open_paper_account(settings))]


def _compile_kernels(settings: Settings) -> Step:
    """Needed by nobody, so that it runs while the servers start; a failure is in its log and costs the tasks time."""

    def run() -> None:
        with open_log(log_dir(settings) / "kernels.log") as log:
            command = [sys.executable, "-m", "tradewind.stack.kernels"]
            subprocess.run(command, cwd=PROJECT_DIR, stdout=log, stderr=log, check=False, timeout=_KERNELS_TIMEOUT_S)

    return Step("kernels", (), run)


def _airflow(settings: Settings, server: EmbeddedPostgres | None) -> list[Service | Step]:
    environment = airflow_environment(settings)
    client = airflow_client(settings)

    def migrate() -> None:
        prepare_airflow_home(settings)
        databases.ensure_airflow(settings, server, environment, log_dir(settings) / "airflow-db.log")

    def import_pools() -> None:
        if _POOLS_FILE.exists():
            client.set_pools(json.loads(_POOLS_FILE.read_text()))

    parent = AirflowParent(environment, log_dir(settings) / "airflow-parent.log")

    def launcher(*argv: str) -> Callable[[], Process]:
        return lambda: parent.spawn(argv, log=log_dir(settings) / f"{argv[0]}.log", cwd=airflow_home(settings))

    api_server = Service(
        name="api-server",
        needs=("airflow-db", "airflow-parent"),
        launch=launcher("api-server"),
        ready=lambda: client.is_healthy("metadatabase"),
        log=log_dir(settings) / "api-server.log",
        port=settings.airflow_port,
        port_setting="TRADEWIND_AIRFLOW_PORT",
        grace_s=10.0,
        is_ours=True,
    )
    nodes: list[Service | Step] = [
        _compile_kernels(settings),
        Step("airflow-db", ("databases",), migrate),
        Step("airflow-parent", ("airflow-db",), parent.open, undo=parent.close),
        api_server,
        Step("pools", ("api-server",), import_pools),
    ]
    for name, component in _COMPONENTS.items():
        # Their log servers would listen on every interface, and the API server reads the same files anyway.
        flags = () if name == "dag-processor" else ("--skip-serve-logs",)
        nodes.append(
            Service(
                name=name,
                needs=("api-server", "account", "valkey"),
                launch=launcher(name, *flags),
                ready=_component_check(client, component),
                log=log_dir(settings) / f"{name}.log",
                is_ours=True,
            )
        )
    nodes.append(Step("airflow-forked", tuple(_COMPONENTS), parent.close))
    # Ready means that a run can be started: without this the first minute answers "DAG not found".
    dag_ids = [path.stem for path in sorted(_DAGS_FOLDER.glob("*.py"))]
    nodes.append(Step("dags", ("dag-processor", "pools"), lambda: client.wait_for_dags(dag_ids, _DAGS_TIMEOUT_S)))
    return nodes


def _status(settings: Settings) -> Service:
    environment = status_environment(settings)
    log = log_dir(settings) / "status.log"
    argv = [sys.executable, "-m", "trading_api", "--host", LOCALHOST, "--port", str(settings.status_port)]
    return Service(
        name="status",
        needs=("databases", "valkey"),
        launch=lambda: spawn(argv, log=log, env=environment, cwd=PROJECT_DIR),
        ready=lambda: _answers(f"http://{LOCALHOST}:{settings.status_port}/api/health"),
        log=log,
        port=settings.status_port,
        port_setting="TRADEWIND_STATUS_PORT",
        is_ours=True,
    )


def _component_check(client: AirflowClient, component: str) -> Callable[[], bool]:
    return lambda: client.is_healthy(component)


def _answers(url: str) -> bool:
    try:
        # A refusal is an answer too: others at this address may have used up its budget.
        return httpx.get(url, timeout=5.0, trust_env=False).status_code < 500
    except httpx.TransportError:
        return False
