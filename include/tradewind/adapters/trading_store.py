"""The ledger of one account in PostgreSQL, whole: satisfies `core.ports.TradingStore`."""

from __future__ import annotations

from tradewind.adapters.decision_store import DecisionStore
from tradewind.adapters.write_off_store import WriteOffStore


class PgTradingStore(DecisionStore, WriteOffStore):
    """Decisions, orders, fills, positions, payments, write-offs, latch and equity of one account and strategy."""
