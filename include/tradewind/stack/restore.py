"""Brings a deployment back from one file, stopped.

Entries are blocked until a person has looked and says `resume`, which reconciles with the exchange first. Positions
that were open stay protected and managed meanwhile. A breaker that had tripped stays tripped.
"""

from __future__ import annotations

import getpass
import tarfile
import tempfile
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

import psycopg
from psycopg import sql

from tradewind.errors import BadInput, BadSetting
from tradewind.settings import PREFIX, Settings, load_settings
from tradewind.stack import databases, dumps
from tradewind.stack.backup_file import (
    EXCHANGE,
    OURS,
    Outcome,
    account_of,
    extract,
    local_models,
    member,
    opened,
    outcome_of,
    require_identity,
    server_of,
    verified_manifest,
)
from tradewind.stack.stack import with_secrets


def restore(source: Path, **overrides: Any) -> Outcome:
    """Bring a deployment back into empty databases, stopped; `overrides` of the settings as for `load_settings`.

    Raises
    ------
    AlreadyRunning : the stack of this home is up.
    BadInput : the file is no backup, or damaged; or the database is not empty.
    IdentityMismatch : the settings describe another deployment than the backup's.
    MigrationError : the backup's schema is newer than this code.
    """
    with opened(source) as archive:
        manifest = verified_manifest(archive, source)
        require_identity(manifest["identity"], load_settings(**overrides))
        settings = with_secrets(**overrides)
        with server_of(settings, alone=True) as server:
            databases.make(settings, server)
            if not dumps.is_empty(settings.database_url.get_secret_value()):
                raise BadInput(
                    "the database is not empty, and nothing is overwritten: set TRADEWIND_HOME_DIR to a new one"
                )
            with tempfile.TemporaryDirectory(prefix="restore-", dir=settings.home_dir) as directory:
                if EXCHANGE in manifest["members"]:
                    _restore_exchange(settings, archive, Path(directory))
                    _require_account(load_settings(**overrides), archive)
                _restore_models(settings, archive, manifest)
                path = extract(archive, OURS, Path(directory))
                # Ours last, and stopped in the transaction that makes it: killed anywhere, nothing restored can trade.
                dumps.load(settings.database_url.get_secret_value(), path, then=_stopping(settings, manifest))
            migrations = databases.ensure(settings, server)
            return outcome_of(settings, manifest, source, tuple(migrations))


def _restore_exchange(settings: Settings, archive: tarfile.TarFile, directory: Path) -> None:
    """The paper exchange's database, and the key by which it knows this account."""
    if not settings.keeps_paper_exchange:
        problem = "the backup holds the paper exchange's database, so this deployment must keep one too"
        raise BadSetting(f"{PREFIX}EXCHANGE_URL", problem, f"{PREFIX}PAPER_DATABASE_URL=postgresql://…")
    url = settings.paper_database_url.get_secret_value()
    if not dumps.is_empty(url):
        # Left by a restore that was cut short, or by an exchange whose ledger is gone: ours is empty.
        _empty(url)
    dumps.load(url, extract(archive, EXCHANGE, directory))
    for part, value in account_of(archive).items():
        path = settings.secrets_dir / f"{PREFIX}paper_{part}".lower()
        path.unlink(missing_ok=True)
        path.touch(mode=0o600)
        path.write_text(value)


def _require_account(settings: Settings, archive: tarfile.TarFile) -> None:
    """A key that the environment gives is stronger than the file just written."""
    if settings.exchange_api_key.get_secret_value() != account_of(archive)["api_key"]:
        problem = "is set to another key than that of the backup's paper account: unset it"
        raise BadSetting(f"{PREFIX}EXCHANGE_API_KEY", problem, f"the file {settings.secrets_dir}/…paper_api_key")


def _empty(url: str) -> None:
    with psycopg.connect(url, connect_timeout=10) as connection:
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")


def _restore_models(settings: Settings, archive: tarfile.TarFile, manifest: dict[str, Any]) -> None:
    models = local_models(settings)
    for name in manifest["members"]:
        path = PurePosixPath(name)
        if path.parts[0] != "models":
            continue
        if models is None:
            raise BadSetting(f"{PREFIX}MODEL_URL", "the backup holds model files, so it must be a file:// URL", "unset")
        if ".." in path.parts or path.is_absolute():
            raise BadInput(f"the backup names a file outside its models: {name}")
        target = models.joinpath(*path.parts[1:])
        target.parent.mkdir(parents=True, exist_ok=True)
        with member(archive, name) as file, target.open("wb") as written:
            while chunk := file.read(1 << 20):
                written.write(chunk)


def _stopping(settings: Settings, manifest: dict[str, Any]) -> list[str]:
    """What makes the restored database safe: the latch of every account, the audit, and where the models lie now."""
    now, actor = datetime.now(UTC), _actor()
    reason = f"restored from the backup of {manifest['created_at']}"
    halt = sql.SQL(
        "SELECT public.tighten_latch(account, 'reduce_only', {reason}, {actor}, {now}) "
        "FROM (SELECT account FROM public.latches UNION SELECT {account}) AS known"
    )
    audit = sql.SQL(
        "INSERT INTO public.audit (at, actor, action, outcome, detail, source) "
        "VALUES ({now}, {actor}, 'restore', 'stopped', "
        "jsonb_build_object('account', {account}::text, 'backup', {created}::text), 'command')"
    )
    move = sql.SQL(
        "UPDATE public.models SET artifact_url = {new} || substr(artifact_url, length({old}) + 1) "
        "WHERE starts_with(artifact_url, {old})"
    )
    values = {
        "now": sql.Literal(now), "actor": sql.Literal(actor), "reason": sql.Literal(reason),
        "account": sql.Literal(settings.account_id), "created": sql.Literal(manifest["created_at"]),
        "old": sql.Literal(manifest["model_url"]), "new": sql.Literal(settings.model_url),
    }  # fmt: skip
    statements = [halt.format(**values), audit.format(**values), move.format(**values)]
    # Without anybody's rights a function is everybody's; `grant_rights` gives them out again.
    return [*(statement.as_string(None) for statement in statements), _REVOKE]


_REVOKE = "REVOKE ALL ON ALL FUNCTIONS IN SCHEMA public FROM PUBLIC"


def _actor() -> str:
    with suppress(KeyError, OSError):
        return getpass.getuser()
    return "unknown user"
