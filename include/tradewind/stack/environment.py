"""What the stack's processes find in their environment: the settings they need, and nothing of the caller's shell."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from tradewind.addresses import libpq_environment
from tradewind.settings import PREFIX, PROJECT_DIR, Settings
from tradewind.stack.databases import sqlalchemy_url

# Each worker is forked at once and costs memory; trading keeps at least three of them (orchestration/pools.json).
PARALLELISM = 8
# What a process needs to find its programs, its certificates and the way out through a proxy.
_INHERITED = (
    "HOME", "USER", "LOGNAME", "LANG", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE",
    "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "PLAYWRIGHT_BROWSERS_PATH",
)  # fmt: skip


def base_environment(settings: Settings, also: frozenset[str] = frozenset()) -> dict[str, str]:
    """For every Python process of ours: how to import us, and the settings by which it becomes this deployment's.

    `also` names secrets of the stack's own that this process needs.
    """
    inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    local = ",".join(filter(None, [os.environ.get("NO_PROXY") or os.environ.get("no_proxy"), "127.0.0.1,localhost"]))
    return {
        **inherited,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
        "PYTHONPATH": os.pathsep.join([str(PROJECT_DIR / "include"), str(PROJECT_DIR)]),
        "PYTHONUNBUFFERED": "1",
        # Two malloc arenas instead of eight a core: the forked workers stay a third smaller.
        "MALLOC_ARENA_MAX": "2",
        "TZ": "UTC",
        "NO_PROXY": local,
        "no_proxy": local,
        **settings.environment(also),
    }


def paper_environment(settings: Settings) -> dict[str, str]:
    """For the paper exchange: its own database besides, wherever that was derived from."""
    url = settings.paper_database_url.get_secret_value()
    return base_environment(settings) | {f"{PREFIX}PAPER_DATABASE_URL": url}


def status_environment(settings: Settings) -> dict[str, str]:
    """For the status app, which checks the tokens, starts runs through Airflow's API, and may hardly write."""
    also = frozenset({"api_read_token", "api_session_key", "airflow_password"})
    return base_environment(settings, also) | {
        f"{PREFIX}DATABASE_URL": settings.status_database_url.get_secret_value(),
        f"{PREFIX}API_CONTROL_TOKEN_DIGEST": settings.api_control_token_digest.get_secret_value(),
    }


def airflow_home(settings: Settings) -> Path:
    return settings.home_dir / "airflow"


def task_log_dir(settings: Settings) -> Path:
    return airflow_home(settings) / "logs"


def airflow_environment(settings: Settings) -> dict[str, str]:
    """For Airflow's processes, and so for the tasks that they fork."""
    home = airflow_home(settings)
    metrics = {}
    if settings.statsd_host:
        metrics = {
            "METRICS__STATSD_ON": "True",
            "METRICS__STATSD_HOST": settings.statsd_host,
            "METRICS__STATSD_PORT": str(settings.statsd_port),
            "METRICS__STATSD_PREFIX": "airflow",
            # Tags instead of names that contain the DAG's: `airflow.ti.finish,dag_id=…`.
            "METRICS__STATSD_INFLUXDB_ENABLED": "True",
            "METRICS__LEGACY_NAMES_ON": "False",
        }
    options = {
        "CORE__DAGS_FOLDER": str(PROJECT_DIR / "dags"),
        "CORE__PLUGINS_FOLDER": str(PROJECT_DIR / "plugins"),
        "CORE__EXECUTOR": "LocalExecutor",
        "CORE__PARALLELISM": str(PARALLELISM),
        "CORE__LOAD_EXAMPLES": "False",
        "CORE__DEFAULT_TIMEZONE": "utc",
        "CORE__FERNET_KEY": settings.airflow_fernet_key.get_secret_value(),
        "CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{settings.airflow_port}/execution/",
        "CORE__SIMPLE_AUTH_MANAGER_USERS": f"{settings.airflow_username}:admin",
        "CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(home / "passwords.json"),
        # The lookup of a machine's own name may hang or change with the network; jobs are matched by it.
        "CORE__HOSTNAME_CALLABLE": "socket.gethostname",
        "CORE__KILLED_TASK_CLEANUP_TIME": "20",
        "DATABASE__SQL_ALCHEMY_CONN": sqlalchemy_url(settings.airflow_database_url.get_secret_value()),
        "DATABASE__SQL_ALCHEMY_POOL_SIZE": "3",
        "API__HOST": "127.0.0.1",
        "API__PORT": str(settings.airflow_port),
        "API__BASE_URL": settings.airflow_url,
        "API__WORKERS": "1",
        # Also how long a stopping server waits for connections that clients keep open.
        "API__WORKER_TIMEOUT": "5",
        "API__SECRET_KEY": settings.airflow_secret_key.get_secret_value(),
        "API_AUTH__JWT_SECRET": settings.airflow_jwt_secret.get_secret_value(),
        "SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.2",
        # Enough for what runs at a time and the two slots of the pool `bulk`; a fresh bar waits for the loop to end.
        "SCHEDULER__MAX_DAGRUNS_PER_LOOP_TO_SCHEDULE": "8",
        "SCHEDULER__ENABLE_HEALTH_CHECK": "False",
        "SCHEDULER__CATCHUP_BY_DEFAULT": "False",
        # A task whose process was killed is noticed after this long; trading tasks are short and safe to repeat.
        "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "60",
        "SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "30",
        # A task's supervisor that misses its end by a moment sleeps this long, holding its slot: 5 s by default.
        "WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
        "DAG_PROCESSOR__PARSING_PROCESSES": "1",
        "DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "60",
        "DAG_PROCESSOR__REFRESH_INTERVAL": "60",
        "DAG_PROCESSOR__DAG_BUNDLE_STORAGE_PATH": str(home / "bundles"),
        "DAG_PROCESSOR__PRINT_STATS_INTERVAL": "600",
        "LOGGING__FILE_TASK_HANDLER_NEW_FOLDER_PERMISSIONS": "0o700",
        "LOGGING__FILE_TASK_HANDLER_NEW_FILE_PERMISSIONS": "0o600",
        "LOGGING__BASE_LOG_FOLDER": str(task_log_dir(settings)),
        "LOGGING__DAG_PROCESSOR_CHILD_PROCESS_LOG_DIRECTORY": str(task_log_dir(settings) / "dag_processor"),
        "LOGGING__LOGGING_LEVEL": settings.log_level,
        "LOGGING__JSON_LOGS": "True",
        "LOGGING__UVICORN_LOGGING_LEVEL": "WARNING",
        "LOGGING__COLORED_CONSOLE_LOG": "False",
        **metrics,
    }
    return {
        **base_environment(settings),
        **libpq_environment(settings.airflow_database_url.get_secret_value()),
        "AIRFLOW_HOME": str(home),
        "AIRFLOW_CONN_TRADEWIND_DB": settings.writer_database_url.get_secret_value(),
        "AIRFLOW_CONN_TRADEWIND_CACHE": settings.cache_url.get_secret_value(),
        **{f"AIRFLOW__{name}": value for name, value in options.items()},
    }


def prepare_airflow_home(settings: Settings) -> None:
    """Make Airflow's directory with the one user's password, as its SimpleAuthManager reads it."""
    home = airflow_home(settings)
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    passwords = home / "passwords.json"
    passwords.unlink(missing_ok=True)
    passwords.touch(mode=0o600)
    passwords.write_text(json.dumps({settings.airflow_username: settings.airflow_password.get_secret_value()}))
