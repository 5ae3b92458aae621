"""What every store of one account shares: the database, the account, the strategy version."""

from __future__ import annotations

from typing import Any

from psycopg.types.json import Jsonb

from tradewind.adapters.database import Database
from tradewind.core.codec import encode


class AccountStore:
    """Rows of one account under one strategy version."""

    def __init__(self, database: Database, account: str, strategy_version: str) -> None:
        self._database = database
        self.account = account
        self.strategy_version = strategy_version


def as_json(value: Any) -> Jsonb:
    """A value of ours as a jsonb parameter that decodes to an equal value."""
    return Jsonb(encode(value))
