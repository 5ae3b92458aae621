"""The paper exchange alone, for clients of any kind: with its own small PostgreSQL, beside whatever stack is up."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import ROUND_DOWN, Decimal
from typing import Any

import httpx

from tradewind.paper.admin import PaperAccount, PaperAdmin
from tradewind.settings import Settings, load_settings
from tradewind.stack.stack import running_stack, with_secrets

_BASE_WORTH_QUOTE = Decimal(2_000)
"""A little of each base asset, so that a client can sell, and rest a sell order, from the first moment."""
_BASE_STEP = Decimal("0.001")


@contextmanager
def running_paper_exchange(*, port: int | None = None, market: str = "synthetic") -> Iterator[dict[str, str]]:
    """The exchange with a fresh account inside the block: its `url`, `api_key` and `api_secret`.

    The account holds the configured paper capital and a little of each base asset. The synthetic and replayed markets
    begin from empty databases; the public one keeps what it knows of the real exchange's rules.
    """
    configured = load_settings()
    is_public = market == "public"
    overrides: dict[str, Any] = {
        "mode": "paper" if is_public else "demo",
        "market": market,
        "home_dir": configured.home_dir / "paper-alone",
        "exchange_port": port or configured.exchange_port,
        # A key that was never used before: what an earlier client did is not this one's history.
        "exchange_api_key": secrets.token_hex(32),
        "exchange_api_secret": secrets.token_hex(32),
    }
    settings = with_secrets(**overrides)
    with running_stack(settings, parts={"postgres", "exchange"}, fresh=not is_public):
        account = _fresh_account(settings)
        yield {"url": settings.exchange_url, "api_key": account.api_key, "api_secret": account.api_secret}


def _fresh_account(settings: Settings) -> PaperAccount:
    """An account of its own with money to buy and something to sell; bases without a price yet are left out."""
    balances: dict[str, Decimal] = {}
    with httpx.Client(base_url=settings.exchange_url, timeout=10) as client:
        for listed in client.get("/api/v3/exchangeInfo").raise_for_status().json()["symbols"]:
            balances[listed["quoteAsset"]] = settings.paper_capital_quote
            answer = client.get("/api/v3/ticker/price", params={"symbol": listed["symbol"]})
            if answer.status_code == httpx.codes.OK:
                quantity = _BASE_WORTH_QUOTE / Decimal(answer.json()["price"])
                balances[listed["baseAsset"]] = max(quantity.quantize(_BASE_STEP, ROUND_DOWN), _BASE_STEP)
    with PaperAdmin(settings.exchange_url, settings.exchange_admin_token.get_secret_value()) as admin:
        wallet = {settings.quote_currency: settings.paper_capital_quote}
        return admin.create_account(balances, futures_balances=wallet)
