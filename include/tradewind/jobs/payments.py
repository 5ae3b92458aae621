"""Payments of a futures account beside its trades, taken into the ledger: funding, and what the insurance moved.

A mark of no amount says from when on they are the ledger's: whatever was paid before lies in the baseline.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from decimal import Decimal
from typing import Final

from tradewind.core.ports import Ports
from tradewind.core.types import Instrument, Payment

_MARK: Final = "begin"
# A payment may be listed a little after it was made; one that is known already is not inserted twice.
_MARGIN: Final = timedelta(minutes=5)


def is_margined(instruments: Mapping[str, Instrument]) -> bool:
    """Is it a futures account that trades these markets?"""
    return any(instrument.margin is not None for instrument in instruments.values())


def mark_beginning(ports: Ports) -> None:
    """Count payments from this moment of the market's clock on; a mark that stands already stays."""
    symbol = ports.symbols[0]
    mark = Payment(ports.account, _MARK, symbol, _MARK, symbol.split("/")[1], Decimal(0), ports.clock.now())
    ports.trading_store.insert_payments([mark])


def ingest_payments(ports: Ports) -> int:
    """Insert what was paid since the newest payment known; returns how many were new.

    Raises RetryError when the exchange does not answer.
    """
    since = ports.trading_store.last_payment_at()
    if since is None:
        mark_beginning(ports)
        return 0
    begun = ports.trading_store.payments_begin()
    found = [p for p in ports.exchange.payments_since(since - _MARGIN) if begun is None or p.at >= begun]
    return ports.trading_store.insert_payments(found) if found else 0
