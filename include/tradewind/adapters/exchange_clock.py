"""Is the exchange in use there, and what time is it by its clock? One small request, answered without ccxt.

The processes that watch the others ask it every few seconds: ccxt would cost each of them four seconds to start and
90 MB. What is asked here is what ccxt's `fetch_time` asks of each exchange; the tests hold the two together.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import httpx

from tradewind.errors import ExchangeUnreachable, NotSupported

from .bounded_http import BoundedTransport

_MAX_BYTES: Final = 65_536
# By (exchange, market type): the host of its own, that of its testnet, the path of its clock.
_HOSTS: Final[Mapping[tuple[str, str], tuple[str, str, str]]] = {
    ("binance", "spot"): ("api.binance.com", "testnet.binance.vision", "/api/v3/time"),
    ("binance", "usdm"): ("fapi.binance.com", "demo-fapi.binance.com", "/fapi/v1/time"),
    ("okx", "spot"): ("www.okx.com", "www.okx.com", "/api/v5/public/time"),
    ("bybit", "spot"): ("api.bybit.com", "api-testnet.bybit.com", "/v5/market/time"),
    ("bitget", "spot"): ("api.bitget.com", "api.bitget.com", "/api/v2/public/time"),
}
_READERS: Final[Mapping[str, Callable[[Any], float]]] = {
    "binance": lambda told: float(told["serverTime"]),
    "okx": lambda told: float(told["data"][0]["ts"]),
    "bybit": lambda told: float(told["time"]),
    "bitget": lambda told: float(told["data"]["serverTime"]),
}


def clock_url(exchange: str, market_type: str, *, base_url: str = "", testnet: bool = False) -> str:
    """Where the exchange tells its time; `base_url` replaces its host. Raises NotSupported for one not traded here."""
    if (exchange, market_type) not in _HOSTS:
        raise NotSupported(f"{exchange} ({market_type}) is not traded here: its clock is not asked")
    own, test, path = _HOSTS[exchange, market_type]
    return f"{base_url.rstrip('/') or f'https://{test if testnet else own}'}{path}"


def ask_clock(url: str, exchange: str, timeout_s: float) -> tuple[float, float]:
    """(ms that the answer took, the exchange's time minus ours in ms). Raises ExchangeUnreachable without an answer."""
    transport = BoundedTransport(
        max_bytes=_MAX_BYTES, until=lambda: time.monotonic() + timeout_s, named_host=urlsplit(url).hostname or ""
    )
    before_ms = time.time() * 1000
    try:
        with httpx.Client(transport=transport, timeout=timeout_s) as client:
            answer = client.get(url)
        after_ms = time.time() * 1000
        if answer.status_code != httpx.codes.OK:
            raise ExchangeUnreachable(f"{exchange} answers with HTTP {answer.status_code}")
        told_ms = _READERS[exchange](answer.json())
    except httpx.HTTPError as error:
        raise ExchangeUnreachable(f"{exchange} does not answer ({type(error).__name__})") from None
    except (ValueError, TypeError, LookupError):
        raise ExchangeUnreachable(f"{exchange} answers with something that is no time") from None
    return after_ms - before_ms, told_ms - (before_ms + after_ms) / 2
