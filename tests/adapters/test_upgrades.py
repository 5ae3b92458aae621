"""From the schema that each migration left, with rows in it, to the newest one: every row is still what it was."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from tests.support.status_seed import seed_week
from tradewind.adapters.database import Database
from tradewind.adapters.migrations import SQL_DIR, migrate, read_migrations
from tradewind.adapters.trading_store import PgTradingStore
from tradewind.core.transfers import Reading

NAMES = [migration.name for migration in read_migrations()]
ROWS = 20
# Reports are made anew by the next night's run, so 0011 replaced their table. The latch is its history since 0018: see
# `test_the_latch_lies_as_it_lay`.
REPLACED = {"0011_research": {"parity_reports"}, "0018_latch": {"latches"}}
# What a row gets in a table that a week of trading leaves empty; a check's first allowed word comes before it.
SAMPLES = {
    "text": "x", "numeric": 1, "integer": 1, "bigint": 1, "double precision": 0.5, "boolean": True, "jsonb": {},
    "timestamp with time zone": "2026-01-05T00:00:00+00:00", "date": "2026-01-05", "bytea": "\\x00", "ARRAY": [],
}  # fmt: skip
COLUMNS = """
    SELECT column_name, data_type, (
        SELECT substring(pg_get_constraintdef(oid) FROM '''([^'']+)''::text') FROM pg_constraint
        WHERE contype = 'c' AND conrelid = %(table)s::text::regclass AND conkey = ARRAY[ordinal_position::int2] LIMIT 1
    ) FROM information_schema.columns WHERE table_schema = 'public' AND table_name = %(table)s::text"""
INSERT = sql.SQL("INSERT INTO {} OVERRIDING SYSTEM VALUE SELECT (jsonb_populate_record(NULL::{}, %s::jsonb)).*")

Rows = dict[str, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def week(postgres_server: Any, _template: str) -> Iterator[str]:
    """A database of the newest schema with a trading week in it."""
    with psycopg.connect(postgres_server.url(), autocommit=True) as connection:
        create = sql.SQL("CREATE DATABASE upgraded_week TEMPLATE {}")
        connection.execute(create.format(sql.Identifier(_template)))
    database = Database(postgres_server.url("upgraded_week"))
    seed_week(database, "demo")
    database.close()
    with psycopg.connect(postgres_server.url("upgraded_week")) as connection:
        connection.execute("SET session_replication_role = replica")
        for table in tables(connection):
            name = sql.Identifier(table)
            if connection.execute(sql.SQL("SELECT 1 FROM {} LIMIT 1").format(name)).fetchone() is None:
                columns = connection.execute(COLUMNS, {"table": table}).fetchall()
                row = {column: word or SAMPLES[kind] for column, kind, word in columns}
                connection.execute(INSERT.format(name, name), (json.dumps(row),))
    yield postgres_server.url("upgraded_week")
    with psycopg.connect(postgres_server.url(), autocommit=True) as connection:
        connection.execute("DROP DATABASE upgraded_week WITH (FORCE)")


def tables(connection: psycopg.Connection) -> list[str]:
    rows = connection.execute(
        "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace "
        "AND relname NOT IN ('schema_migrations', 'deployment') ORDER BY 1"
    )
    return [str(row[0]) for row in rows]


def contents(url: str) -> Rows:
    """Every row of every table, in the order of its text."""
    with psycopg.connect(url) as connection:
        found = {}
        for table in tables(connection):
            statement = sql.SQL("SELECT to_jsonb(t) FROM {} t").format(sql.Identifier(table))
            found[table] = sorted((row[0] for row in connection.execute(statement)), key=json.dumps)
        return found


def fill(url: str, week: str) -> None:
    """Some rows of each table that is there, with those of their columns that are there."""
    with psycopg.connect(week) as source, psycopg.connect(url) as target:
        newest = set(tables(source))
        target.execute("SET session_replication_role = replica")  # rows are taken without those they refer to
        for table in sorted(newest & set(tables(target))):
            name = sql.Identifier(table)
            statement = sql.SQL("SELECT to_jsonb(t)::text FROM {} t LIMIT {}").format(name, sql.Literal(ROWS))
            for row in source.execute(statement).fetchall():
                target.execute(INSERT.format(name, name), row)


@pytest.mark.parametrize("left_by", NAMES[:-1])
def test_rows_survive_from(left_by: str, week: str, empty_postgres_url: str, tmp_path: Path) -> None:
    later = NAMES[NAMES.index(left_by) + 1 :]
    for path in SQL_DIR.glob("*.sql"):
        if path.stem not in later:
            shutil.copy(path, tmp_path)
    migrate(empty_postgres_url, directory=tmp_path)
    fill(empty_postgres_url, week)
    before = contents(empty_postgres_url)
    assert migrate(empty_postgres_url) == later
    after = contents(empty_postgres_url)
    replaced = set().union(*(REPLACED.get(name, set()) for name in later))
    assert before.keys() - replaced <= after.keys()
    for table in before.keys() - replaced:
        old = before[table]
        known = old[0].keys() if old else ()
        assert sorted(({k: row[k] for k in known} for row in after[table]), key=json.dumps) == old, table
    assert {table for table, rows in before.items() if not rows} <= replaced


def test_readings_of_the_old_measure_are_linked_to_the_new_one(empty_postgres_url: str, tmp_path: Path) -> None:
    """Each account's newest reading of before is where its first reading of after begins; the loss between stays."""
    for name in NAMES[: NAMES.index("0016_equity_over_transfers")]:
        shutil.copy(SQL_DIR / f"{name}.sql", tmp_path)
    migrate(empty_postgres_url, directory=tmp_path)
    with psycopg.connect(empty_postgres_url) as connection:
        connection.execute(
            "INSERT INTO equity VALUES ('main', '2026-01-05 00:00+00', 'day_open', 10000, '{}'),"
            " ('main', '2026-01-05 09:00+00', 'mark', 9900, '{}'), ('other', '2026-01-04 09:00+00', 'mark', 7, '{}')"
        )
    migrate(empty_postgres_url)
    database = Database(empty_postgres_url)
    store, noon = PgTradingStore(database, "main", "1"), datetime(2026, 1, 5, 12, tzinfo=UTC)
    record = store.equity_record(noon)
    (link,) = record.links
    assert (link.before_quote, link.after_quote) == (9900, None)
    assert len(record.blind_spots()) == 2, "nothing is measured until the new measure was taken once"
    store.close_link(Reading(noon, Decimal(990), link.number))
    assert (store.day_open_equity(noon), store.peak_equity()) == (1000, 1000)
    database.close()


def test_the_upgraded_schema_is_the_fresh_one(week: str, empty_postgres_url: str, tmp_path: Path) -> None:
    """Step by step or at once: the same tables, columns, constraints, indexes and functions."""
    for name in NAMES:
        shutil.copy(SQL_DIR / f"{name}.sql", tmp_path)
        assert migrate(empty_postgres_url, directory=tmp_path) == [name]
    assert shape(empty_postgres_url) == shape(week)


# Per account: how the latch lay, its history, and how it must lie: mode, reason, sequence.
LATCHES = {
    "never": (None, (), None),
    "halted": (("halted", "loss", 2), ((1, "reduce_only", "lunch"), (2, "halted", "loss")), ("halted", "loss", 2)),
    "opened": (("active", "looked", 2), ((1, "halted", "loss"), (2, "active", "looked")), ("active", "looked", 2)),
    "again": (
        ("reduce_only", "lunch", 3),
        ((1, "halted", "loss"), (2, "active", "looked"), (3, "reduce_only", "lunch")),
        ("reduce_only", "lunch", 3),
    ),
    "without history": (("halted", "loss", 7), (), ("halted", "loss", 7)),
    "touched": (("active", "", 0), ((1, "halted", "loss"),), ("halted", "loss", 1)),
    "opened without a trace": (("active", "loss", 1), ((1, "halted", "loss"),), ("halted", "loss", 1)),
    "number taken in advance": (
        ("halted", "loss", 1), ((1, "halted", "loss"), (2, "active", "x")), ("halted", "loss", 3),
    ),
    "no mode": (("halted", "loss", 1), ((1, "shut", "loss"),), ("halted", "loss", 1)),
}  # fmt: skip


def test_the_latch_lies_as_it_lay(empty_postgres_url: str, tmp_path: Path) -> None:
    """With its reason, its number and its history; where those differed, the tighter holds."""
    for name in NAMES[: NAMES.index("0018_latch")]:
        shutil.copy(SQL_DIR / f"{name}.sql", tmp_path)
    migrate(empty_postgres_url, directory=tmp_path)
    with psycopg.connect(empty_postgres_url) as connection:
        for account, (latch, history, _) in LATCHES.items():
            if latch:
                connection.execute("INSERT INTO latches VALUES (%s, %s, %s, '2026-01-05', %s)", (account, *latch))
            for number, mode, reason in history:
                insert = "INSERT INTO latch_history VALUES (%s, %s, %s, %s, 'kim', '2026-01-05')"
                connection.execute(insert, (account, number, mode, reason))
    migrate(empty_postgres_url)
    with psycopg.connect(empty_postgres_url, autocommit=True) as connection:
        lies = connection.execute("SELECT account, mode, reason, sequence FROM latches").fetchall()
        assert {row[0]: row[1:] for row in lies} == {name: wanted for name, (*_, wanted) in LATCHES.items() if wanted}
        for account, (_, history, wanted) in LATCHES.items():
            kept = connection.execute(
                "SELECT sequence, reason FROM latch_history WHERE account = %s AND actor = 'kim' ORDER BY 1", (account,)
            )
            assert kept.fetchall() == [(number, reason) for number, _, reason in history]
            tightened = connection.execute(
                "SELECT mode, sequence FROM tighten_latch(%s, 'halted', 'again', 'watch', now())", (account,)
            ).fetchone()
            assert tightened is not None
            assert tightened[0] == "halted"
            assert tightened[1] == wanted[2] if wanted and wanted[0] == "halted" else tightened[1] > 7


def shape(url: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(
            "SELECT table_name, column_name, data_type || is_nullable || coalesce(column_default, '') "
            "FROM information_schema.columns WHERE table_schema = 'public' "
            "UNION ALL SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint "
            "WHERE connamespace = 'public'::regnamespace "
            "UNION ALL SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' "
            "UNION ALL SELECT proname, '', pg_get_functiondef(oid) FROM pg_proc "
            "WHERE pronamespace = 'public'::regnamespace ORDER BY 1, 2, 3"
        ).fetchall()


@pytest.mark.parametrize(("identity", "account"), [({"account": "main"}, "main"), ({"mode": "demo"}, "")])
def test_alerts_of_before_are_of_the_account_that_the_database_bears(
    identity: dict[str, str], account: str, empty_postgres_url: str, tmp_path: Path
) -> None:
    for name in NAMES[: NAMES.index("0022_alert_accounts")]:
        shutil.copy(SQL_DIR / f"{name}.sql", tmp_path)
    migrate(empty_postgres_url, identity, directory=tmp_path)
    with psycopg.connect(empty_postgres_url) as connection:
        connection.execute("INSERT INTO alerts (severity, key, title, body) VALUES ('info', 'k', 't', 'b')")
    migrate(empty_postgres_url, identity)
    with psycopg.connect(empty_postgres_url) as connection:
        assert connection.execute("SELECT account FROM alerts").fetchall() == [(account,)]
