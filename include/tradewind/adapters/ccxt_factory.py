"""The ccxt exchange object, made to keep to what ccxt 4.5 really does.

- Every host in `urls['api']` is rewritten when the exchange has an address of its own (the paper exchange), so that no
  call can reach the real one; the error table is then chosen by path instead of by host name.
- Binance's start-up needs one call, not five: currencies, margin pairs and futures markets are not asked for.
- ccxt's throttle knows its own process only; it is replaced by the bucket that all processes share.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import ccxt

from tradewind.errors import NotSupported

from .bounded_http import BoundedAdapter
from .ccxt_errors import CallRecord
from .rate_limit import RateLimiter

_CLASSES = {("binance", "usdm"): "binanceusdm"}
_MARKET_TYPES = {"spot": "spot", "usdm": "linear"}
_DEFAULT_TYPES = {"spot": "spot", "usdm": "swap"}
_TYPED_MARKETS = frozenset({"binance", "binanceusdm", "bybit", "okx", "bitget"})
# The first path component tells Binance's products apart on any host.
_ERROR_TABLES = {"fapi": "linear", "dapi": "inverse", "eapi": "option", "papi": "portfolioMargin"}
_HOST = re.compile(r"^https?://[^/]+")
_BAN_S = 120.0
_POOLED_CONNECTIONS = 32
_SHORT_ANSWER = 2_000
# The longest answers are the rules of all markets: some 15 MB unpacked.
_MAX_BYTES = 64_000_000
_WITHIN_S = 60.0


@dataclass(frozen=True, slots=True)
class ClientConfig:
    """What a client is built from.

    `base_url` replaces every host of the exchange; empty means the exchange's own. `weight_per_minute` is the request
    limit to keep to until the exchange has published its own, 0 for none at all. `symbols` are those whose rules are
    kept in the cache.
    """

    exchange_id: str = "binance"
    market_type: str = "spot"
    base_url: str = ""
    api_key: str = field(default="", repr=False)
    api_secret: str = field(default="", repr=False)
    api_passphrase: str = field(default="", repr=False)
    testnet: bool = False
    timeout_s: float = 10.0
    recv_window_ms: int = 5000
    weight_per_minute: float = 6000.0
    symbols: tuple[str, ...] = ()

    @property
    def burst_s(self) -> float:
        """How many seconds' weight may leave at once: Binance counts by the minute, the others by the second."""
        return 10.0 if self.exchange_id == "binance" else 1.0

    @property
    def limit_key(self) -> str:
        """Names the account whose limit is shared, without showing its key."""
        account = hashlib.sha256(f"{self.base_url}|{self.testnet}|{self.api_key}".encode()).hexdigest()[:12]
        return f"{self.exchange_id}:{self.market_type}:{account}"


class CallState(threading.local):
    """Each thread's own view of the call it is making."""

    def __init__(self) -> None:
        self.record = CallRecord()
        self.bulk = False
        self.signed_at_ms: int | None = None  # the timestamp of the request under way; None signs with the present


class _SharedLimits:
    """Mixed into a ccxt exchange class: throttle, error table and a record of what went over the wire."""

    limiter: RateLimiter | None
    state: CallState
    weight_per_cost: float
    published_weight_per_minute: float | None

    def throttle(self, cost: float | None = None) -> None:
        if self.limiter is not None:
            self.limiter.acquire((1.0 if cost is None else float(cost)) * self.weight_per_cost, bulk=self.state.bulk)

    def nonce(self) -> int:
        pinned_ms = self.state.signed_at_ms
        offset_ms: int = self.options.get("timeDifference") or 0  # type: ignore[attr-defined]
        return (self.milliseconds() if pinned_ms is None else pinned_ms) - offset_ms  # type: ignore[attr-defined]

    def fetch(self, url: str, method: str = "GET", headers: Any = None, body: Any = None) -> Any:
        self.state.record.sent = True
        answer = super().fetch(url, method, headers, body)  # type: ignore[misc]
        if urlsplit(url).path.endswith("/exchangeInfo") and isinstance(answer, dict):
            for limit in answer.get("rateLimits") or ():
                if limit.get("rateLimitType") == "REQUEST_WEIGHT" and limit.get("interval") == "MINUTE":
                    self.published_weight_per_minute = float(limit["limit"]) / float(limit.get("intervalNum") or 1)
        return answer

    def on_rest_response(
        self, code: int, reason: str, url: str, method: str, response_headers: Any, response_body: str,
        request_headers: Any, request_body: Any,
    ) -> str:  # fmt: skip
        record = self.state.record
        record.status = code
        # Short answers are kept too: some exchanges refuse under HTTP 200.
        record.body = response_body if code >= 400 or len(response_body) <= _SHORT_ANSWER else ""
        used = response_headers.get("X-MBX-USED-WEIGHT-1M")
        if used is not None and self.limiter is not None:
            self.limiter.observe(float(used))
        if code in (418, 429):
            record.retry_after_s = float(response_headers.get("Retry-After") or (_BAN_S if code == 418 else 10.0))
            if self.limiter is not None:
                self.limiter.block(record.retry_after_s)
        return response_body.strip()

    def get_exceptions_by_url(self, url: str | None, exact_or_broad: str) -> Any:
        tables: Mapping[str, Any] = self.exceptions  # type: ignore[attr-defined]
        first = urlsplit(url or "").path.lstrip("/").split("/")[0]
        return tables.get(_ERROR_TABLES.get(first, "spot"), {}).get(exact_or_broad, {})


def build_exchange(config: ClientConfig, limiter: RateLimiter | None, state: CallState | None = None) -> Any:
    """A ccxt exchange that keeps to the config. Raises NotSupported for an exchange that ccxt does not know."""
    name = _CLASSES.get((config.exchange_id, config.market_type), config.exchange_id)
    base = getattr(ccxt, name, None)
    if base is None or config.market_type not in _MARKET_TYPES:
        raise NotSupported(f"ccxt knows no exchange {config.exchange_id!r} for {config.market_type}")
    options: dict[str, Any] = {
        "defaultType": _DEFAULT_TYPES[config.market_type],
        "fetchCurrencies": False,
        "fetchMargins": False,
        "recvWindow": config.recv_window_ms,
        "adjustForTimeDifference": False,
    }
    if name in _TYPED_MARKETS:
        options["fetchMarkets"] = {"types": [_MARKET_TYPES[config.market_type]]}
    is_binance = name.startswith("binance")
    members: dict[str, Any] = {}
    if is_binance:
        # Its own version turns a wrong key into a rate limit after the first success; the code is clear enough.
        members["request"] = base.fetch2
    else:
        members["get_exceptions_by_url"] = getattr(base, "get_exceptions_by_url", None)
    exchange: Any = type(name, (_SharedLimits, base), {key: value for key, value in members.items() if value})(
        {
            "apiKey": config.api_key,
            "secret": config.api_secret,
            "password": config.api_passphrase,
            "timeout": int(config.timeout_s * 1000),
            "enableRateLimit": True,
            "options": options,
        }
    )
    exchange.limiter = limiter
    exchange.state = state or CallState()
    # A cost of 1 takes `rateLimit` milliseconds in ccxt; Binance's 6,000 a minute make a weight of 1 worth 10 ms.
    exchange.weight_per_cost = exchange.rateLimit / 10
    exchange.published_weight_per_minute = None
    exchange.has["fetchCurrencies"] = False
    if config.base_url:
        exchange.urls["api"] = _rewrite(exchange.urls["api"], config.base_url.rstrip("/"))
        if is_binance and config.api_key:
            # Also where none is asked for: the paper exchange then counts us apart from others at the same address.
            exchange.headers = {"X-MBX-APIKEY": config.api_key}
    elif config.testnet and config.market_type == "usdm":
        exchange.enable_demo_trading(True)  # what became of the futures testnet
    elif config.testnet:
        try:
            exchange.set_sandbox_mode(True)
        except TypeError:  # there are no addresses to change to
            raise NotSupported(f"{config.exchange_id} has no testnet that ccxt knows") from None
    for scheme in ("http://", "https://"):
        exchange.session.mount(
            scheme, BoundedAdapter(max_bytes=_MAX_BYTES, within_s=_WITHIN_S, pool_maxsize=_POOLED_CONNECTIONS)
        )
    return exchange


def _rewrite(urls: Any, base_url: str) -> Any:
    if isinstance(urls, dict):
        return {name: _rewrite(url, base_url) for name, url in urls.items()}
    return _HOST.sub(base_url, urls) if isinstance(urls, str) else urls
