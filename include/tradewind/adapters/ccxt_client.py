"""The one exchange client: calls under the shared limit, errors of ours, markets kept in the cache.

`read` and `send` raise our errors. Nothing here retries.
"""

from __future__ import annotations

import json
import logging
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any, TypeVar

import ccxt
from redis import Redis
from redis.exceptions import RedisError

from tradewind.core.types import Instrument
from tradewind.errors import ExchangeUnreachable, OutcomeUnknown, RetryError, UnknownSymbol
from tradewind.settings import Settings

from .ccxt_errors import UNREADABLE, CallRecord, is_rule_refusal, read_error, send_error
from .ccxt_factory import CallState, ClientConfig, build_exchange
from .ccxt_instruments import instrument_from_market
from .rate_limit import RateLimiter

__all__ = ["CcxtClient", "ClientConfig", "client_from_settings"]

_log = logging.getLogger(__name__)
T = TypeVar("T")

# Ticks, steps and listings change while a process runs: rules are read again when they are older than this,
_MARKETS_TTL_S = 300.0
# an unlisted symbol is looked for again after this,
_ABSENT_TTL_S = 60.0
# and they are read no more often than this, or than this while the exchange refuses orders by rules that are not ours.
_LEAST_AGE_S = 15.0
_LEAST_AGE_IN_DOUBT_S = 1.0


class CcxtClient:
    """An exchange client whose errors are ours; safe for several threads at once."""

    def __init__(self, config: ClientConfig, redis: Redis | None = None) -> None:
        self.config = config
        self.redis = redis
        self._state = CallState()
        self._markets_lock = threading.Lock()
        self._markets_at_s = -1e9  # when the exchange told them, on the monotonic clock
        self._tried_at_s = -1e9
        self._rules_doubted = False
        self._covered: frozenset[str] | None = frozenset()  # what the known markets speak of; None: all there are
        self._asked_for: set[str] = set()
        self._clock_is_stale = False
        self._sends = threading.local()

    @cached_property
    def exchange(self) -> Any:
        """The ccxt exchange itself; calls on it bypass the error mapping unless wrapped in `call`."""
        limiter = None
        if self.config.weight_per_minute > 0:
            limiter = RateLimiter(
                self.redis, self.config.limit_key, self.config.weight_per_minute, burst_s=self.config.burst_s
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
            except UNREADABLE as error:
                raise ExchangeUnreachable(f"{what}: the answer cannot be read ({type(error).__name__})") from error

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
                self._rules_doubted |= is_rule_refusal(record.code)
                raise send_error(error, record, what, client_order_id) from None
            except UNREADABLE as error:
                raise OutcomeUnknown(
                    f"{what}: the answer cannot be read ({type(error).__name__})", client_order_id
                ) from error
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
    def _name(self, symbol: str) -> str:
        """What ccxt calls one of our symbols."""
        return symbol

    def market_id(self, symbol: str) -> str:
        """The exchange's own name of a symbol. Raises UnknownSymbol."""
        return str(self.market(symbol)["id"])

    def market(self, symbol: str) -> Mapping[str, Any]:
        """ccxt's market structure of a symbol. Raises UnknownSymbol."""
        found = self._listed_markets([symbol])
        if symbol not in found:
            raise UnknownSymbol(f"{self.config.exchange_id} does not list {symbol}: correct TRADEWIND_SYMBOLS")
        return found[symbol]

    def asset(self, name: Any, *, free_of_charge: str = "") -> str:
        """Our name for one of the exchange's assets, as symbols have it: okx's AE is AET there.

        Where a commission of nothing names no asset it is told in `free_of_charge`.
        """
        return str(self.exchange.safe_currency_code(str(name))) if name else free_of_charge

    def listed(self, symbols: Sequence[str]) -> dict[str, str]:
        """Those of our symbols that the exchange lists, by its own name of each."""
        return {str(market["id"]): symbol for symbol, market in self._listed_markets(symbols).items()}

    def instruments(self, symbols: Sequence[str]) -> dict[str, Instrument]:
        """The rules of each symbol that the exchange lists; a symbol it does not list is absent."""
        return {
            symbol: instrument_from_market(market, attached_brackets=self._attaches_brackets(market["symbol"]))
            for symbol, market in self._listed_markets(symbols).items()
        }

    def load_markets(self, symbols: Sequence[str] = ()) -> None:
        """Make the markets known to the ccxt exchange: from this process, else the cache, else one call."""
        self._markets([self._name(symbol) for symbol in symbols])

    def doubt_rules(self) -> None:
        """Read the markets from the exchange before they are used next: something contradicted them."""
        self._rules_doubted = True

    def _attaches_brackets(self, symbol: str) -> bool:
        return bool(self.exchange.feature_value(symbol, "createOrder", "attachedStopLossTakeProfit"))

    def _listed_markets(self, symbols: Sequence[str]) -> dict[str, Mapping[str, Any]]:
        names = {symbol: self._name(symbol) for symbol in symbols}
        markets = self._markets(list(names.values()))
        return {symbol: markets[name] for symbol, name in names.items() if name in markets}

    def _markets(self, symbols: Sequence[str]) -> Mapping[str, Any]:
        self._asked_for.update(symbols)
        if self._are_fresh(symbols):
            return self.exchange.markets  # type: ignore[no-any-return]
        # Old rules are better than none: only one thread waits for new ones, and their failure is no one's failure.
        old_will_do = self._speak_of(symbols)
        if self._markets_lock.acquire(blocking=not old_will_do):
            try:
                if not self._are_fresh(symbols) and not self._take_cached(symbols):
                    self._read_markets(old_will_do=old_will_do)
            finally:
                self._markets_lock.release()
        return self.exchange.markets  # type: ignore[no-any-return]

    def _speak_of(self, symbols: Sequence[str]) -> bool:
        return bool(self.exchange.markets) and (self._covered is None or self._covered.issuperset(symbols))

    def _are_fresh(self, symbols: Sequence[str]) -> bool:
        if not self._speak_of(symbols):
            return False
        now_s = time.monotonic()
        least_age_s = _LEAST_AGE_IN_DOUBT_S if self._rules_doubted else _LEAST_AGE_S
        if now_s - max(self._markets_at_s, self._tried_at_s) < least_age_s:
            return True
        lasts_s = _MARKETS_TTL_S if all(symbol in self.exchange.markets for symbol in symbols) else _ABSENT_TTL_S
        return not self._rules_doubted and now_s - self._markets_at_s < lasts_s

    def _read_markets(self, *, old_will_do: bool) -> None:
        self._tried_at_s = time.monotonic()
        try:
            self.call("load_markets", lambda: self.exchange.load_markets(True))
        except RetryError as error:
            if not old_will_do:
                raise
            _log.warning("The rules of the markets are those of a while ago: %s", error)
            return
        self._markets_at_s, self._covered, self._rules_doubted = time.monotonic(), None, False
        self._keep_to(self.exchange.published_weight_per_minute)
        self._cache_markets()

    def _keep_to(self, weight_per_minute: float | None) -> None:
        limiter = self.exchange.limiter
        if limiter is not None and weight_per_minute and weight_per_minute != limiter.weight_per_minute:
            limiter.set_limit(weight_per_minute)

    @property
    def _markets_key(self) -> str:
        return f"tradewind:markets:2:{self.config.limit_key}"

    def _take_cached(self, symbols: Sequence[str]) -> bool:
        """Adopt what another process was told, where that speaks of these symbols and is newer than our own."""
        if self.redis is None or self._rules_doubted:
            return False
        try:
            packed = self.redis.get(self._markets_key)
        except RedisError as error:
            _log.info("The cache is away (%s): markets are loaded from the exchange", type(error).__name__)
            return False
        if not isinstance(packed, bytes):
            return False
        cached = json.loads(zlib.decompress(packed))
        at_s = time.monotonic() - max(0.0, time.time() - cached["at_s"])
        covered, listed = frozenset(cached["covered"]), cached["markets"]
        lasts_s = _MARKETS_TTL_S if all(symbol in listed for symbol in symbols) else _ABSENT_TTL_S
        is_of_use = covered.issuperset(symbols) and at_s > self._markets_at_s and time.monotonic() - at_s < lasts_s
        if is_of_use and listed:
            self.exchange.set_markets(list(listed.values()))
            self._markets_at_s, self._covered = at_s, covered
            self._keep_to(cached["weight_per_minute"])
        return is_of_use and bool(listed)

    def _cache_markets(self) -> None:
        if self.redis is None:
            return
        covered = sorted({*(self.config.symbols or self.exchange.markets), *self._asked_for})
        told = {
            "at_s": time.time(),
            "weight_per_minute": self.exchange.published_weight_per_minute,
            "covered": covered,
            "markets": {name: self.exchange.markets[name] for name in covered if name in self.exchange.markets},
        }
        try:
            self.redis.set(self._markets_key, zlib.compress(json.dumps(told).encode(), 1), ex=int(_MARKETS_TTL_S))
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
