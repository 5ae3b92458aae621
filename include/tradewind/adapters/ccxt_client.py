"""The one exchange client: calls under the shared limit, errors of ours, markets kept in the cache.

`read` and `send` raise our errors. Nothing here retries.
"""

from __future__ import annotations

import json
import logging
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any, TypeVar

import ccxt
from redis import Redis
from redis.exceptions import RedisError

from tradewind.core.types import Instrument
from tradewind.errors import UnknownSymbol
from tradewind.settings import Settings

from .ccxt_errors import CallRecord, read_error, send_error
from .ccxt_factory import CallState, ClientConfig, build_exchange
from .ccxt_instruments import instrument_from_market
from .rate_limit import RateLimiter

__all__ = ["CcxtClient", "ClientConfig", "client_from_settings"]

_log = logging.getLogger(__name__)
T = TypeVar("T")

_MARKETS_TTL_S = 600


class CcxtClient:
    """An exchange client whose errors are ours; safe for several threads at once."""

    def __init__(self, config: ClientConfig, redis: Redis | None = None) -> None:
        self.config = config
        self._redis = redis
        self._state = CallState()
        self._markets_lock = threading.Lock()
        self._clock_is_stale = False
        self._sends = threading.local()

    @cached_property
    def exchange(self) -> Any:
        """The ccxt exchange itself; calls on it bypass the error mapping unless wrapped in `call`."""
        limiter = None
        if self.config.weight_per_minute > 0:
            limiter = RateLimiter(
                self._redis, self.config.limit_key, self.config.weight_per_minute, burst_s=self.config.burst_s
            )
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
            self._state.signed_at_ms = getattr(self._sends, "at_ms", None)
            try:
                return function()
            except ccxt.BaseError as error:
                self._clock_is_stale |= isinstance(error, ccxt.InvalidNonce)
                raise send_error(error, record, what, client_order_id) from None
            finally:
                self._state.signed_at_ms = None

    @contextmanager
    def signed_at(self, moment_ms: int) -> Iterator[None]:
        """Within, this thread's sends carry this timestamp of our clock, however late they leave.

        The exchange refuses them once the receive window after it is over. So a process that was suspended between
        committing a send and sending it cannot send what others have meanwhile concluded to be absent.
        """
        self._sends.at_ms = moment_ms
        try:
            yield
        finally:
            self._sends.at_ms = None

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
    return CcxtClient(config_from_settings(settings), redis)


def config_from_settings(settings: Settings) -> ClientConfig:
    """What the client of one deployment is built from."""
    return ClientConfig(
        exchange_id=settings.exchange,
        market_type=settings.market_type,
        base_url=settings.exchange_url,
        api_key=settings.exchange_api_key.get_secret_value(),
        api_secret=settings.exchange_api_secret.get_secret_value(),
        api_passphrase=settings.exchange_api_passphrase.get_secret_value(),
        testnet=settings.mode == "testnet",
        symbols=settings.symbols,
    )
