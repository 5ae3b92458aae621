"""The ledger of one account in PostgreSQL, whole: satisfies `core.ports.TradingStore`."""

from __future__ import annotations

from tradewind.adapters.decision_store import DecisionStore
from tradewind.adapters.payment_store import PaymentStore
from tradewind.adapters.safety_store import SafetyStore


class PgTradingStore(DecisionStore, PaymentStore, SafetyStore):
    """Decisions, orders, fills, payments, positions, latch and equity of one account under one strategy version."""
