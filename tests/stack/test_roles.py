"""What each database role may do, tried for real: the status app stops trading and can do little else."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest
from psycopg.errors import InsufficientPrivilege

from tests.support.homes import lent
from tradewind import stack
from tradewind.settings import Settings
from tradewind.stack import databases
from tradewind.stack.environment import airflow_environment, status_environment
from tradewind.stack.postgres import EmbeddedPostgres


@pytest.fixture
def settings(postgres_server: EmbeddedPostgres, tmp_path: Path) -> Settings:
    settings = stack.with_secrets(**lent(postgres_server, tmp_path))
    databases.recreate(settings, postgres_server)
    databases.ensure(settings, postgres_server)
    return settings


@pytest.fixture
def status(settings: Settings) -> Iterator[psycopg.Connection]:
    with psycopg.connect(settings.status_database_url.get_secret_value(), autocommit=True) as connection:
        yield connection


@pytest.fixture
def writer(settings: Settings) -> Iterator[psycopg.Connection]:
    with psycopg.connect(settings.writer_database_url.get_secret_value(), autocommit=True) as connection:
        yield connection


def tables(connection: psycopg.Connection) -> list[str]:
    rows = connection.execute(
        "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
    )
    return sorted(row[0] for row in rows)


def test_the_status_role_reads_everything_and_inserts_two_kinds_of_rows(status: psycopg.Connection) -> None:
    for table in tables(status):
        status.execute(f"SELECT * FROM {table} LIMIT 1")
    rights = status.execute(
        "SELECT relname, priv FROM pg_class, unnest(ARRAY['INSERT', 'UPDATE', 'DELETE', 'TRUNCATE']) priv "
        "WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND has_table_privilege(oid, priv)"
    ).fetchall()
    assert sorted(rights) == [("audit", "INSERT"), ("jobs", "INSERT")]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE jobs SET state = 'done'",
        "DELETE FROM audit",
        "INSERT INTO latches VALUES ('demo', 'active', '', now(), 1)",
        "UPDATE orders SET state = 'filled'",
        "TRUNCATE candles",
        "CREATE TABLE mine ()",
        "SELECT grant_rights()",
        "SELECT renew_statistics()",
        "SELECT setval('position_fences', 1)",
        "ALTER ROLE tradewind_status SUPERUSER",
        "COPY audit TO PROGRAM 'true'",
    ],
)
def test_the_status_role_may_do_nothing_else(status: psycopg.Connection, statement: str) -> None:
    with pytest.raises(InsufficientPrivilege):
        status.execute(statement)


def test_the_status_role_tightens_the_latch_and_never_loosens_it(status: psycopg.Connection) -> None:
    def tighten(mode: str, reason: str) -> tuple[object, ...] | None:
        call = "SELECT mode, reason, sequence FROM tighten_latch('demo', %s, %s, 'control', now())"
        return status.execute(call, (mode, reason)).fetchone()

    assert tighten("active", "nothing to loosen") == ("active", "", 0)
    assert tighten("reduce_only", "lunch") == ("reduce_only", "lunch", 1)
    assert tighten("reduce_only", "again") == ("reduce_only", "lunch", 1)
    assert tighten("halted", "worse") == ("halted", "worse", 2)
    assert tighten("active", "open it") == ("halted", "worse", 2)
    history = status.execute("SELECT sequence, mode, actor FROM latch_history ORDER BY 1").fetchall()
    assert history == [(1, "reduce_only", "control"), (2, "halted", "control")]
    with pytest.raises(psycopg.errors.InvalidParameterValue):
        tighten("open", "no such mode")


def test_a_table_of_the_caller_cannot_stand_in_for_ours(status: psycopg.Connection) -> None:
    """The function runs with its owner's rights, so it must not look into the caller's temporary schema first."""
    status.execute("CREATE TEMP TABLE latches (account text, mode text, reason text, since timestamptz, sequence int8)")
    status.execute("SELECT tighten_latch('demo', 'halted', 'x', 'control', now())")
    assert status.execute("SELECT count(*) FROM pg_temp.latches").fetchone() == (0,)
    assert status.execute("SELECT mode FROM public.latches").fetchone() == ("halted",)


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE mine ()",
        "DROP TABLE candles",
        "ALTER TABLE orders ADD COLUMN x int",
        "DELETE FROM audit",
        "UPDATE latch_history SET reason = ''",
        "UPDATE deployment SET identity = '{}'",
        "DELETE FROM schema_migrations",
        "SELECT grant_rights()",
    ],
)
def test_the_writer_changes_rows_and_no_table(writer: psycopg.Connection, statement: str) -> None:
    with pytest.raises(InsufficientPrivilege):
        writer.execute(statement)


def test_the_writer_may_do_what_tasks_do(writer: psycopg.Connection) -> None:
    writer.execute("INSERT INTO heartbeats VALUES ('demo', 'watch_risk', now())")
    writer.execute("CREATE TEMPORARY TABLE incoming (symbol text)")
    writer.execute("SELECT nextval('position_fences')")
    writer.execute("SELECT renew_statistics()")
    writer.execute("SELECT tighten_latch('demo', 'halted', 'x', 'watch_risk', now())")
    writer.execute("UPDATE latches SET mode = 'active'")
    writer.execute("INSERT INTO alerts (account, severity, key, title, body) VALUES ('a', 'info', 'k', 't', 'b')")
    assert writer.execute("SELECT count(*) FROM heartbeats").fetchone() == (1,)
    assert writer.execute("SELECT mode FROM latches").fetchall() == [("active",)]
    assert writer.execute("SELECT severity, title FROM alerts").fetchall() == [("info", "t")]


def test_tables_of_later_migrations_are_covered_by_the_next_start(
    settings: Settings, postgres_server: EmbeddedPostgres, writer: psycopg.Connection, status: psycopg.Connection
) -> None:
    with psycopg.connect(settings.database_url.get_secret_value(), autocommit=True) as owner:
        owner.execute("CREATE TABLE later (number int)")
    databases.ensure(settings, postgres_server)
    writer.execute("INSERT INTO later VALUES (1)")
    assert status.execute("SELECT number FROM later").fetchone() == (1,)
    with pytest.raises(InsufficientPrivilege):
        status.execute("INSERT INTO later VALUES (2)")


def test_each_process_is_given_its_own_role(settings: Settings) -> None:
    assert "//tradewind_writer:" in airflow_environment(settings)["AIRFLOW_CONN_TRADEWIND_DB"]
    status = status_environment(settings)
    assert "//tradewind_status:" in status["TRADEWIND_DATABASE_URL"]
    other = [settings.database_password, settings.writer_database_password, settings.postgres_password]
    assert not [secret for secret in other for value in status.values() if secret.get_secret_value() in value]


def test_no_other_role_takes_the_connections_that_stop_trading(
    settings: Settings, postgres_server: EmbeddedPostgres
) -> None:
    """The watch, the breaker and the status app's halt come in where Airflow and the paper exchange have taken all."""
    others = itertools.cycle([settings.airflow_database_url, settings.paper_database_url])
    with ExitStack() as held:
        refused = ""
        for url in itertools.islice(others, 400):
            try:
                # Airflow's own database is made later: any that the role may enter will do.
                taken = psycopg.connect(url.get_secret_value(), dbname="postgres")
            except psycopg.OperationalError as error:
                refused = str(error)
                break
            held.callback(taken.close)
        assert "remaining connection slots are reserved" in refused
        for name in ("database_url", "writer_database_url", "status_database_url"):
            url = getattr(settings, name).get_secret_value()
            with psycopg.connect(url) as connection:
                assert connection.execute("SELECT count(*) FROM latches").fetchone() == (0,)


def test_a_session_that_holds_a_lock_and_does_nothing_is_ended(settings: Settings) -> None:
    for url in (settings.writer_database_url, settings.status_database_url):
        with psycopg.connect(url.get_secret_value()) as connection:
            for name in ("lock_timeout", "idle_in_transaction_session_timeout"):
                row = connection.execute("SELECT setting::int FROM pg_settings WHERE name = %s", (name,)).fetchone()
                assert row is not None
                assert 0 < row[0] <= 120_000
