"""The ledger of one account in PostgreSQL, whole: satisfies `core.ports.TradingStore`."""

from __future__ import annotations

from tradewind.adapters.decision_store import DecisionStore
from tradewind.adapters.equity_store import EquityStore
from tradewind.adapters.price_store import PriceStore
from tradewind.adapters.write_off_store import WriteOffStore


class PgTradingStore(DecisionStore, WriteOffStore, EquityStore, PriceStore):
    """All rows of one account and strategy: decisions, orders, fills, payments, positions, write-offs, latch, money."""
