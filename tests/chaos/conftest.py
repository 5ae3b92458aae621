"""An exchange, a ledger and a cache of their own, because each of them is restarted while others use theirs."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.chaos.arena import Arena
from tests.chaos.markets import SYMBOLS
from tests.jobs.conftest import NOW_MS
from tests.support.paper_server import PaperServerProcess
from tradewind.adapters.migrations import migrate
from tradewind.stack.postgres import EmbeddedPostgres
from tradewind.stack.valkey import EmbeddedValkey


@pytest.fixture(scope="session")
def soak_minutes(request: pytest.FixtureRequest) -> float:
    """How long faults are drawn beyond the selection: `--soak MINUTES`."""
    return float(request.config.getoption("--soak"))


@pytest.fixture(scope="session")
def shared_arena(server_dir: Path, postgres_server: EmbeddedPostgres, valkey_server: EmbeddedValkey) -> Iterator[Arena]:
    """The exchange keeps its state on the session's PostgreSQL, the ledger lies on one that may be restarted."""
    ledger = EmbeddedPostgres(server_dir / "chaos", password=secrets.token_hex(8), durable=False)
    try:
        ledger.start()
        for server, name in ((ledger, "ledger"), (postgres_server, "chaos_exchange")):
            with psycopg.connect(server.url(), autocommit=True) as connection:
                connection.execute(f"CREATE DATABASE {name}")  # a constant above
        migrate(ledger.url("ledger"))
        with PaperServerProcess(postgres_server.url("chaos_exchange"), symbols=",".join(SYMBOLS)) as exchange:
            exchange.admin.set_clock(NOW_MS)
            yield Arena(exchange, ledger, ledger.url("ledger"), valkey_server.url())
    finally:
        ledger.stop()


@pytest.fixture
def arena(shared_arena: Arena) -> Iterator[Arena]:
    """The arena without faults; what a test opened there is closed after it."""
    yield shared_arena
    shared_arena.exchange.admin.clear_faults()
    shared_arena.close()
