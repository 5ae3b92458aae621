"""The databases of a deployment: ours, the paper exchange's own, and Airflow's, each with a role of its own.

Ours is reached by three: its owner migrates, `tradewind_writer` is what tasks are, `tradewind_status` the status app.

On the embedded server they are made here, and so on an external one whose administrator's URL is given; else they must
exist there, or their role be allowed to make them.
Airflow's schema takes long to migrate, so it is migrated once into a template that new databases are cloned from.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

import psycopg
from psycopg import sql
from pydantic import SecretStr

from tradewind.adapters.control_requests import STORE_KEY, padded_keys
from tradewind.adapters.migrations import migrate
from tradewind.errors import StackFailed
from tradewind.settings import Settings
from tradewind.stack.postgres import EmbeddedPostgres
from tradewind.stack.processes import PRIVATE_UMASK, last_words, open_log

# How long the writer's and the status app's sessions wait for a lock, and hold theirs while they do nothing.
_LIMITS = (
    {"lock_timeout": "30s", "idle_in_transaction_session_timeout": "120s"},
    {"lock_timeout": "5s", "idle_in_transaction_session_timeout": "30s"},
)
# Held while databases are made, so that two starts against one server do not collide.
_LOCK_KEY = 7_234_110_543


def ensure(settings: Settings, server: EmbeddedPostgres | None) -> list[str]:
    """Make the roles and the databases that are missing, and migrate ours; returns the migrations just applied.

    Parameters
    ----------
    server : the embedded server, already answering; None with an external one.
    """
    make(settings, server)
    applied = migrate(settings.database_url.get_secret_value(), settings.identity)
    with psycopg.connect(settings.database_url.get_secret_value(), connect_timeout=10) as connection:
        # Roles may have been made, and tables added, since the migration that gave the rights.
        connection.execute("SELECT grant_rights()")
        if token := settings.api_control_token.get_secret_value():
            connection.execute(STORE_KEY, padded_keys(token))
    return applied


def make(settings: Settings, server: EmbeddedPostgres | None) -> None:
    """Make the roles and the databases that are missing, without any table; `server` as for `ensure`."""
    wanted = [settings.database_url]
    restricted = [settings.writer_database_url, settings.status_database_url]
    if settings.keeps_paper_exchange:
        wanted.append(settings.paper_database_url)
    administrator = server.url() if server else settings.administrator_database_url.get_secret_value()
    if not administrator:
        for url in [*wanted, settings.airflow_database_url]:
            _ensure_external(url)
        return
    if server is None:
        wanted.append(settings.airflow_database_url)
    with _administrator(administrator) as connection:
        for url in [*wanted, *restricted, settings.airflow_database_url]:
            _ensure_role(connection, url)
        for role in dict.fromkeys(map(_user, [settings.database_url, *restricted])):
            _let_in_last(connection, role)
        for url, limits in zip(restricted, _LIMITS, strict=True):
            for name, value in limits.items():
                limit = sql.SQL("ALTER ROLE {} SET {} TO {}")
                connection.execute(limit.format(sql.Identifier(_user(url)), sql.Identifier(name), sql.Literal(value)))
        # For notebooks and dashboards; whoever wants to use it gives it a password.
        if connection.execute("SELECT to_regrole('tradewind_reader') IS NULL").fetchone() == (True,):
            connection.execute("CREATE ROLE tradewind_reader")
        for url in wanted:
            _ensure_database(connection, url)
        for url in restricted:
            connect = sql.SQL("GRANT CONNECT, TEMPORARY ON DATABASE {} TO {}")
            connection.execute(connect.format(sql.Identifier(_name(url)), sql.Identifier(_user(url))))


def _let_in_last(connection: psycopg.Connection, role: str) -> None:
    """Give a role that stops trading, or repairs, the connections that the server keeps back from all others."""
    if connection.execute("SELECT to_regrole('pg_use_reserved_connections') IS NOT NULL").fetchone() == (True,):
        connection.execute(sql.SQL("GRANT pg_use_reserved_connections TO {}").format(sql.Identifier(role)))


def recreate(settings: Settings, server: EmbeddedPostgres) -> None:
    """Drop this mode's three databases, so that the next start begins from nothing. Refused outside demo mode."""
    if settings.mode != "demo":
        raise StackFailed(f"the databases of mode {settings.mode} are never dropped; only the demo's are")
    with _administrator(server.url()) as connection:
        for url in (settings.database_url, settings.paper_database_url, settings.airflow_database_url):
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(_name(url))))


def ensure_airflow(
    settings: Settings, server: EmbeddedPostgres | None, environment: Mapping[str, str], log: Path
) -> None:
    """Bring Airflow's metadata database to the schema of the installed Airflow.

    Parameters
    ----------
    environment : of Airflow's processes; its connection is replaced while the template is made.
    log : where `airflow db migrate` writes.
    """
    url = settings.airflow_database_url
    if server is None:
        _airflow_migrate(url.get_secret_value(), environment, log)
        return
    template = f"airflow_template_{version('apache-airflow').replace('.', '_')}"
    with _administrator(server.url()) as connection:
        if not _exists(connection, template):
            _make_template(connection, settings, template, environment, log)
        if not _exists(connection, _name(url)):
            statement = sql.SQL("CREATE DATABASE {} TEMPLATE {} OWNER {}")
            connection.execute(
                statement.format(sql.Identifier(_name(url)), sql.Identifier(template), sql.Identifier(_user(url)))
            )
            return
    template_url = _with_name(url, template)
    if _airflow_revision(url.get_secret_value()) != _airflow_revision(template_url):
        _airflow_migrate(url.get_secret_value(), environment, log)


def _make_template(
    connection: psycopg.Connection, settings: Settings, template: str, environment: Mapping[str, str], log: Path
) -> None:
    url = settings.airflow_database_url
    unfinished = f"{template}_unfinished"
    connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(unfinished)))
    statement = sql.SQL("CREATE DATABASE {} OWNER {}")
    connection.execute(statement.format(sql.Identifier(unfinished), sql.Identifier(_user(url))))
    _airflow_migrate(_with_name(url, unfinished), environment, log)
    rename = sql.SQL("ALTER DATABASE {} RENAME TO {}")
    connection.execute(rename.format(sql.Identifier(unfinished), sql.Identifier(template)))


def _airflow_migrate(url: str, environment: Mapping[str, str], log: Path) -> None:
    with open_log(log) as output:
        done = subprocess.run(
            [sys.executable, "-m", "airflow", "db", "migrate"],
            env={**environment, "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": sqlalchemy_url(url)},
            stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, check=False, start_new_session=True,
            umask=PRIVATE_UMASK,
        )  # fmt: skip
    if done.returncode != 0:
        raise StackFailed(f"airflow db migrate failed: {last_words(log)} (see {log})")


def _airflow_revision(url: str) -> str | None:
    try:
        with psycopg.connect(url) as connection:
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
            return None if row is None else str(row[0])
    except psycopg.errors.UndefinedTable:
        return None


def sqlalchemy_url(url: str) -> str:
    """A libpq URL as SQLAlchemy wants it, for psycopg2 and asyncpg: the second knows nothing of `require_auth`."""
    address, _, query = url.partition("://")[2].partition("?")
    options = [option for option in query.split("&") if option and not option.startswith("require_auth=")]
    return f"postgresql+psycopg2://{address}" + (f"?{'&'.join(options)}" if options else "")


@contextmanager
def _administrator(url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(url, autocommit=True, connect_timeout=10) as connection:
        connection.execute("SELECT pg_advisory_lock(%s)", (_LOCK_KEY,))
        yield connection


def _ensure_role(connection: psycopg.Connection, url: SecretStr) -> None:
    parts = urlsplit(url.get_secret_value())
    role = sql.Identifier(_user(url))
    exists = connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (_user(url),)).fetchone()
    if not exists:
        connection.execute(sql.SQL("CREATE ROLE {}").format(role))
    # Set at every start: the secret file is the truth, also after it was replaced.
    password = sql.Literal(unquote(parts.password or ""))
    connection.execute(sql.SQL("ALTER ROLE {} LOGIN PASSWORD {}").format(role, password))


def _ensure_database(connection: psycopg.Connection, url: SecretStr) -> None:
    if _exists(connection, _name(url)):
        return
    name, owner = sql.Identifier(_name(url)), sql.Identifier(_user(url))
    connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0 OWNER {}").format(name, owner))
    connection.execute(sql.SQL("REVOKE CONNECT ON DATABASE {} FROM PUBLIC").format(name))


def _ensure_external(url: SecretStr) -> None:
    """Make a missing database on an external server, if its role may."""
    try:
        psycopg.connect(url.get_secret_value(), connect_timeout=10).close()
        return
    except psycopg.OperationalError as error:
        if "does not exist" not in str(error):
            raise StackFailed(f"cannot connect to database {_name(url)} on {_host(url)}: {error}") from None
    try:
        with psycopg.connect(_with_name(url, "postgres"), autocommit=True, connect_timeout=10) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(_name(url))))
    except psycopg.Error as error:
        raise StackFailed(
            f"database {_name(url)} does not exist on {_host(url)} and could not be made ({error}): "
            "create it, or name another in TRADEWIND_DATABASE_URL, TRADEWIND_PAPER_DATABASE_URL "
            "or TRADEWIND_AIRFLOW_DATABASE_URL"
        ) from None


def _exists(connection: psycopg.Connection, name: str) -> bool:
    return connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,)).fetchone() is not None


def _name(url: SecretStr) -> str:
    return urlsplit(url.get_secret_value()).path.lstrip("/")


def _user(url: SecretStr) -> str:
    return unquote(urlsplit(url.get_secret_value()).username or "")


def _host(url: SecretStr) -> str:
    return urlsplit(url.get_secret_value()).hostname or "the local socket"


def _with_name(url: SecretStr, name: str) -> str:
    return urlunsplit(urlsplit(url.get_secret_value())._replace(path=f"/{name}"))
