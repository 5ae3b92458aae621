"""Migrations: in order, once, together with their record; and a database that belongs to one deployment."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from tradewind.adapters.database import Database
from tradewind.adapters.migrations import migrate, read_migrations, verify_identity
from tradewind.errors import IdentityMismatch, MigrationError, StoreUnavailable

DEMO = {"mode": "demo", "exchange": "binance", "market": "synthetic", "seed": "7"}


@pytest.fixture
def two(tmp_path: Path) -> Path:
    (tmp_path / "0001_first.sql").write_text("CREATE TABLE first (n int);\nCREATE INDEX ON first (n);")
    (tmp_path / "0002_second.sql").write_text("ALTER TABLE first ADD COLUMN m int;")
    return tmp_path


def test_the_shipped_schema_applies_once(empty_postgres_url: str) -> None:
    applied = migrate(empty_postgres_url, DEMO)
    assert applied == [migration.name for migration in read_migrations()]
    assert migrate(empty_postgres_url, DEMO) == []
    verify_identity(Database(empty_postgres_url), DEMO)


def test_later_migrations_follow(empty_postgres_url: str, two: Path) -> None:
    assert migrate(empty_postgres_url, directory=two) == ["0001_first", "0002_second"]
    (two / "0003_third.sql").write_text("CREATE TABLE third ();")
    assert migrate(empty_postgres_url, directory=two) == ["0003_third"]


def test_starting_at_once_applies_each_once(empty_postgres_url: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        applied = list(pool.map(lambda _: migrate(empty_postgres_url, DEMO), range(4)))
    assert sorted(map(len, applied)) == [0, 0, 0, len(read_migrations())]


def test_a_failing_migration_leaves_nothing_of_itself(empty_postgres_url: str, two: Path) -> None:
    (two / "0003_bad.sql").write_text("CREATE TABLE half (); SELECT 1/0;")
    with pytest.raises(MigrationError, match="0003_bad"):
        migrate(empty_postgres_url, directory=two)
    with psycopg.connect(empty_postgres_url) as connection:
        assert connection.execute("SELECT to_regclass('half'), to_regclass('first')").fetchone() == (None, "first")
    (two / "0003_bad.sql").write_text("CREATE TABLE half ();")
    assert migrate(empty_postgres_url, directory=two) == ["0003_bad"]


def test_an_edited_migration_is_refused(empty_postgres_url: str, two: Path) -> None:
    migrate(empty_postgres_url, directory=two)
    (two / "0001_first.sql").write_text("CREATE TABLE first (n bigint);")
    with pytest.raises(MigrationError, match="edited"):
        migrate(empty_postgres_url, directory=two)


def test_a_newer_database_is_refused(empty_postgres_url: str, two: Path) -> None:
    migrate(empty_postgres_url, directory=two)
    (two / "0002_second.sql").unlink()
    with pytest.raises(MigrationError, match="update the code"):
        migrate(empty_postgres_url, directory=two)


@pytest.mark.parametrize("name", ["1_x.sql", "0002_Bad Name.sql", "0001_again.sql"])
def test_bad_names_are_refused(two: Path, name: str) -> None:
    (two / name).write_text("SELECT 1")
    with pytest.raises(MigrationError):
        read_migrations(two)


def test_another_deployment_is_refused_and_changes_nothing(empty_postgres_url: str, two: Path) -> None:
    migrate(empty_postgres_url, DEMO, directory=two)
    (two / "0003_third.sql").write_text("CREATE TABLE third ();")
    live = DEMO | {"mode": "live"}
    with pytest.raises(IdentityMismatch, match="mode is 'demo', wanted 'live'"):
        migrate(empty_postgres_url, live, directory=two)
    with pytest.raises(IdentityMismatch):
        verify_identity(Database(empty_postgres_url), live)
    with psycopg.connect(empty_postgres_url) as connection:
        assert connection.execute("SELECT to_regclass('third')").fetchone() == (None,)


def test_an_unstamped_database_is_refused(empty_postgres_url: str) -> None:
    with pytest.raises(IdentityMismatch, match="no identity"):
        verify_identity(Database(empty_postgres_url), DEMO)


def test_no_server_is_worth_a_retry_and_its_password_stays_secret() -> None:
    with pytest.raises(StoreUnavailable) as caught:
        migrate("postgresql://u:hunter2@127.0.0.1:9/none")
    assert "hunter2" not in str(caught.value)
