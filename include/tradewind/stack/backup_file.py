"""What a backup file holds, and how it is opened.

::

    backup.tar   manifest.json            which deployment, when, its schema, and the SHA-256 of every other part
                 tradewind/TABLE.copy.gz  our database, table by table: the ledger, decisions, the latch, everything
                 exchange/TABLE.copy.gz   the paper exchange's, where the deployment runs its own
                 exchange.json            the paper account's key, by which the restored exchange knows us
                 models/…                 the files of every stored model, where they lie on this machine

Rows alone: the tables are made by this code's own migrations, and nothing in the file is ever run. Airflow's metadata
is not in it: runs are history, and every truth that a task needs lies in our database. Neither are secrets, except the
paper account's key, which opens nothing but a play exchange.
"""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar
from urllib.parse import unquote, urlsplit

import psycopg
from psycopg import sql
from psycopg.rows import scalar_row
from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError
from pydantic_core import from_json

from tradewind.adapters.migrations import read_migrations
from tradewind.errors import BadInput, IdentityMismatch, MigrationError
from tradewind.settings import Settings
from tradewind.stack import services
from tradewind.stack.dumps import Contents, file_of
from tradewind.stack.postgres import EmbeddedPostgres
from tradewind.stack.state import home_lock
from tradewind.stack.tar_parts import TarParts

FORMAT: Final = 2
OURS: Final = "tradewind"
EXCHANGE: Final = "exchange"
MODELS, ACCOUNT, MANIFEST = "models", "exchange.json", "manifest.json"
_COUNTED: Final = ("candles", "decisions", "orders", "fills", "positions", "models")
_CHUNK_BYTES: Final = 1 << 20
# Of the manifest and of the account's key.
_MOST_JSON_BYTES: Final = 32 << 20
# Rows pack to a fifth or a tenth of their size; what claims much more is made to fill a disk.
_MOST_UNPACKED_PER_BYTE: Final = 100
_UNPACKED_AT_LEAST: Final = 64 << 20
_LONGEST_ROW_BYTES: Final = 64 << 20

DatabaseName = Literal["tradewind", "exchange"]
_Model = TypeVar("_Model", bound=BaseModel)
_Line = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]{0,4096}$")]
_Key = Annotated[str, StringConstraints(pattern=r"^[!-~]{1,200}$")]
_Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class Manifest(BaseModel):
    """What the backup says of itself."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    format: Literal[2]
    created_at: Annotated[str, StringConstraints(pattern=r"^[0-9T:+-]{19,32}$")]
    identity: dict[_Line, _Line]
    account: _Line
    model_url: _Line
    migrations: list[_Line]
    databases: dict[DatabaseName, Contents]
    members: dict[str, _Sha256]


class PaperKey(BaseModel):
    """By which the paper exchange knows its account."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    api_key: _Key
    api_secret: _Key


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was written or restored, the rows counted afterwards, and what a restore did besides: the migrations that it
    applied, and the tables that this code does not know, whose rows it left out."""

    created_at: str
    identity: dict[str, str]
    rows: dict[str, int]
    bytes: int
    migrations: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


def verified_manifest(parts: TarParts) -> Manifest:
    """The manifest, after every part's hash was compared: a damaged backup must be found before anything is made."""
    source = parts.source
    content = _read_short(parts, MANIFEST)
    try:
        said = from_json(content)
    except ValueError as error:
        raise BadInput(f"{source} is no whole backup: {MANIFEST} cannot be read ({error})") from None
    written_in = said.get("format") if isinstance(said, dict) else None
    if written_in != FORMAT:
        raise BadInput(
            f"{source} has format {ascii(written_in)[:20]}, this code reads {FORMAT}: restore it with the version that "
            "wrote it, and back up again"
        )
    manifest = _validated(Manifest, content, source, MANIFEST)
    wanted = {f"{name}/{file_of(table)}" for name, held in manifest.databases.items() for table in held.tables}
    if OURS not in manifest.databases or not wanted <= manifest.members.keys():
        raise BadInput(f"{source} is no whole backup: a table's rows are missing")
    if unlisted := sorted(parts.names - {MANIFEST} - manifest.members.keys()):
        raise BadInput(f"{source} is no backup of ours: its manifest knows nothing of {unlisted[0]}")
    for name, sha256 in manifest.members.items():
        with parts.open(name) as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                raise BadInput(f"{source} is damaged: {name} differs from its manifest")
    known = {migration.name for migration in read_migrations()}
    if unknown := [name for name in manifest.migrations if name not in known]:
        raise MigrationError(f"the backup has migration {unknown[0]}, which this code does not know: update the code")
    return manifest


def paper_key(parts: TarParts) -> PaperKey:
    return _validated(PaperKey, _read_short(parts, ACCOUNT), parts.source, ACCOUNT)


def unpacked(parts: TarParts, database: str) -> Callable[[str], Iterator[bytes]]:
    """Reads the rows of one database's tables by the names of their files, as many bytes as the backup may hold."""
    left = max(_MOST_UNPACKED_PER_BYTE * parts.bytes, _UNPACKED_AT_LEAST)

    def chunks(name: str) -> Iterator[bytes]:
        nonlocal left
        row_bytes = 0
        try:
            with parts.open(f"{database}/{name}") as packed, gzip.GzipFile(fileobj=packed) as file:
                while chunk := file.read(_CHUNK_BYTES):
                    left -= len(chunk)
                    row_bytes = len(chunk) - chunk.rfind(b"\n") if b"\n" in chunk else row_bytes + len(chunk)
                    if left < 0 or row_bytes > _LONGEST_ROW_BYTES:
                        raise BadInput(f"{parts.source} unpacks to far more than any backup of its size: {name}")
                    yield chunk
        except (OSError, EOFError, zlib.error) as error:
            raise BadInput(f"{parts.source} is damaged: {name} cannot be unpacked ({error})") from None

    return chunks


def _read_short(parts: TarParts, name: str) -> bytes:
    with parts.open(name) as file:
        return file.read(_MOST_JSON_BYTES)


def _validated(model: type[_Model], content: bytes, source: Path, name: str) -> _Model:
    try:
        return model.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(ascii(part) for part in first["loc"])[:200]
        raise BadInput(f"{source} is no whole backup: {name}: {place}: {first['msg']}") from None


def require_identity(stamped: dict[str, str], settings: Settings) -> None:
    wanted = settings.identity
    wrong = sorted(key for key in stamped.keys() | wanted.keys() if stamped.get(key) != wanted.get(key))
    if wrong:
        differences = ", ".join(f"{key} is {stamped.get(key)!r}, the settings say {wanted.get(key)!r}" for key in wrong)
        raise IdentityMismatch(
            f"the backup is another deployment's ({differences}): give the settings it was made with"
        )


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


def outcome_of(settings: Settings, manifest: Manifest, path: Path, **restored: tuple[str, ...]) -> Outcome:
    with psycopg.connect(settings.database_url.get_secret_value(), connect_timeout=10) as connection:
        rows = count_rows(connection)
    return Outcome(manifest.created_at, manifest.identity, rows, path.stat().st_size, **restored)


def count_rows(connection: psycopg.Connection[Any]) -> dict[str, int]:
    """Rows of the tables that a person wants to see again after a restore."""
    cursor = connection.cursor(row_factory=scalar_row)
    return {
        table: cursor.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table))).fetchone() or 0
        for table in _COUNTED
    }
