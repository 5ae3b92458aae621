"""What a backup file holds, and how it is opened.

::

    backup.tar   manifest.json     which deployment, when, and the SHA-256 of every other member
                 tradewind.dump    our database: the ledger, decisions, the latch, candles, everything
                 exchange.dump     the paper exchange's database, where the deployment runs its own
                 exchange.json     the paper account's key, by which the restored exchange knows us
                 models/…          the files of every stored model, where they lie on this machine

Airflow's metadata is not in it: runs are history, and every truth that a task needs lies in our database. Neither are
secrets, except the paper account's key, which opens nothing but a play exchange.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlsplit

import psycopg
from psycopg import sql
from psycopg.rows import scalar_row

from tradewind.adapters.migrations import read_migrations
from tradewind.errors import BadInput, IdentityMismatch, MigrationError
from tradewind.settings import Settings
from tradewind.stack import services
from tradewind.stack.postgres import EmbeddedPostgres
from tradewind.stack.state import home_lock

FORMAT = 1
OURS, EXCHANGE, ACCOUNT, MANIFEST = "tradewind.dump", "exchange.dump", "exchange.json", "manifest.json"
_COUNTED = ("candles", "decisions", "orders", "fills", "positions", "models")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was written or restored, the rows counted afterwards, and the migrations that a restore applied besides."""

    created_at: str
    identity: dict[str, str]
    rows: dict[str, int]
    bytes: int
    migrations: tuple[str, ...] = ()


@contextmanager
def opened(source: Path) -> Iterator[tarfile.TarFile]:
    try:
        archive = tarfile.open(source, "r:")  # noqa: SIM115  (closed below, and its failure needs words of ours)
    except (OSError, tarfile.TarError) as error:
        raise BadInput(f"{source} is no backup: {error}") from None
    with archive:
        yield archive


def verified_manifest(archive: tarfile.TarFile, source: Path) -> dict[str, Any]:
    """The manifest, after every member's hash was compared: a damaged backup must be found before anything is made."""
    try:
        with member(archive, MANIFEST) as file:
            manifest: dict[str, Any] = json.load(file)
        if manifest["format"] != FORMAT:
            raise BadInput(f"{source} has format {manifest['format']}, this code reads {FORMAT}: update the code")
        for name, wanted in manifest["members"].items():
            with member(archive, name) as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != wanted:  # type: ignore[arg-type]
                    raise BadInput(f"{source} is damaged: {name} differs from its manifest")
    except (KeyError, ValueError, tarfile.TarError, OSError) as error:
        raise BadInput(f"{source} is no whole backup: {error}") from None
    known = {migration.name for migration in read_migrations()}
    if unknown := [name for name in manifest["migrations"] if name not in known]:
        raise MigrationError(f"the backup has migration {unknown[0]}, which this code does not know: update the code")
    return manifest


def member(archive: tarfile.TarFile, name: str) -> IO[bytes]:
    file = archive.extractfile(name)
    if file is None:
        raise KeyError(f"{name} is no file")
    return file


def extract(archive: tarfile.TarFile, name: str, directory: Path) -> Path:
    path = directory / name
    path.touch(mode=0o600)
    with member(archive, name) as file, path.open("wb") as target:
        while chunk := file.read(1 << 20):
            target.write(chunk)
    return path


def require_identity(stamped: dict[str, str], settings: Settings) -> None:
    wanted = settings.identity
    wrong = sorted(key for key in stamped.keys() | wanted.keys() if stamped.get(key) != wanted.get(key))
    if wrong:
        differences = ", ".join(f"{key} is {stamped.get(key)!r}, the settings say {wanted.get(key)!r}" for key in wrong)
        raise IdentityMismatch(
            f"the backup is another deployment's ({differences}): give the settings it was made with"
        )


def account_of(archive: tarfile.TarFile) -> dict[str, str]:
    with member(archive, ACCOUNT) as file:
        account: dict[str, str] = json.load(file)
    return {part: account[part] for part in ("api_key", "api_secret")}


@contextmanager
def server_of(settings: Settings, *, alone: bool = False) -> Iterator[EmbeddedPostgres | None]:
    """The server, started for this while when it is embedded and down. `alone`: refuse while the stack is up."""
    server = services.embedded_postgres(settings) if settings.uses_embedded_database else None
    if not alone and (server is None or server.ready()):
        yield server
        return
    with home_lock(settings.home_dir):
        if server is None or server.ready():
            yield server
            return
        server.start()
        try:
            yield server
        finally:
            server.stop()


def local_models(settings: Settings) -> Path | None:
    """Where model files lie on this machine; None where they are kept elsewhere, by whoever copies them."""
    parts = urlsplit(settings.model_url)
    return Path(unquote(parts.path)) if parts.scheme == "file" else None


def outcome_of(settings: Settings, manifest: dict[str, Any], path: Path, migrations: tuple[str, ...] = ()) -> Outcome:
    with psycopg.connect(settings.database_url.get_secret_value(), connect_timeout=10) as connection:
        rows = count_rows(connection)
    return Outcome(manifest["created_at"], manifest["identity"], rows, path.stat().st_size, migrations)


def count_rows(connection: psycopg.Connection[Any]) -> dict[str, int]:
    """Rows of the tables that a person wants to see again after a restore."""
    cursor = connection.cursor(row_factory=scalar_row)
    return {
        table: cursor.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table))).fetchone() or 0
        for table in _COUNTED
    }
