"""Throw-away servers for a bench: a durable PostgreSQL and a Valkey of their own, gone afterwards."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg import sql

from tradewind.adapters.migrations import migrate
from tradewind.stack.postgres import EmbeddedPostgres, discard
from tradewind.stack.valkey import EmbeddedValkey


@contextmanager
def scratch_dir() -> Iterator[Path]:
    """A temporary directory that the unprivileged user of PostgreSQL reaches too."""
    with tempfile.TemporaryDirectory(prefix="tradewind-bench-", ignore_cleanup_errors=True) as name:
        directory = Path(name)
        directory.chmod(0o711)
        yield directory


@contextmanager
def scratch_postgres(directory: Path) -> Iterator[EmbeddedPostgres]:
    """A server with fsync on, tuned as the embedded stack's is."""
    server = EmbeddedPostgres(directory / "postgres", password=secrets.token_hex(8))
    try:
        server.start()
        yield server
    finally:
        server.stop()
        discard(directory / "postgres")


@contextmanager
def scratch_valkey(directory: Path) -> Iterator[EmbeddedValkey]:
    """A cache server without persistence."""
    server = EmbeddedValkey(directory / "valkey", password=secrets.token_hex(8))
    try:
        server.start()
        yield server
    finally:
        server.stop()


def scratch_database(server: EmbeddedPostgres, name: str, *, schema: bool = True) -> str:
    """Make a database on the server, with our schema unless told otherwise; returns its URL."""
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name)))
    url = server.url(name)
    if schema:
        migrate(url)
    return url
