"""A ccxt client of the futures side of a paper exchange."""

from __future__ import annotations

from typing import Any

import ccxt

from tests.support.paper_server import PaperServerProcess
from tradewind.paper.admin import PaperAccount


def futures_client(server: PaperServerProcess, account: PaperAccount | None = None) -> ccxt.binanceusdm:
    """binanceusdm as it comes, but for the address of its hosts."""
    found = ccxt.binanceusdm({"enableRateLimit": False, "options": {"fetchCurrencies": False}})
    if account is not None:
        found.apiKey, found.secret = account.api_key, account.api_secret
    for name, url in found.urls["api"].items():
        if isinstance(url, str) and url.startswith("https://"):
            found.urls["api"][name] = server.url + "/" + url.split("/", 3)[3]
    found.get_exceptions_by_url = _by_path(found)
    return found


def _by_path(client: ccxt.binanceusdm) -> Any:
    """ccxt chooses its table of errors by host name; on another host the path tells."""
    return lambda url, kind: client.exceptions["linear" if "/fapi/" in url else "spot"].get(kind, {})


def futures_account(server: PaperServerProcess, money: str = "10000") -> PaperAccount:
    return server.admin.create_account({"USDT": "1000"}, futures_balances={"USDT": money})
