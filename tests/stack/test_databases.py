"""A deployment's databases: made once, apart from each other, dropped in demo mode alone."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from tests.support.homes import lent
from tradewind import stack
from tradewind.adapters.migrations import read_migrations
from tradewind.errors import IdentityMismatch, StackFailed
from tradewind.settings import Settings
from tradewind.stack import databases
from tradewind.stack.postgres import EmbeddedPostgres


@pytest.fixture
def settings(postgres_server: EmbeddedPostgres, tmp_path: Path) -> Settings:
    return stack.with_secrets(**lent(postgres_server, tmp_path))


def test_the_databases_are_made_once(settings: Settings, postgres_server: EmbeddedPostgres) -> None:
    databases.recreate(settings, postgres_server)
    assert len(databases.ensure(settings, postgres_server)) == len(read_migrations())
    assert databases.ensure(settings, postgres_server) == []
    with psycopg.connect(settings.database_url.get_secret_value()) as connection:
        row = connection.execute("SELECT identity->>'mode' FROM deployment").fetchone()
    assert row == ("demo",)


def test_a_role_reaches_its_own_database_alone(settings: Settings, postgres_server: EmbeddedPostgres) -> None:
    databases.ensure(settings, postgres_server)
    ours = settings.database_url.get_secret_value()
    with psycopg.connect(ours) as connection:
        row = connection.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user").fetchone()
    assert row == (False,)
    with pytest.raises(psycopg.OperationalError, match="permission denied"):
        psycopg.connect(ours, dbname="tradewind_paper_demo")


def test_a_fresh_start_forgets_everything(settings: Settings, postgres_server: EmbeddedPostgres) -> None:
    databases.ensure(settings, postgres_server)
    with psycopg.connect(settings.database_url.get_secret_value()) as connection:
        connection.execute("CREATE TABLE kept ()")
    databases.recreate(settings, postgres_server)
    databases.ensure(settings, postgres_server)
    with psycopg.connect(settings.database_url.get_secret_value()) as connection:
        assert connection.execute("SELECT to_regclass('kept')").fetchone() == (None,)


def test_other_modes_are_never_dropped(tmp_path: Path, postgres_server: EmbeddedPostgres) -> None:
    paper = stack.with_secrets(mode="paper", **lent(postgres_server, tmp_path))
    with pytest.raises(StackFailed, match="never dropped"):
        databases.recreate(paper, postgres_server)


def test_another_seed_is_another_deployment(settings: Settings, postgres_server: EmbeddedPostgres) -> None:
    databases.recreate(settings, postgres_server)
    databases.ensure(settings, postgres_server)
    other = stack.with_secrets(home_dir=settings.home_dir, market_seed=settings.market_seed + 1)
    with pytest.raises(IdentityMismatch, match="seed"):
        databases.ensure(other, postgres_server)


def test_an_external_database_is_made_if_its_role_may(postgres_server: EmbeddedPostgres, tmp_path: Path) -> None:
    settings = stack.with_secrets(home_dir=tmp_path, database_url=postgres_server.url("elsewhere"))
    assert len(databases.ensure(settings, None)) == len(read_migrations())
    refused = stack.with_secrets(home_dir=tmp_path, database_url=postgres_server.url("x", password="wrong"))
    with pytest.raises(StackFailed, match="cannot connect to database x") as caught:
        databases.ensure(refused, None)
    assert "wrong" not in str(caught.value)


def test_an_administrator_makes_roles_and_databases_on_an_external_server(
    postgres_server: EmbeddedPostgres, tmp_path: Path
) -> None:
    def url(role: str, name: str) -> str:
        return postgres_server.url(name, role, f"{role}-word")

    settings = stack.with_secrets(
        home_dir=tmp_path,
        administrator_database_url=postgres_server.url(),
        database_url=url("far_owner", "far"),
        writer_database_url=url("far_writer", "far"),
        status_database_url=url("far_status", "far"),
        paper_database_url=url("far_paper", "far_paper"),
        airflow_database_url=url("far_airflow", "far_airflow"),
    )
    assert len(databases.ensure(settings, None)) == len(read_migrations())
    assert databases.ensure(settings, None) == []
    for name in ("writer", "status", "paper", "airflow"):
        psycopg.connect(getattr(settings, f"{name}_database_url").get_secret_value()).close()
    with pytest.raises(psycopg.OperationalError, match="permission denied"):
        psycopg.connect(url("far_paper", "far"))
    assert postgres_server.url() not in str(settings.environment())
