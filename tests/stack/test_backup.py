"""A backup brings ledger, decisions and latch back into an empty server, stopped, and in step with the exchange."""

from __future__ import annotations

import gzip
import itertools
import json
import secrets
import shutil
import tarfile
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from tests.jobs.conftest import NOW_MS
from tests.support.homes import lent
from tests.support.paper_server import PaperServerProcess
from tests.support.trading_rig import Rig
from tradewind import stack
from tradewind.adapters.database import Database
from tradewind.adapters.migrations import SQL_DIR, apply, migrate, read_migrations
from tradewind.core.types import TradingMode
from tradewind.errors import AlreadyRunning, BadInput, IdentityMismatch, MigrationError, StoreUnavailable
from tradewind.jobs.positions import manage_positions
from tradewind.jobs.safety import resume
from tradewind.jobs.trading import place_brackets
from tradewind.settings import Settings
from tradewind.stack import databases, dumps
from tradewind.stack.backup import backup
from tradewind.stack.postgres import EmbeddedPostgres
from tradewind.stack.restore import restore
from tradewind.stack.state import home_lock

_numbers = itertools.count()
# What a restore writes itself: what it changed, when it made the schema; another home has another control token.
CHANGED = {"latch_history", "audit", "models", "schema_migrations", "deployment", "control_key"}


@pytest.fixture
def here(postgres_server: EmbeddedPostgres, tmp_path: Path) -> dict[str, Any]:
    """Overrides of a home whose embedded server is the session's."""
    return {**lent(postgres_server, tmp_path / "home"), "account_id": "rig"}


@pytest.fixture
def settings(postgres_server: EmbeddedPostgres, here: dict[str, Any]) -> Settings:
    made = stack.with_secrets(**here)
    databases.recreate(made, postgres_server)
    databases.ensure(made, postgres_server)
    return made


@pytest.fixture(scope="module")
def empty_server(server_dir: Path) -> Iterator[EmbeddedPostgres]:
    """Another server, on which nothing was ever made."""
    server = EmbeddedPostgres(server_dir / "second", password=secrets.token_hex(8), durable=False)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def elsewhere(empty_server: EmbeddedPostgres, tmp_path: Path) -> dict[str, Any]:
    """Overrides of a new home whose databases, not made yet, are on the other server."""
    number = next(_numbers)
    return {
        "home_dir": tmp_path / "new-home",
        "account_id": "rig",
        "database_url": empty_server.url(f"ours_{number}"),
        "paper_database_url": empty_server.url(f"theirs_{number}"),
        "airflow_database_url": empty_server.url(f"airflow_{number}"),
    }


def contents(url: str) -> dict[str, list[str]]:
    """Every row of every table, as text."""
    with psycopg.connect(url) as connection:
        names = connection.execute(
            "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
        ).fetchall()
        return {
            name: sorted(
                row[0] for row in connection.execute(sql.SQL("SELECT t::text FROM {} t").format(sql.Identifier(name)))
            )
            for (name,) in names
        }


def rights(url: str) -> list[tuple[Any, ...]]:
    """Who may do what to which table and function, but for the owner."""
    with psycopg.connect(url) as connection:
        return connection.execute(
            """
            SELECT relname::text, grantee::regrole::text, privilege_type FROM pg_class, aclexplode(relacl)
            WHERE relnamespace = 'public'::regnamespace AND grantee <> relowner
            UNION ALL
            SELECT proname::text, CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END, privilege_type
            FROM pg_proc, aclexplode(coalesce(proacl, acldefault('f', proowner)))
            WHERE pronamespace = 'public'::regnamespace AND grantee <> proowner ORDER BY 1, 2, 3"""
        ).fetchall()


def secret(url: Any) -> str:
    return str(url.get_secret_value())


@pytest.mark.timeout(180)
def test_a_restored_deployment_is_the_same_and_stopped(
    settings: Settings, elsewhere: dict[str, Any], tmp_path: Path
) -> None:
    with PaperServerProcess(secret(settings.paper_database_url)) as market:
        market.admin.set_clock(NOW_MS)
        account = market.admin.create_account(
            {"USDT": "10000"},
            api_key=secret(settings.exchange_api_key),
            api_secret=secret(settings.exchange_api_secret),
        )
        rig = Rig(market, secret(settings.database_url), account)
        rig.make_ready()
        assert place_brackets(rig, rig.decide(notional=Decimal(1000)).intent_id)["outcome"] == "filled"
        manage_positions(rig)
        rig.close()
        done = backup(settings, tmp_path / "today.tar")
    assert done.rows["orders"] >= 1
    assert (tmp_path / "today.tar").stat().st_mode & 0o777 == 0o600
    before = contents(secret(settings.database_url))

    restored = restore(tmp_path / "today.tar", **elsewhere)

    assert restored.identity == settings.identity
    assert restored.rows == done.rows
    there = stack.with_secrets(**elsewhere)
    after = contents(secret(there.database_url))
    assert {name: rows for name, rows in after.items() if name not in CHANGED} == {
        name: rows for name, rows in before.items() if name not in CHANGED
    }
    # The exchange came along, with the account that the ledger speaks of.
    assert there.exchange_api_key == settings.exchange_api_key
    with PaperServerProcess(secret(there.paper_database_url)) as market:
        again = Rig(market, secret(there.database_url), account)
        latch = again.trading_store.latch()
        assert latch.mode is TradingMode.REDUCE_ONLY
        assert done.created_at in latch.reason
        manage_positions(again)
        again.assert_agrees()
        assert len(again.trading_store.live_positions()) == 1
        refused = place_brackets(again, again.decide(symbol="ETH/USDT", notional=Decimal(500)).intent_id)
        assert refused["outcome"] != "filled"
        assert resume(again, "tester", "looked at it")["mode"] == "active"
        again.close()


def test_rights_are_given_again(
    settings: Settings, here: dict[str, Any], postgres_server: EmbeddedPostgres, tmp_path: Path
) -> None:
    before = rights(secret(settings.database_url))
    assert "tradewind_writer" in {grantee for _, grantee, _ in before}
    backup(settings, tmp_path / "today.tar")
    databases.recreate(settings, postgres_server)
    restore(tmp_path / "today.tar", **here)
    assert rights(secret(settings.database_url)) == before


def test_model_files_come_along(settings: Settings, elsewhere: dict[str, Any], tmp_path: Path) -> None:
    models = settings.home_dir / "demo" / "models" / "v1"
    models.mkdir(parents=True)
    (models / "manifest.json").write_text("{}")
    with psycopg.connect(secret(settings.database_url)) as connection:
        connection.execute(
            "INSERT INTO models (version, state, manifest, artifact_url, trained_from, trained_until, created_at) "
            "VALUES ('v1', 'challenger', '{}', %s, now(), now(), now())",
            (f"{settings.model_url}/v1",),
        )
    backup(settings, tmp_path / "today.tar")
    restore(tmp_path / "today.tar", **elsewhere)
    there = stack.with_secrets(**elsewhere)
    assert (elsewhere["home_dir"] / "demo" / "models" / "v1" / "manifest.json").read_text() == "{}"
    row = Database(secret(there.database_url)).row("SELECT artifact_url FROM models")
    assert row == {"artifact_url": f"{there.model_url}/v1"}


def test_a_breaker_that_tripped_stays_tripped(settings: Settings, elsewhere: dict[str, Any], tmp_path: Path) -> None:
    with psycopg.connect(secret(settings.database_url)) as connection:
        connection.execute("SELECT tighten_latch('rig', 'halted', 'day loss', 'watch', now())")
        connection.execute("SELECT tighten_latch('other', 'reduce_only', 'maintenance', 'me', now())")
    backup(settings, tmp_path / "today.tar")
    restore(tmp_path / "today.tar", **elsewhere)
    url = secret(stack.with_secrets(**elsewhere).database_url)
    with psycopg.connect(url) as connection:
        rows = connection.execute("SELECT account, mode, reason FROM latches ORDER BY account").fetchall()
    assert rows == [("other", "reduce_only", "maintenance"), ("rig", "halted", "day loss")]


@pytest.fixture
def written(settings: Settings, tmp_path: Path) -> Path:
    path = tmp_path / "today.tar"
    backup(settings, path)
    return path


def test_nothing_is_overwritten(settings: Settings, elsewhere: dict[str, Any], written: Path) -> None:
    with pytest.raises(BadInput, match="exists already"):
        backup(settings, written)
    restore(written, **elsewhere)
    with pytest.raises(BadInput, match="not empty"):
        restore(written, **elsewhere)


def test_another_deployment_is_refused_before_anything_is_made(elsewhere: dict[str, Any], written: Path) -> None:
    with pytest.raises(IdentityMismatch, match="seed"):
        restore(written, **elsewhere, market_seed=8)
    assert not elsewhere["home_dir"].exists()


def test_a_stack_that_is_up_is_left_alone(elsewhere: dict[str, Any], written: Path) -> None:
    with home_lock(elsewhere["home_dir"]), pytest.raises(AlreadyRunning):
        restore(written, **elsewhere)


def rewritten(source: Path, change: Callable[[str, bytes], bytes]) -> Path:
    """The archive with its members changed."""
    target = source.with_name("changed.tar")
    with tarfile.open(source) as archive, tarfile.open(target, "w") as copy:
        for info in archive:
            file = archive.extractfile(info)
            assert file is not None
            content = change(info.name, file.read())
            info.size = len(content)
            part = source.with_name("part")
            part.write_bytes(content)
            with part.open("rb") as stream:
                copy.addfile(info, stream)
    return target


def test_damage_is_found_first(elsewhere: dict[str, Any], written: Path, tmp_path: Path) -> None:
    orders = "tradewind/orders.copy.gz"
    flipped = rewritten(written, lambda name, data: data[:-9] + b"x" + data[-8:] if name == orders else data)
    with pytest.raises(BadInput, match=r"orders\.copy\.gz differs"):
        restore(flipped, **elsewhere)
    (tmp_path / "cut.tar").write_bytes(written.read_bytes()[: written.stat().st_size // 3])
    with pytest.raises(BadInput, match="no whole backup"):
        restore(tmp_path / "cut.tar", **elsewhere)
    with pytest.raises(BadInput, match="no backup"):
        restore(Path(__file__), **elsewhere)
    assert not elsewhere["home_dir"].exists()


def test_a_newer_schema_is_refused(elsewhere: dict[str, Any], written: Path) -> None:
    def newer(name: str, data: bytes) -> bytes:
        if name != "manifest.json":
            return data
        manifest = json.loads(data)
        assert manifest["migrations"] == [migration.name for migration in read_migrations()]
        return json.dumps(manifest | {"migrations": [*manifest["migrations"], "9999_tomorrow"]}).encode()

    with pytest.raises(MigrationError, match="9999_tomorrow"):
        restore(rewritten(written, newer), **elsewhere)


def test_a_load_that_fails_leaves_nothing(settings: Settings, empty_postgres_url: str, tmp_path: Path) -> None:
    with dumps.snapshot(secret(settings.database_url)) as connection:
        contents = dumps.dump(connection, tmp_path)

    def cut(name: str) -> Iterator[bytes]:
        yield gzip.decompress((tmp_path / name).read_bytes())
        raise BadInput("the rest is missing")

    def fill() -> None:
        with dumps.filling(empty_postgres_url) as connection:
            apply(connection, read_migrations())
            dumps.load(connection, contents, cut)

    with pytest.raises(BadInput, match="the rest is missing"):
        fill()
    with dumps.snapshot(empty_postgres_url) as connection:
        assert dumps.is_empty(connection)
    with pytest.raises(StoreUnavailable) as caught, dumps.snapshot(secret(settings.database_url) + "x"):
        pass
    assert secret(settings.database_password) not in str(caught.value)


def test_an_older_schema_is_brought_forward(
    here: dict[str, Any], postgres_server: EmbeddedPostgres, elsewhere: dict[str, Any], tmp_path: Path
) -> None:
    older = tmp_path / "older"
    older.mkdir()
    left_out = "0011_research"
    for path in SQL_DIR.glob("*.sql"):
        if path.stem != left_out:
            shutil.copy(path, older)
    settings = stack.with_secrets(**here)
    databases.recreate(settings, postgres_server)
    databases.make(settings, postgres_server)
    migrate(secret(settings.database_url), settings.identity, older)
    backup(settings, tmp_path / "old.tar")
    restored = restore(tmp_path / "old.tar", **elsewhere)
    assert restored.migrations == (left_out,)
    names = set(contents(secret(stack.with_secrets(**elsewhere).database_url)))
    assert {"studies", "decisions"} <= names
