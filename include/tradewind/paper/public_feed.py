"""The real exchange's public prices, polled: they open the market, move it, and by their absence close it.

Once a second the best prices and the last minutes' candles of every symbol are fetched from the public REST API. Each
answer becomes an observation that resting orders meet. Without a good answer for some seconds, or when the exchange
itself says that a symbol is not trading, the symbol is in a break: orders are refused, nothing is filled, and market
data answers an error. Nothing is ever made up in between.

Questions about the market (candles, depth, tickers, trades) are passed on and answered with the exchange's own bytes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import Any, Final

import httpx
import orjson

from tradewind.core.matching_rules import SymbolRules
from tradewind.paper.dialect import ApiError
from tradewind.paper.exchange import PaperExchange
from tradewind.paper.markets import MINUTE_MS
from tradewind.paper.markets_public import Observation, PublicView

log = logging.getLogger(__name__)

RELAYED: Final = frozenset(
    "/api/v3/" + name
    for name in (
        "klines", "uiKlines", "depth", "trades", "historicalTrades", "aggTrades", "avgPrice", "ticker/price",
        "ticker/bookTicker", "ticker/24hr", "ticker/tradingDay", "ticker",
    )
)  # fmt: skip
_MANY = ("/api/v3/ticker/price", "/api/v3/ticker/bookTicker", "/api/v3/ticker/24hr")
"""Paths that mean every symbol when none is named: then ours are named, not the thousands of the real exchange."""
_TIMEOUT_S = 5.0
_LONGEST_WAIT_S = 30.0
_RULES_EVERY_S = 300.0
_FRESHEN_S = 0.25
_MINUTES = 6
_OLDEST_MINUTE_MS = 3 * MINUTE_MS
Wall = Callable[[], int]


class PublicFeed:
    """Polls `url` for one exchange. `stale_s` without a good answer breaks the market off."""

    def __init__(
        self, exchange: PaperExchange, url: str, wall: Wall, poll_s: float = 1.0, stale_s: float = 10.0
    ) -> None:
        assert isinstance(exchange.view, PublicView)
        self._exchange = exchange
        self._view = exchange.view
        self._wall = wall
        self._poll_s = poll_s
        self._stale_ms = round(stale_s * 1000)
        self._client = httpx.AsyncClient(base_url=url, timeout=_TIMEOUT_S)
        self._lock = asyncio.Lock()
        self._good_ms: dict[str, int] = {}
        self._minutes: dict[str, tuple[int, int, int]] = {}  # open time, high and low of the newest minute seen
        self._not_trading: set[str] = set()
        self._rules_ms = 0
        self._polled_ms = 0
        self._failures = 0
        self._quiet_until_ms = 0  # the exchange asked not to be asked before then

    async def run(self) -> None:
        """Poll for ever; failures lengthen the pause, up to half a minute."""
        while True:
            wait_s = self._poll_s if not self._failures else min(self._poll_s * 2**self._failures, _LONGEST_WAIT_S)
            await asyncio.sleep(wait_s)
            try:
                await self.poll()
                await self._exchange.commit()
            except Exception:
                log.exception("the public prices could not be taken over; the next attempt follows")

    async def close(self) -> None:
        await self._client.aclose()

    async def poll(self) -> None:
        """One round: rules now and then, prices always. Failures are counted and logged, never raised."""
        async with self._lock:
            if self._wall() >= self._quiet_until_ms:
                await self._poll_now()
        self.judge()

    async def _poll_now(self) -> None:
        try:
            if self._wall() - self._rules_ms > _RULES_EVERY_S * 1000:
                await self._fetch_rules()
            await self._fetch_prices()
            if self._failures:
                log.info("the public prices of %s are back", self._client.base_url)
            self._failures = 0
        except (httpx.HTTPError, ValueError, KeyError, TypeError, IndexError, ArithmeticError) as error:
            self._failures = min(self._failures + 1, 16)
            log.warning("no public prices from %s: %s: %s", self._client.base_url, type(error).__name__, error)
        self._polled_ms = self._wall()

    async def freshen(self) -> None:
        """Poll at once unless that was done a moment ago: an order meets the market of now."""
        if self._wall() - self._polled_ms > _FRESHEN_S * 1000 and not self._failures:
            await self.poll()

    def judge(self) -> None:
        """Close the symbols of which nothing fresh is known, open the others."""
        now_ms = self._wall()
        for symbol in self._view.rules:
            stale = now_ms - self._good_ms.get(symbol, -(1 << 62)) > self._stale_ms
            self._exchange.set_broken(symbol, stale or symbol in self._not_trading)

    async def relay(self, path: str, sent: Mapping[str, str]) -> bytes:
        """The real exchange's answer to a question about the market. Raises ApiError with its error, or -1001."""
        asked = dict(sent)
        named = [asked["symbol"]] if "symbol" in asked else _symbols_in(asked.get("symbols", ""))
        if not named and path in _MANY:
            named = list(self._view.rules)
            asked["symbols"] = orjson.dumps(named).decode()
        if any(symbol not in self._view.rules for symbol in named):
            raise ApiError(-1121, "Invalid symbol.")
        self.judge()
        if any(symbol in self._exchange.conditions.broken for symbol in named) or self._wall() < self._quiet_until_ms:
            raise _disconnected()
        try:
            answer = await self._client.get(path, params=asked)
            if answer.status_code == 200:
                return answer.content
            self._heed(answer)
            told = answer.json()
            retry = {"Retry-After": answer.headers["Retry-After"]} if "Retry-After" in answer.headers else None
            raise ApiError(int(told["code"]), str(told["msg"]), answer.status_code, headers=retry)
        except (httpx.HTTPError, ValueError, KeyError, TypeError):
            raise _disconnected() from None

    # ---------------------------------------------------------------------------------------------------------- polling
    async def _get(self, path: str, **parameters: Any) -> Any:
        answer = await self._client.get(path, params=parameters)
        self._heed(answer)
        answer.raise_for_status()
        return answer.json()

    def _heed(self, answer: httpx.Response) -> None:
        """Stop asking for as long as a 429 or 418 says: going on would turn a limit into a ban, and a ban longer."""
        if answer.status_code in (429, 418):
            wait_s = float(answer.headers.get("Retry-After", _LONGEST_WAIT_S))
            self._quiet_until_ms = max(self._quiet_until_ms, self._wall() + round(wait_s * 1000))

    async def _fetch_rules(self) -> None:
        ours = list(self._view.rules)
        info = await self._get("/api/v3/exchangeInfo", symbols=orjson.dumps(ours).decode())
        listed = {entry["symbol"]: entry for entry in info["symbols"]}
        self._not_trading = {s for s in ours if s not in listed or listed[s]["status"] != "TRADING"}
        self._exchange.adopt_listings({s: _kept_part(entry) for s, entry in listed.items() if s in ours})
        self._rules_ms = self._wall()

    async def _fetch_prices(self) -> None:
        ours = list(self._view.rules)
        tops, *candles = await asyncio.gather(
            self._get("/api/v3/ticker/bookTicker", symbols=orjson.dumps(ours).decode()),
            *(self._get("/api/v3/klines", symbol=s, interval="1m", limit=_MINUTES) for s in ours),
        )
        top_of = {top["symbol"]: top for top in tops}
        # Stamped after the answers, and after every moment that was already walked: nothing seen is passed over.
        now_ms = max(self._wall(), self._exchange.processed_ms + 1)
        for symbol, rows in zip(ours, candles, strict=True):
            if now_ms - int(rows[-1][0]) > _OLDEST_MINUTE_MS:
                log.warning("the newest minute of %s is %d s old", symbol, (now_ms - int(rows[-1][0])) // 1000)
                continue
            self._see(symbol, rows, top_of[symbol], now_ms)
        self.judge()
        self._exchange.advance(now_ms)
        for symbol in ours:
            self._exchange.refresh(symbol, now_ms)

    def _see(self, symbol: str, rows: list[list[Any]], top: Mapping[str, str], now_ms: int) -> None:
        rules = self._view.rules[symbol]
        last = _ticks(rows[-1][4], rules)
        before = self._view.newest(symbol)
        first = before.last if before is not None and symbol not in self._exchange.conditions.broken else last
        low, high = min(first, last), max(first, last)
        if before is not None and symbol not in self._exchange.conditions.broken:
            low, high = self._extremes(symbol, rows, rules, low, high)
        bid, ask = _ticks(top["bidPrice"], rules), _ticks(top["askPrice"], rules)
        finished = rows[:-1] or rows
        closes = [_ticks(row[4], rules) for row in finished[-5:]]
        volume = int(Decimal(finished[-1][5]) / rules.step)
        half = max(ask - last, last - bid, 1)
        self._view.add(symbol, Observation(now_ms, first, last, low, high, half, volume, sum(closes) // len(closes)))
        self._exchange.engine.quote_spread(symbol, half)
        self._exchange.futures.engine.quote_spread(symbol, half)
        self._minutes[symbol] = int(rows[-1][0]), _ticks(rows[-1][2], rules), _ticks(rows[-1][3], rules)
        self._good_ms[symbol] = now_ms

    def _extremes(self, symbol: str, rows: list[list[Any]], rules: SymbolRules, low: int, high: int) -> tuple[int, int]:
        """How far the price went since the last look: a minute's extremes count when they are new since then."""
        seen_ms, seen_high, seen_low = self._minutes.get(symbol, (0, 0, 0))
        for row in rows:
            open_ms, row_high, row_low = int(row[0]), _ticks(row[2], rules), _ticks(row[3], rules)
            if open_ms > seen_ms or (open_ms == seen_ms and row_high > seen_high):
                high = max(high, row_high)
            if open_ms > seen_ms or (open_ms == seen_ms and row_low < seen_low):
                low = min(low, row_low)
        return low, high


def _ticks(price: str, rules: SymbolRules) -> int:
    return max(1, round(Decimal(price) / rules.tick))


def _kept_part(entry: Mapping[str, Any]) -> dict[str, Any]:
    """What the engine needs of a listing, so that unrelated changes do not look like new rules."""
    return {name: entry[name] for name in ("symbol", "baseAsset", "quoteAsset", "filters")}


def _symbols_in(text: str) -> list[str]:
    found: Iterable[str] = orjson.loads(text) if text else []
    return list(found)


def _disconnected() -> ApiError:
    return ApiError(-1001, "Internal error; unable to process your request. Please try again.", 503)
