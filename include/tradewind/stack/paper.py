"""The paper exchange alone, for clients of any kind: with its own small PostgreSQL, beside whatever stack is up."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tradewind.settings import load_settings
from tradewind.stack.processes import free_port
from tradewind.stack.stack import running_stack, with_secrets


@contextmanager
def running_paper_exchange(*, port: int | None = None, market: str = "synthetic") -> Iterator[dict[str, str]]:
    """The exchange with a fresh account inside the block: its `url`, `api_key` and `api_secret`."""
    configured = load_settings()
    overrides: dict[str, Any] = {
        "mode": "demo",
        "market": market,
        "home_dir": configured.home_dir / "paper-alone",
        "exchange_port": port or configured.exchange_port,
        "postgres_port": free_port(),
        # A key that was never used before: what an earlier client did is not this one's history.
        "exchange_api_key": secrets.token_hex(32),
        "exchange_api_secret": secrets.token_hex(32),
    }
    settings = with_secrets(**overrides)
    with running_stack(settings, parts={"postgres", "exchange"}, fresh=True):
        yield {
            "url": settings.exchange_url,
            "api_key": settings.exchange_api_key.get_secret_value(),
            "api_secret": settings.exchange_api_secret.get_secret_value(),
        }
