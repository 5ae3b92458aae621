"""The files from which docker-compose.yaml gives each container the secrets that it needs, and no others.

They hold the values of `secrets.py`, some as whole addresses between containers. The directory is its owner's alone, so
nobody else on the machine reaches them; the files themselves are readable, because each container runs as a user of its
own and sees only those that are mounted into it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from tradewind.settings import PREFIX, Settings
from tradewind.stack.databases import sqlalchemy_url
from tradewind.stack.secrets import init_secrets

DIRECTORY = "compose"
# A person's to fill in, when wanted; empty means none.
OPTIONAL = (
    "exchange_api_key",
    "exchange_api_secret",
    "exchange_api_passphrase",
    "gemini_api_key",
    "alert_urls",
    "dead_man_url",
)
_PLAIN = (
    "postgres_password",
    "exchange_admin_token",
    "paper_api_key",
    "paper_api_secret",
    "api_read_token",
    "api_control_token",
    "api_session_key",
    "airflow_password",
    "airflow_fernet_key",
    "airflow_jwt_secret",
    "airflow_secret_key",
    "grafana_password",
)
_REDIS_CONFIG = """\
requirepass {password}
dir /data
save ""
appendonly no
maxmemory 256mb
maxmemory-policy volatile-lru
"""


def init_compose_secrets(settings: Settings) -> list[str]:
    """Make the files that are missing or differ in `<home>/compose`; returns their names, never their values.

    Optional ones are made empty once and kept as they are.
    """
    init_secrets(settings.home_dir)
    values = {path.name.removeprefix(PREFIX.lower()): path.read_text() for path in settings.secrets_dir.iterdir()}
    directory = settings.home_dir / DIRECTORY
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.chmod(0o700)
    wanted = compose_files(values, settings.mode)
    wanted |= {name: "" for name in OPTIONAL if not (directory / name).exists()}
    return [name for name, content in sorted(wanted.items()) if _write(directory / name, content)]


def compose_files(values: Mapping[str, str], mode: str) -> dict[str, str]:
    """Every file's content from the deployment's secrets, by file name."""

    def database(role: str, secret: str, name: str) -> str:
        return f"postgresql://{role}:{quote(values[secret], safe='')}@postgres:5432/{name}_{mode}"

    writer = database("tradewind_writer", "writer_database_password", "tradewind")
    airflow = database("airflow", "airflow_database_password", "airflow")
    cache = f"redis://:{quote(values['cache_password'], safe='')}@redis:6379"
    return {
        **{name: values[name] for name in _PLAIN},
        "api_control_token_digest": hashlib.sha256(values["api_control_token"].encode()).hexdigest(),
        "redis.conf": _REDIS_CONFIG.format(password=values["cache_password"]),
        "administrator_database_url": f"postgresql://postgres:{quote(values['postgres_password'], safe='')}"
        "@postgres:5432/postgres",
        "database_url": database("tradewind", "database_password", "tradewind"),
        "writer_database_url": writer,
        "status_database_url": database("tradewind_status", "status_database_password", "tradewind"),
        "paper_database_url": database("tradewind_paper", "paper_database_password", "tradewind_paper"),
        "airflow_database_url": airflow,
        "cache_url": f"{cache}/0",
        "airflow_broker_url": f"{cache}/1",
        "airflow_sql_alchemy_conn": sqlalchemy_url(airflow),
        "airflow_result_backend": f"db+{airflow}",
        # Tasks find our database and the cache by Airflow's connections, and never the owner's role.
        "airflow_connections.json": json.dumps({"tradewind_db": writer, "tradewind_cache": f"{cache}/0"}),
    }


def _write(path: Path, content: str) -> bool:
    """Write it whole or not at all; says whether it changed."""
    if path.exists() and path.read_text() == content:
        return False
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_text(content)
    unfinished.chmod(0o444)
    unfinished.replace(path)
    return True
