"""The ledger of one account in PostgreSQL, whole: satisfies `core.ports.TradingStore`."""

from __future__ import annotations

from tradewind.adapters.decision_store import DecisionStore
from tradewind.adapters.equity_store import EquityStore
from tradewind.adapters.payment_store import PaymentStore
from tradewind.adapters.price_store import PriceStore
from tradewind.adapters.safety_store import SafetyStore


class PgTradingStore(DecisionStore, PaymentStore, SafetyStore, EquityStore, PriceStore):
    """Decisions, orders, fills, payments, positions, latch, equity and prices of one account under one version."""
