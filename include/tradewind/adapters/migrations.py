"""The schema's numbered migrations, and the identity stamped on the database they make.

`sql/NNNN_name.sql` files are applied in order, each in one transaction together with its record, under one advisory
lock, so that any number of processes may start at once. An applied file is never edited: its hash is compared.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg.rows import TupleRow
from psycopg.types.json import Jsonb

from tradewind.adapters.database import Database
from tradewind.errors import IdentityMismatch, MigrationError, StoreUnavailable

SQL_DIR = Path(__file__).resolve().parent.parent / "sql"
_FILE_NAME = re.compile(r"^(\d{4})_[a-z0-9_]+\.sql$")
# Any constant serves; advisory locks are per database, so deployments never wait for each other.
_LOCK_KEY = 7_234_110_542

_BOOKKEEPING = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    version    integer PRIMARY KEY,
    name       text        NOT NULL,
    sha256     text        NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE IF NOT EXISTS deployment (
    only_row   boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    identity   jsonb       NOT NULL,
    stamped_at timestamptz NOT NULL DEFAULT now()
);
"""
_APPLIED = "SELECT version, name, sha256 FROM schema_migrations ORDER BY version"
_RECORD = "INSERT INTO schema_migrations (version, name, sha256) VALUES (%s, %s, %s)"
_STAMP = "INSERT INTO deployment (identity) VALUES (%s) ON CONFLICT DO NOTHING"
_IDENTITY = "SELECT identity FROM deployment"


@dataclass(frozen=True, slots=True)
class Migration:
    """One numbered file."""

    version: int
    name: str
    sql: str

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()


def read_migrations(directory: Path = SQL_DIR) -> list[Migration]:
    """The directory's migrations in order. Raises MigrationError for a bad name or a number used twice."""
    migrations = []
    for path in sorted(directory.glob("*.sql")):
        match = _FILE_NAME.match(path.name)
        if match is None:
            raise MigrationError(f"{path.name} is not named NNNN_what_it_does.sql")
        migrations.append(Migration(int(match[1]), path.stem, path.read_text(encoding="utf-8")))
    versions = [migration.version for migration in migrations]
    if len(set(versions)) != len(versions):
        raise MigrationError(f"a migration number is used twice in {directory}: {versions}")
    return migrations


def migrate(dsn: str, identity: Mapping[str, str] | None = None, directory: Path = SQL_DIR) -> list[str]:
    """Bring the database to the newest schema and stamp it, or verify its stamp; returns the names just applied.

    Parameters
    ----------
    dsn : libpq URL of the database, with the right to create tables.
    identity : what this deployment is; None leaves the stamp alone (the paper exchange's own database).
    directory : where the numbered files lie.

    Raises
    ------
    IdentityMismatch : the database belongs to another deployment; nothing was applied.
    MigrationError : an applied migration was edited, or the database is newer than this code.
    StoreUnavailable : no connection.
    """
    migrations = read_migrations(directory)
    try:
        connection = psycopg.connect(dsn, autocommit=True, connect_timeout=10)
    except psycopg.OperationalError as error:
        raise StoreUnavailable(f"cannot connect to the database: {_without_secrets(error, dsn)}") from None
    with connection:
        connection.execute("SELECT pg_advisory_lock(%s)", (_LOCK_KEY,))
        try:
            apply(connection, [])
            row = connection.execute(_IDENTITY).fetchone()
            if identity is not None and row is not None:
                _compare(row[0], identity)
            pending = _pending(connection, migrations)
            apply(connection, pending)
            if identity is not None:
                connection.execute(_STAMP, (Jsonb(dict(identity)),))
        finally:
            connection.execute("SELECT pg_advisory_unlock(%s)", (_LOCK_KEY,))
    return [migration.name for migration in pending]


def apply(connection: psycopg.Connection[TupleRow], migrations: Iterable[Migration]) -> None:
    """Apply these, each in a transaction of its own or a savepoint of the one that is open. Raises MigrationError."""
    with connection.transaction():
        connection.execute(_BOOKKEEPING)
    for migration in migrations:
        try:
            with connection.transaction():
                connection.execute(migration.sql.encode())
                connection.execute(_RECORD, (migration.version, migration.name, migration.sha256))
        except psycopg.Error as error:
            raise MigrationError(f"{migration.name} failed and was rolled back: {error}") from error


def verify_identity(database: Database, identity: Mapping[str, str]) -> None:
    """Refuse a database that is not this deployment's: IdentityMismatch when its stamp differs or is missing."""
    exists = database.row("SELECT to_regclass('deployment') IS NOT NULL AS exists")
    row = database.row(_IDENTITY) if exists and exists["exists"] else None
    if row is None:
        raise IdentityMismatch("the database bears no identity yet: run ./tradewind up once, which stamps it")
    _compare(row["identity"], identity)


def _compare(stamped: Mapping[str, str], identity: Mapping[str, str]) -> None:
    wrong = sorted(key for key in stamped.keys() | identity.keys() if stamped.get(key) != identity.get(key))
    if wrong:
        differences = ", ".join(f"{key} is {stamped.get(key)!r}, wanted {identity.get(key)!r}" for key in wrong)
        raise IdentityMismatch(
            f"this database belongs to another deployment ({differences}): "
            "set TRADEWIND_DATABASE_URL or TRADEWIND_HOME_DIR to one of its own"
        )


def _pending(connection: psycopg.Connection[TupleRow], migrations: list[Migration]) -> list[Migration]:
    known = {migration.version: migration for migration in migrations}
    applied = set()
    for version, name, sha256 in connection.execute(_APPLIED):
        if version not in known:
            raise MigrationError(f"the database has migration {name}, which this code does not know: update the code")
        if known[version].sha256 != sha256:
            raise MigrationError(f"migration {name} was edited after it was applied: write a new one instead")
        applied.add(version)
    return [migration for migration in migrations if migration.version not in applied]


def _without_secrets(error: Exception, dsn: str) -> str:
    """The error's text; libpq does not print passwords, but the whole URL is replaced should a driver ever quote it."""
    return str(error).replace(dsn, "(database URL)").strip()
