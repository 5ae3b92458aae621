"""The ledger of one account on a database of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tradewind.adapters.database import Database
from tradewind.adapters.trading_store import PgTradingStore
from tradewind.core.params import StrategyParams


@pytest.fixture
def database(postgres_url: str) -> Iterator[Database]:
    database = Database(postgres_url)
    yield database
    database.close()


@pytest.fixture
def store(database: Database) -> PgTradingStore:
    return PgTradingStore(database, "main", StrategyParams().strategy_version)
