"""All endpoints of the futures side: importing this module fills the table with them."""

from __future__ import annotations

from tradewind.paper import (
    futures_account_endpoints,
    futures_algo_endpoints,
    futures_market_endpoints,
    futures_order_endpoints,
    futures_wallet_endpoints,
)

REGISTERED = (
    futures_account_endpoints,
    futures_algo_endpoints,
    futures_market_endpoints,
    futures_order_endpoints,
    futures_wallet_endpoints,
)
