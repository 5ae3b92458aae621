"""Brings a deployment back from one file, stopped.

Entries are blocked until a person has looked and says `resume`, which reconciles with the exchange first. Positions
that were open stay protected and managed meanwhile. A breaker that had tripped stays tripped.
"""

from __future__ import annotations

import getpass
import shutil
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

from psycopg import sql

from tradewind.adapters import migrations
from tradewind.errors import BadInput, BadSetting
from tradewind.paper.archive import SCHEMA as EXCHANGE_SCHEMA
from tradewind.settings import PREFIX, Settings, load_settings
from tradewind.stack import databases, dumps
from tradewind.stack.backup_file import (
    EXCHANGE,
    MODELS,
    OURS,
    Manifest,
    Outcome,
    local_models,
    outcome_of,
    paper_key,
    require_identity,
    server_of,
    unpacked,
    verified_manifest,
)
from tradewind.stack.stack import with_secrets
from tradewind.stack.tar_parts import TarParts, opened


def restore(source: Path, **overrides: Any) -> Outcome:
    """Bring a deployment back into empty databases, stopped; `overrides` of the settings as for `load_settings`.

    Raises
    ------
    AlreadyRunning : the stack of this home is up.
    BadInput : the file is no backup, or damaged; or the database is not empty.
    IdentityMismatch : the settings describe another deployment than the backup's.
    MigrationError : the backup's schema is newer than this code.
    """
    with opened(source) as parts:
        manifest = verified_manifest(parts)
        require_identity(manifest.identity, load_settings(**overrides))
        settings = with_secrets(**overrides)
        with server_of(settings, alone=True) as server:
            databases.make(settings, server)
            with dumps.snapshot(settings.database_url.get_secret_value()) as connection:
                if not dumps.is_empty(connection):
                    raise BadInput(
                        "the database is not empty, and nothing is overwritten: set TRADEWIND_HOME_DIR to a new one"
                    )
            left_out: list[str] = []
            if EXCHANGE in manifest.databases:
                left_out += _restore_exchange(settings, parts, manifest)
                _require_account(load_settings(**overrides), parts)
            _restore_models(settings, parts)
            applied, unknown = _restore_ours(settings, parts, manifest)
            databases.ensure(settings, server)
            return outcome_of(settings, manifest, source, migrations=applied, left_out=(*unknown, *left_out))


_OPEN_STILL = "SELECT count(*) FROM public.latches WHERE mode NOT IN ('reduce_only', 'halted')"


def _restore_ours(settings: Settings, parts: TarParts, manifest: Manifest) -> tuple[tuple[str, ...], list[str]]:
    """Our database, last and stopped in the transaction that makes it: killed anywhere, nothing restored can trade.

    Its tables are made as they were at the backup, filled, and then brought forward. Returns the migrations that did
    that, and the tables whose rows were left out.
    """
    with dumps.filling(settings.database_url.get_secret_value()) as connection:
        known = migrations.read_migrations()
        since = [migration for migration in known if migration.name not in manifest.migrations]
        migrations.apply(connection, [migration for migration in known if migration not in since])
        left_out = dumps.load(connection, manifest.databases[OURS], unpacked(parts, OURS))
        migrations.apply(connection, since)
        for statement in _stopping(settings, manifest):
            connection.execute(statement)
        if connection.execute(_OPEN_STILL).fetchone() != (0,):
            raise BadInput("the backup's latch could not be closed: its history is not one of ours")
    return tuple(migration.name for migration in since), left_out


def _restore_exchange(settings: Settings, parts: TarParts, manifest: Manifest) -> list[str]:
    """The paper exchange's database, and the key by which it knows this account; returns tables that were left out."""
    if not settings.keeps_paper_exchange:
        problem = "the backup holds the paper exchange's database, so this deployment must keep one too"
        raise BadSetting(f"{PREFIX}EXCHANGE_URL", problem, f"{PREFIX}PAPER_DATABASE_URL=postgresql://…")
    key = paper_key(parts)
    with dumps.filling(settings.paper_database_url.get_secret_value()) as connection:
        if not dumps.is_empty(connection):
            # Left by a restore that was cut short, or by an exchange whose ledger is gone: ours is empty.
            connection.execute("DROP SCHEMA public CASCADE")
            connection.execute("CREATE SCHEMA public")
        connection.execute(EXCHANGE_SCHEMA)
        left_out = dumps.load(connection, manifest.databases[EXCHANGE], unpacked(parts, EXCHANGE))
    for part, value in key:
        path = settings.secrets_dir / f"{PREFIX}paper_{part}".lower()
        path.unlink(missing_ok=True)
        path.touch(mode=0o600)
        path.write_text(value)
    return left_out


def _require_account(settings: Settings, parts: TarParts) -> None:
    """A key that the environment gives is stronger than the file just written."""
    if settings.exchange_api_key.get_secret_value() != paper_key(parts).api_key:
        problem = "is set to another key than that of the backup's paper account: unset it"
        raise BadSetting(f"{PREFIX}EXCHANGE_API_KEY", problem, f"the file {settings.secrets_dir}/…paper_api_key")


def _restore_models(settings: Settings, parts: TarParts) -> None:
    models = local_models(settings)
    for name in sorted(parts.names):
        path = PurePosixPath(name)
        if path.parts[0] != MODELS:
            continue
        if models is None:
            raise BadSetting(f"{PREFIX}MODEL_URL", "the backup holds model files, so it must be a file:// URL", "unset")
        target = models.joinpath(*path.parts[1:])
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with parts.open(name) as file, target.open("wb") as written:
            shutil.copyfileobj(file, written, 1 << 20)


def _stopping(settings: Settings, manifest: Manifest) -> list[sql.Composed]:
    """What makes the restored database safe: the latch of every account, the audit, and where the models lie now."""
    now, actor = datetime.now(UTC), _actor()
    reason = f"restored from the backup of {manifest.created_at}"
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
        "account": sql.Literal(settings.account_id), "created": sql.Literal(manifest.created_at),
        "old": sql.Literal(manifest.model_url), "new": sql.Literal(settings.model_url),
    }  # fmt: skip
    return [halt.format(**values), audit.format(**values), move.format(**values)]


def _actor() -> str:
    with suppress(KeyError, OSError):
        return getpass.getuser()
    return "unknown user"
