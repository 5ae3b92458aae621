"""The ledger of one account in PostgreSQL, whole: satisfies `core.ports.TradingStore`."""

from __future__ import annotations

from tradewind.adapters.decision_store import DecisionStore
from tradewind.adapters.order_store import OrderStore
from tradewind.adapters.safety_store import SafetyStore


class PgTradingStore(DecisionStore, OrderStore, SafetyStore):
    """Decisions, orders, fills, positions, latch and equity of one account under one strategy version."""
