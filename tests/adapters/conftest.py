"""The ledger of one account on a database of its own."""

from __future__ import annotations

import pytest

from tradewind.adapters.database import Database
from tradewind.adapters.trading_store import PgTradingStore
from tradewind.core.params import StrategyParams


@pytest.fixture
def store(database: Database) -> PgTradingStore:
    return PgTradingStore(database, "main", StrategyParams().strategy_version)
