"""Every read of the status app, as named SQL over one account."""

from __future__ import annotations

from .ledger_queries import LedgerQueries
from .reader import Row, Snapshot, Window
from .signal_queries import SignalQueries

__all__ = ["Queries", "Row", "Snapshot", "Window"]


class Queries(LedgerQueries, SignalQueries):
    """All reads of one account."""
