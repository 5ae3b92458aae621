"""An exchange's public side through ccxt: candles, best prices, rules, time."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from decimal import Decimal, InvalidOperation
from typing import Any

import numpy as np

from tradewind.core.ports import Clock
from tradewind.core.prices import is_price
from tradewind.core.timeframes import TIMEFRAME_MS, floor_ms, timeframe_ms, to_ms
from tradewind.core.types import Bars, BookTop, Instrument
from tradewind.errors import NotSupported, UnknownSymbol

from .ccxt_client import CcxtClient
from .ccxt_errors import readable
from .clock import WallClock

# Raw klines cost a third of ccxt's parsed ones. Binance clamps spot pages to 1000 bars.
_RAW_KLINES = {"spot": "public_get_klines", "usdm": "fapipublic_get_klines"}
_RAW_BOOK_TOPS = {"spot": "public_get_ticker_bookticker", "usdm": "fapipublic_get_ticker_bookticker"}
_BINANCE_PAGE = 1000
# What each exchange's candle call returns at most; ccxt's own figure is used where it has one.
_PAGES = {"bybit": 1000, "okx": 100, "kraken": 720, "coinbase": 300, "bitget": 199}
_DEFAULT_PAGE = 500
# Exchanges that count a page back from its end: with one more, it does not matter whether the end belongs to it.
_ENDS_COUNT = frozenset({"bitget"})
# Exchanges that answer for their newest bars alone, whatever moment is asked for.
_REACH_BARS = {"kraken": 720}

_Row = Sequence[Any]


class CcxtMarketData:
    """Satisfies core.ports.MarketData for every exchange that ccxt knows, with a quicker road for Binance.

    Parameters
    ----------
    client : errors, limits and markets are its business.
    clock : stamps book tops, which carry no time of their own.
    """

    def __init__(self, client: CcxtClient, clock: Clock | None = None) -> None:
        self._client = client
        self._clock = clock or WallClock()
        self._is_binance = client.config.exchange_id == "binance"

    def instruments(self, symbols: Sequence[str]) -> dict[str, Instrument]:
        """The rules of each symbol that the exchange lists; others are absent."""
        return self._client.instruments(symbols)

    def clock_offset_ms(self) -> float:
        """Exchange's time minus ours, over the fastest of a few round trips."""
        return self._client.clock_offset_ms()

    # ------------------------------------------------------------------------------------------------------- candles
    @readable
    def candles(self, symbol: str, timeframe: str, start_ms: int, end_ms: int, *, bulk: bool = False) -> Bars:
        """Bars with start_ms <= open_time < end_ms as the exchange reports them, the unfinished one included.

        Pages until the range is covered; outages inside it do not end it. A value that is no number arrives as NaN, for
        `core.candles.check` to refuse. Raises RetryError, UnknownSymbol or NotSupported (an unknown timeframe).
        """
        if timeframe not in TIMEFRAME_MS or timeframe not in self._client.exchange.timeframes:
            raise NotSupported(f"{self._client.config.exchange_id} has no {timeframe} candles")
        step = timeframe_ms(timeframe)
        fetch, page, fills_its_window = self._pager(symbol, timeframe, bulk)
        rows: list[_Row] = []
        cursor = max(start_ms, self.oldest_open_ms(timeframe) or start_ms)
        while cursor < end_ms:
            limit = min(page, -((cursor - end_ms) // step))
            window_end_ms = min(cursor + limit * step, end_ms)
            got = [row for row in fetch(cursor, limit) if cursor <= int(row[0]) < window_end_ms]
            rows += got
            # A short page is an outage where the window is always filled; elsewhere the exchange may just cut it short.
            cursor = window_end_ms if fills_its_window or not got else int(got[-1][0]) + step
        return _as_bars(symbol, timeframe, rows)

    def _pager(self, symbol: str, timeframe: str, bulk: bool) -> tuple[Callable[[int, int], list[_Row]], int, bool]:
        """How to fetch up to `limit` bars from a moment on, the most it gives, and whether it always fills a window."""
        exchange, market_type = self._client.exchange, self._client.config.market_type
        step = timeframe_ms(timeframe)
        if self._is_binance:
            method = _RAW_KLINES[market_type]
            fixed = {"symbol": self._client.market_id(symbol), "interval": exchange.timeframes[timeframe]}

            def raw(start_ms: int, limit: int) -> list[_Row]:
                window = {"startTime": start_ms, "endTime": start_ms + limit * step - 1, "limit": limit}
                rows: list[_Row] = self._client.read(method, {**fixed, **window}, bulk=bulk)
                return rows

            return raw, _BINANCE_PAGE, True
        self._client.market(symbol)
        page = exchange.feature_value(symbol, "fetchOHLCV", "limit") or _DEFAULT_PAGE

        end_counts = self._client.config.exchange_id in _ENDS_COUNT

        def parsed(start_ms: int, limit: int) -> list[_Row]:
            wanted: tuple[Any, ...] = (symbol, timeframe, start_ms, limit)
            if end_counts:
                wanted = (symbol, timeframe, start_ms, limit + 1, {"until": start_ms + limit * step})
            rows: list[_Row] = self._client.call("fetch_ohlcv", lambda: exchange.fetch_ohlcv(*wanted), bulk=bulk)
            return sorted(rows, key=lambda row: int(row[0]))

        return parsed, _PAGES.get(self._client.config.exchange_id, int(page)), False

    @readable
    def first_open_ms(self, symbol: str, timeframe: str) -> int | None:
        """The open time of the first bar that the exchange has of a symbol; None where it cannot be asked for it."""
        if not self._is_binance:
            return self._client.market(symbol).get("created")
        interval = self._client.exchange.timeframes[timeframe]
        wanted = {"symbol": self._client.market_id(symbol), "interval": interval, "startTime": 0, "limit": 1}
        rows = self._client.read(_RAW_KLINES[self._client.config.market_type], wanted, bulk=True)
        return int(rows[0][0]) if rows else None

    def oldest_open_ms(self, timeframe: str) -> int | None:
        """The oldest open time that the exchange still answers for, whatever the symbol; None where it keeps all."""
        bars = _REACH_BARS.get(self._client.config.exchange_id)
        if bars is None:
            return None
        # The unfinished bar counts among them.
        return floor_ms(to_ms(self._clock.now()), timeframe) - (bars - 1) * timeframe_ms(timeframe)

    # -------------------------------------------------------------------------------------------------------- prices
    @readable
    def book_tops(self, symbols: Sequence[str]) -> dict[str, BookTop]:
        """Best bid and ask of every symbol that has a price, in one call; what is not listed or no price is absent."""
        listed = self._client.listed(symbols)
        if not listed:
            return {}
        market_type = self._client.config.market_type
        quotes: list[tuple[str, Any, Any]] = []
        if self._is_binance and market_type in _RAW_BOOK_TOPS:
            rows = ask_listed(self._client, list(symbols), self._raw_book_tops)
            quotes = [
                (listed[row["symbol"]], row.get("bidPrice"), row.get("askPrice"))
                for row in rows
                if row["symbol"] in listed
            ]
        else:
            names = list(listed.values())
            tickers = self._client.call("fetch_tickers", lambda: self._client.exchange.fetch_tickers(names))
            quotes = [(symbol, ticker.get("bid"), ticker.get("ask")) for symbol, ticker in tickers.items()]
        now = self._clock.now()
        tops = {}
        for symbol, bid, ask in quotes:
            top = BookTop(symbol, _price(bid), _price(ask), now)
            if is_price(top.bid, top.ask):
                tops[symbol] = top
        return tops

    def _raw_book_tops(self, markets: list[str]) -> list[Any]:
        """Binance's rows of these markets, and perhaps of others."""
        market_type = self._client.config.market_type
        if market_type == "spot":
            # Binance takes a JSON list without blanks.
            question = {"symbols": json.dumps(markets, separators=(",", ":"))}
        else:  # one symbol or all of them
            question = {"symbol": markets[0]} if len(markets) == 1 else {}
        answer = self._client.read(_RAW_BOOK_TOPS[market_type], question)
        return answer if isinstance(answer, list) else [answer]


def ask_listed(client: CcxtClient, symbols: Sequence[str], ask: Callable[[list[str]], list[Any]]) -> list[Any]:
    """What `ask` answers for the markets that are listed, by the exchange's names of them.

    One that has been delisted since the rules were read makes an exchange refuse the question for all: then they are
    read again and each market is asked for by itself.
    """
    markets = list(client.listed(symbols))
    try:
        return ask(markets) if markets else []
    except UnknownSymbol:
        client.doubt_rules()
    rows: list[Any] = []
    for market in client.listed(symbols):
        with suppress(UnknownSymbol):
            rows += ask([market])
    return rows


def _price(value: Any) -> Decimal:
    """NaN where there is no number."""
    try:
        return Decimal(str(value))
    except InvalidOperation:
        return Decimal("NaN")


def _as_bars(symbol: str, timeframe: str, rows: Sequence[_Row]) -> Bars:
    try:
        table = np.array([[float(value) for value in row[:6]] for row in rows], np.float64)
    except (TypeError, ValueError):
        table = np.array([[_number(value) for value in row[:6]] for row in rows], np.float64)
    table = table.reshape(-1, 6)
    # Milliseconds are whole and below 2**53: float64 held them exactly.
    return Bars(symbol, timeframe, table[:, 0].astype(np.int64), *(column.copy() for column in table.T[1:]))


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("nan")
