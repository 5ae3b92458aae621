"""The one ccxt client: hosts, rate limit, error mapping and markets, made to keep to what ccxt 4.5 really does.

- Every host in `urls['api']` is rewritten when the exchange has an address of its own (the paper exchange), so that no
  call can reach the real one; the error table is then chosen by path instead of by host name.
- Binance's start-up needs one call, not five: currencies, margin pairs and futures markets are not asked for.
- ccxt's throttle knows its own process only; it is replaced by the bucket that all processes share.
- `read` and `send` raise our errors. Nothing here retries.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar
from urllib.parse import urlsplit

import ccxt
from redis import Redis
from redis.exceptions import RedisError
from requests.adapters import HTTPAdapter

from tradewind.core.types import Instrument
from tradewind.errors import NotSupported, UnknownSymbol
from tradewind.settings import Settings

from .ccxt_errors import CallRecord, read_error, send_error
from .ccxt_instruments import instrument_from_market
from .rate_limit import RateLimiter

_log = logging.getLogger(__name__)
T = TypeVar("T")

_CLASSES = {("binance", "usdm"): "binanceusdm"}
_MARKET_TYPES = {"spot": "spot", "usdm": "linear"}
_DEFAULT_TYPES = {"spot": "spot", "usdm": "swap"}
_TYPED_MARKETS = frozenset({"binance", "binanceusdm", "bybit", "okx"})
# The first path component tells Binance's products apart on any host.
_ERROR_TABLES = {"fapi": "linear", "dapi": "inverse", "eapi": "option", "papi": "portfolioMargin"}
_HOST = re.compile(r"^https?://[^/]+")
_BAN_S = 120.0
_POOLED_CONNECTIONS = 32
_MARKETS_TTL_S = 600


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
    testnet: bool = False
    timeout_s: float = 10.0
    recv_window_ms: int = 5000
    weight_per_minute: float = 6000.0
    symbols: tuple[str, ...] = ()

    @property
    def limit_key(self) -> str:
        """Names the account whose limit is shared, without showing its key."""
        account = hashlib.sha256(f"{self.base_url}|{self.testnet}|{self.api_key}".encode()).hexdigest()[:12]
        return f"{self.exchange_id}:{self.market_type}:{account}"


class _CallState(threading.local):
    """Each thread's own view of the call it is making."""

    def __init__(self) -> None:
        self.record = CallRecord()
        self.bulk = False


class _SharedLimits:
    """Mixed into a ccxt exchange class: throttle, error table and a record of what went over the wire."""

    limiter: RateLimiter | None
    state: _CallState
    weight_per_cost: float
    published_weight_per_minute: float | None

    def throttle(self, cost: float | None = None) -> None:
        if self.limiter is not None:
            self.limiter.acquire((1.0 if cost is None else float(cost)) * self.weight_per_cost, bulk=self.state.bulk)

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
        record.body = response_body if code >= 400 else ""
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


def build_exchange(config: ClientConfig, limiter: RateLimiter | None, state: _CallState | None = None) -> Any:
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
            "timeout": int(config.timeout_s * 1000),
            "enableRateLimit": True,
            "options": options,
        }
    )
    exchange.limiter = limiter
    exchange.state = state or _CallState()
    # A cost of 1 takes `rateLimit` milliseconds in ccxt; Binance's 6,000 a minute make a weight of 1 worth 10 ms.
    exchange.weight_per_cost = exchange.rateLimit / 10
    exchange.published_weight_per_minute = None
    exchange.has["fetchCurrencies"] = False
    if config.base_url:
        exchange.urls["api"] = _rewrite(exchange.urls["api"], config.base_url.rstrip("/"))
    elif config.testnet:
        exchange.set_sandbox_mode(True)
    for scheme in ("http://", "https://"):
        exchange.session.mount(scheme, HTTPAdapter(pool_maxsize=_POOLED_CONNECTIONS))
    return exchange


def _rewrite(urls: Any, base_url: str) -> Any:
    if isinstance(urls, dict):
        return {name: _rewrite(url, base_url) for name, url in urls.items()}
    return _HOST.sub(base_url, urls) if isinstance(urls, str) else urls


class CcxtClient:
    """An exchange client whose errors are ours; safe for several threads at once."""

    def __init__(self, config: ClientConfig, redis: Redis | None = None) -> None:
        self.config = config
        self._redis = redis
        self._state = _CallState()
        self._markets_lock = threading.Lock()
        self._clock_is_stale = False

    @cached_property
    def exchange(self) -> Any:
        """The ccxt exchange itself; calls on it bypass the error mapping unless wrapped in `call`."""
        limiter = None
        if self.config.weight_per_minute > 0:
            limiter = RateLimiter(self._redis, self.config.limit_key, self.config.weight_per_minute)
        return build_exchange(self.config, limiter, self._state)

    # --------------------------------------------------------------------------------------------------------- calls
    def read(self, method: str, params: Mapping[str, Any] | None = None, *, bulk: bool = False) -> Any:
        """Call one of ccxt's implicit methods that change nothing, such as `public_get_klines`.

        Raises a RetryError when the exchange did not answer usefully, a StopError when it refused; an order that it
        does not know is OrderRejected with the code (-2013 or -2011 on Binance).
        """
        return self.call(method, lambda: getattr(self.exchange, method)(dict(params or {})), bulk=bulk)

    def call(self, what: str, function: Callable[[], T], *, bulk: bool = False) -> T:
        """Run any reading calls of the ccxt exchange under the same error mapping; `what` names them in messages."""
        if self._clock_is_stale:
            self.synchronise_clock()
        with self._recorded(bulk) as record:
            try:
                return function()
            except ccxt.BaseError as error:
                self._clock_is_stale |= isinstance(error, ccxt.InvalidNonce)
                raise read_error(error, record, what) from None

    def send(self, method: str, params: Mapping[str, Any], *, client_order_id: str) -> Any:
        """Call one of ccxt's implicit methods that change something, once.

        Raises OutcomeUnknown when the exchange may have acted, OrderRejected when it certainly did not; RateLimited and
        ClockSkewed also mean that it did not.
        """
        return self.send_call(method, lambda: getattr(self.exchange, method)(dict(params)), client_order_id)

    def send_call(self, what: str, function: Callable[[], T], client_order_id: str) -> T:
        """Run one sending call of the ccxt exchange under the same error mapping."""
        if self._clock_is_stale:
            self.synchronise_clock()
        with self._recorded(bulk=False) as record:
            try:
                return function()
            except ccxt.BaseError as error:
                self._clock_is_stale |= isinstance(error, ccxt.InvalidNonce)
                raise send_error(error, record, what, client_order_id) from None

    @contextmanager
    def _recorded(self, bulk: bool) -> Iterator[CallRecord]:
        self._state.record, self._state.bulk = CallRecord(), bulk
        try:
            yield self._state.record
        finally:
            self._state.bulk = False

    # ---------------------------------------------------------------------------------------------------------- time
    def clock_offset_ms(self, samples: int = 3) -> float:
        """Exchange's time minus ours, over the fastest of a few round trips."""
        best_trip_ms, offset_ms = float("inf"), 0.0
        for _ in range(samples):
            with self._recorded(bulk=False) as record:
                before = self.exchange.milliseconds()
                try:
                    server = self.exchange.fetch_time()
                except ccxt.BaseError as error:
                    raise read_error(error, record, "fetch_time") from None
                after = self.exchange.milliseconds()
            if after - before < best_trip_ms:
                best_trip_ms, offset_ms = after - before, server - (before + after) / 2
        return offset_ms

    def synchronise_clock(self) -> None:
        """Sign with the exchange's time from now on; called by itself after a refused timestamp."""
        self.exchange.options["timeDifference"] = -round(self.clock_offset_ms())
        self._clock_is_stale = False

    # ------------------------------------------------------------------------------------------------------- markets
    def market_id(self, symbol: str) -> str:
        """The exchange's own name of a symbol. Raises UnknownSymbol."""
        return str(self.market(symbol)["id"])

    def market(self, symbol: str) -> Mapping[str, Any]:
        """ccxt's market structure of a symbol. Raises UnknownSymbol."""
        markets = self._markets([symbol])
        if symbol not in markets:
            raise UnknownSymbol(f"{self.config.exchange_id} does not list {symbol}: correct TRADEWIND_SYMBOLS")
        market: Mapping[str, Any] = markets[symbol]
        return market

    def instruments(self, symbols: Sequence[str]) -> dict[str, Instrument]:
        """The rules of each symbol that the exchange lists; a symbol it does not list is absent."""
        markets = self._markets(symbols)
        return {
            symbol: instrument_from_market(markets[symbol], attached_brackets=self._attaches_brackets(symbol))
            for symbol in symbols
            if symbol in markets
        }

    def load_markets(self, symbols: Sequence[str] = ()) -> None:
        """Make the markets known to the ccxt exchange: from this process, else the cache, else one call."""
        self._markets(symbols)

    def _attaches_brackets(self, symbol: str) -> bool:
        return bool(self.exchange.feature_value(symbol, "createOrder", "attachedStopLossTakeProfit"))

    def _markets(self, symbols: Sequence[str]) -> Mapping[str, Any]:
        with self._markets_lock:
            known = self.exchange.markets
            if known and all(symbol in known for symbol in symbols):
                return known  # type: ignore[no-any-return]
            if not known:
                cached = self._cached_markets()
                if cached and all(symbol in cached["markets"] for symbol in symbols):
                    self.exchange.set_markets(list(cached["markets"].values()))
                    self._keep_to(cached["weight_per_minute"])
                    return self.exchange.markets  # type: ignore[no-any-return]
            self.call("load_markets", lambda: self.exchange.load_markets(True))
            self._keep_to(self.exchange.published_weight_per_minute)
            self._cache_markets()
            return self.exchange.markets  # type: ignore[no-any-return]

    def _keep_to(self, weight_per_minute: float | None) -> None:
        limiter = self.exchange.limiter
        if limiter is not None and weight_per_minute and weight_per_minute != limiter.weight_per_minute:
            limiter.set_limit(weight_per_minute)

    @property
    def _markets_key(self) -> str:
        return f"tradewind:markets:{self.config.limit_key}"

    def _cached_markets(self) -> dict[str, Any]:
        if self._redis is None:
            return {}
        try:
            packed = self._redis.get(self._markets_key)
        except RedisError as error:
            _log.info("The cache is away (%s): markets are loaded from the exchange", type(error).__name__)
            return {}
        return json.loads(zlib.decompress(packed)) if isinstance(packed, bytes) else {}

    def _cache_markets(self) -> None:
        if self._redis is None:
            return
        wanted = self.config.symbols or tuple(self.exchange.markets)
        kept = {symbol: self.exchange.markets[symbol] for symbol in wanted if symbol in self.exchange.markets}
        try:
            known = {"weight_per_minute": self.exchange.published_weight_per_minute, "markets": kept}
            self._redis.set(self._markets_key, zlib.compress(json.dumps(known).encode(), 1), ex=_MARKETS_TTL_S)
        except RedisError as error:
            _log.info("The cache is away (%s): each process loads markets itself", type(error).__name__)


def client_from_settings(settings: Settings, redis: Redis | None) -> CcxtClient:
    """The client of one deployment."""
    return CcxtClient(
        ClientConfig(
            exchange_id=settings.exchange,
            market_type=settings.market_type,
            base_url=settings.exchange_url,
            api_key=settings.exchange_api_key.get_secret_value(),
            api_secret=settings.exchange_api_secret.get_secret_value(),
            testnet=settings.mode == "testnet",
            symbols=settings.symbols,
        ),
        redis,
    )
