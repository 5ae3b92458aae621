"""Writes a deployment into one file, while trading goes on."""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg

from tradewind.errors import BadInput, StackFailed
from tradewind.settings import Settings
from tradewind.stack import dumps
from tradewind.stack.backup_file import (
    ACCOUNT,
    EXCHANGE,
    FORMAT,
    MANIFEST,
    OURS,
    Outcome,
    local_models,
    outcome_of,
    require_identity,
    server_of,
)


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
        members = _collect(settings, Path(directory))
        manifest = _manifest(settings, members)
        require_identity(manifest["identity"], settings)
        unfinished = Path(directory) / "backup.tar"
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            with tarfile.open(fileobj=file, mode="w") as archive:
                _add(archive, MANIFEST, manifest)
                for name, path in members.items():
                    archive.add(path, name, recursive=False, filter=_anonymous)
            file.flush()
            os.fsync(file.fileno())
        unfinished.rename(target)
        return outcome_of(settings, manifest, target)


def _collect(settings: Settings, directory: Path) -> dict[str, Path]:
    """The members by name. Ours is dumped before the exchange's, which may know of more orders then, never of fewer."""
    members = {OURS: directory / OURS}
    dumps.dump(settings.database_url.get_secret_value(), members[OURS])
    if settings.keeps_paper_exchange:
        members[EXCHANGE] = directory / EXCHANGE
        dumps.dump(settings.paper_database_url.get_secret_value(), members[EXCHANGE])
        account = {
            "api_key": settings.exchange_api_key.get_secret_value(),
            "api_secret": settings.exchange_api_secret.get_secret_value(),
        }
        members[ACCOUNT] = directory / ACCOUNT
        members[ACCOUNT].write_text(json.dumps(account))
    models = local_models(settings)
    if models is not None and models.is_dir():
        for path in sorted(models.rglob("*")):
            if path.is_file():
                members[f"models/{path.relative_to(models).as_posix()}"] = path
    return members


def _manifest(settings: Settings, members: dict[str, Path]) -> dict[str, Any]:
    with psycopg.connect(settings.database_url.get_secret_value(), connect_timeout=10) as connection:
        row = connection.execute("SELECT identity FROM deployment").fetchone()
        if row is None:
            raise StackFailed("the database bears no identity yet: run ./tradewind up once, which stamps it")
        applied = connection.execute("SELECT name FROM schema_migrations ORDER BY version").fetchall()
    return {
        "format": FORMAT,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "identity": row[0],
        "account": settings.account_id,
        "model_url": settings.model_url,
        "migrations": [name for (name,) in applied],
        "members": {name: _sha256(path) for name, path in members.items()},
    }


def _add(archive: tarfile.TarFile, name: str, content: dict[str, Any]) -> None:
    with tempfile.TemporaryFile() as file:
        file.write(json.dumps(content, indent=1).encode())
        info = tarfile.TarInfo(name)
        info.size, info.mode = file.tell(), 0o600
        info.mtime = int(datetime.now(UTC).timestamp())
        file.seek(0)
        archive.addfile(info, file)


def _anonymous(info: tarfile.TarInfo) -> tarfile.TarInfo:
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    info.mode = 0o600
    return info


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
