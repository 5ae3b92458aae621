"""An exchange, a ledger and a cache of their own, because each of them is restarted while others use theirs."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.chaos.arena import Arena
from tests.jobs.conftest import NOW_MS
from tests.support.paper_server import PaperServerProcess
from tradewind.adapters.migrations import migrate
from tradewind.stack.postgres import EmbeddedPostgres
from tradewind.stack.processes import free_port


@pytest.fixture(scope="session")
def soak_minutes(request: pytest.FixtureRequest) -> float:
    """How long faults are drawn beyond the selection: `--soak MINUTES`."""
    return float(request.config.getoption("--soak"))


@pytest.fixture
def arena(server_dir: Path, empty_postgres_url: str, valkey_url: str) -> Iterator[Arena]:
    """The exchange keeps its state on the session's PostgreSQL, the ledger lies on one that may be restarted."""
    ledger = EmbeddedPostgres(server_dir / "chaos", free_port(), password=secrets.token_hex(8), durable=False)
    try:
        ledger.start()
        with psycopg.connect(ledger.url(), autocommit=True) as connection:
            connection.execute("DROP DATABASE IF EXISTS ledger")
            connection.execute("CREATE DATABASE ledger")
        migrate(ledger.url("ledger"))
        with PaperServerProcess(empty_postgres_url) as exchange:
            exchange.admin.set_clock(NOW_MS)
            made = Arena(exchange, ledger, ledger.url("ledger"), valkey_url)
            yield made
            made.close()
    finally:
        ledger.stop()
