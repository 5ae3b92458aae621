"""Writes a deployment into one file, while trading goes on."""

from __future__ import annotations

import hashlib
import os
import tarfile
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from tradewind.errors import BadInput, StackFailed
from tradewind.settings import Settings
from tradewind.stack import dumps
from tradewind.stack.backup_file import (
    ACCOUNT,
    EXCHANGE,
    FORMAT,
    MANIFEST,
    MODELS,
    OURS,
    DatabaseName,
    Manifest,
    Outcome,
    PaperKey,
    local_models,
    outcome_of,
    require_identity,
    server_of,
)
from tradewind.stack.tar_parts import is_plain_name


def backup(settings: Settings, target: Path) -> Outcome:
    """Write the deployment into one file, readable by its owner alone; the stack may be up, trading goes on.

    Raises BadInput when the file exists already, StackFailed when a dump fails; no half a file is left.
    """
    if target.exists():
        raise BadInput(f"{target} exists already: name a new file")
    if not target.parent.is_dir():
        raise BadInput(f"{target.parent} is no directory: make it, or name another")
    with (
        server_of(settings),
        # Beside the target: what fits here fits there, and the last step is a rename.
        tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as directory,
    ):
        manifest, members = _collect(settings, Path(directory))
        require_identity(manifest.identity, settings)
        unfinished = Path(directory) / "backup.tar"
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as archive:
                for name, path in {MANIFEST: _written(Path(directory) / MANIFEST, manifest), **members}.items():
                    archive.add(path, name, recursive=False, filter=_anonymous)
            file.flush()
            os.fsync(file.fileno())
        unfinished.rename(target)
        return outcome_of(settings, manifest, target)


def _collect(settings: Settings, directory: Path) -> tuple[Manifest, dict[str, Path]]:
    """What the backup says of itself, and its parts by name.

    Ours is dumped before the exchange's, which may know of more orders then, never of fewer.
    """
    contents: dict[DatabaseName, dumps.Contents] = {}
    members: dict[str, Path] = {}
    urls: dict[DatabaseName, str] = {OURS: settings.database_url.get_secret_value()}
    if settings.keeps_paper_exchange:
        urls[EXCHANGE] = settings.paper_database_url.get_secret_value()
        key = PaperKey(
            api_key=settings.exchange_api_key.get_secret_value(),
            api_secret=settings.exchange_api_secret.get_secret_value(),
        )
        members[ACCOUNT] = _written(directory / ACCOUNT, key)
    said: dict[str, Any] = {}
    for name, url in urls.items():
        (directory / name).mkdir()
        with dumps.snapshot(url) as connection:
            contents[name] = dumps.dump(connection, directory / name)
            if name == OURS:
                said = _described(connection)
        members |= {f"{name}/{path.name}": path for path in sorted((directory / name).iterdir())}
    members |= _model_files(settings)
    manifest = Manifest(
        format=FORMAT,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        account=settings.account_id,
        model_url=settings.model_url,
        databases=contents,
        members={name: _sha256(path) for name, path in members.items()},
        **said,
    )
    return manifest, members


def _described(connection: dumps.Connection) -> dict[str, Any]:
    """Whose database it is, and its schema."""
    row = connection.execute("SELECT identity FROM deployment").fetchone()
    if row is None:
        raise StackFailed("the database bears no identity yet: run ./tradewind up once, which stamps it")
    applied = connection.execute("SELECT name FROM schema_migrations ORDER BY version").fetchall()
    return {"identity": row[0], "migrations": [name for (name,) in applied]}


def _model_files(settings: Settings) -> dict[str, Path]:
    models = local_models(settings)
    if models is None or not models.is_dir():
        return {}
    found = {f"{MODELS}/{path.relative_to(models).as_posix()}": path for path in models.rglob("*") if path.is_file()}
    # Hidden ones are no model's: an editor's, a file manager's.
    kept = {name: path for name, path in sorted(found.items()) if "/." not in name}
    if odd := next((name for name in kept if not is_plain_name(name)), None):
        raise StackFailed(f"{kept[odd]} has a name that no model's file has: move it elsewhere")
    return kept


def _written(path: Path, content: BaseModel) -> Path:
    path.touch(mode=0o600)
    path.write_text(content.model_dump_json(indent=1))
    return path


def _anonymous(info: tarfile.TarInfo) -> tarfile.TarInfo:
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    info.mode = 0o600
    return info


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
