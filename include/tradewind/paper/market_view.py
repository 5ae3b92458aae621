"""The market as it stands at a moment: prices inside a bar, unfinished candles, and injected shocks.

Inside a base bar the price walks straight lines open → first extreme → second extreme → close, a third of the bar each;
a rising bar visits its low first. So the unfinished candle at any moment is what has been walked so far, and the
finished one agrees with it.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np

from tradewind.paper.intervals import INTERVAL_MS, aggregate, next_open_time, open_time
from tradewind.paper.markets import DAY_MS, TRADES_PER_BASE_BAR, Market, TickBars, empty_bars, join_bars

_CHUNK_MS = 28 * DAY_MS
_CACHED_CHUNKS = 256
_CACHED_MOMENTS = 4096
_CACHED_INTERVALS = ("15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h", "1d")


@dataclass(frozen=True, slots=True)
class Shock:
    """From `at_ms` on, prices are multiplied by `factor`. `symbol` '*' means all."""

    at_ms: int
    symbol: str
    factor: float


class MarketView:
    """Reads of one market. Nothing here knows what time it is: the caller passes `now_ms`."""

    def __init__(self, market: Market, shocks: list[Shock] | None = None) -> None:
        self.market = market
        self.rules = market.rules
        self.base_ms = market.base_ms
        self.shocks = sorted(shocks or [], key=lambda s: s.at_ms)
        self._chunks: OrderedDict[tuple[str, str, int], TickBars] = OrderedDict()
        self._walks: dict[tuple[str, int], list[tuple[int, int]] | None] = {}
        self._liquidity: dict[tuple[str, int], tuple[int, int] | None] = {}
        self.version = 0

    def add_shock(self, shock: Shock) -> None:
        self.shocks = sorted([*self.shocks, shock], key=lambda s: s.at_ms)
        self.forget()

    def forget(self) -> None:
        """Drop what was remembered: the bars have changed. `version` tells others who remember."""
        self._chunks.clear()
        self._walks.clear()
        self._liquidity.clear()
        self.version += 1

    # ------------------------------------------------------------------------------------------------------- base bars
    def bars(self, symbol: str, start_ms: int, end_ms: int) -> TickBars:
        """Base bars that open in [start_ms, end_ms), shocks included."""
        bars = self.market.bars(symbol, start_ms, end_ms)
        shocks = [s for s in self.shocks if s.symbol in (symbol, "*") and s.at_ms < end_ms]
        if not shocks or not len(bars):
            return bars
        factor = np.ones(len(bars))
        for shock in shocks:
            factor[bars.open_ms >= shock.at_ms] *= shock.factor
        columns = [np.maximum(np.rint(c * factor), 1).astype(np.int64) for c in bars.columns()[1:5]]
        for shock in shocks:  # the bar in which the shock strikes keeps what happened before it
            for i in np.flatnonzero((bars.open_ms < shock.at_ms) & (bars.open_ms + self.base_ms > shock.at_ms)):
                points = self._points(symbol, bars, int(i), float(factor[i]), shocks)
                prices = [price for _, price in points]
                columns[1][i], columns[2][i], columns[3][i] = max(prices), min(prices), prices[-1]
        opens, highs, lows, closes = columns
        return TickBars(bars.open_ms, opens, highs, lows, closes, bars.volume, bars.taker_buy)

    def is_shocked(self, symbol: str, start_ms: int, end_ms: int) -> bool:
        """Whether an injected shock struck in [start_ms, end_ms)."""
        return any(s.symbol in (symbol, "*") and start_ms <= s.at_ms < end_ms for s in self.shocks)

    def _points(self, symbol: str, raw: TickBars, i: int, factor: float, shocks: list[Shock]) -> list[tuple[int, int]]:
        """The walk through base bar i as (time, price) corners, from unshocked bars times `factor` at the open."""
        o, h, low, c = (float(col[i]) for col in raw.columns()[1:5])
        first, second = (low, h) if c >= o else (h, low)
        start = int(raw.open_ms[i])
        third = self.base_ms // 3
        corners = [(start, o), (start + third, first), (start + 2 * third, second), (start + self.base_ms - 1, c)]
        inside = [s for s in shocks if s.symbol in (symbol, "*") and start < s.at_ms < start + self.base_ms]
        points = [(t, max(1, round(p * factor))) for t, p in corners]
        for shock in inside:
            before = _interpolate(points, shock.at_ms)
            head = [x for x in points if x[0] < shock.at_ms]
            tail = [(t, max(1, round(p * shock.factor))) for t, p in points if t > shock.at_ms]
            points = [*head, (shock.at_ms - 1, before), (shock.at_ms, max(1, round(before * shock.factor))), *tail]
        return points

    def _walk(self, symbol: str, open_ms: int) -> list[tuple[int, int]] | None:
        """The corners of one base bar's walk, None in an outage. Asked again and again within a bar, so remembered."""
        key = (symbol, open_ms)
        if key not in self._walks:
            if len(self._walks) >= _CACHED_MOMENTS:
                self._walks.clear()
            self._walks[key] = self._make_walk(symbol, open_ms)
        return self._walks[key]

    def _make_walk(self, symbol: str, open_ms: int) -> list[tuple[int, int]] | None:
        raw = self.market.bars(symbol, open_ms, open_ms + self.base_ms)
        if not len(raw):
            return None
        factor = 1.0
        for shock in self.shocks:
            if shock.symbol in (symbol, "*") and shock.at_ms <= open_ms:
                factor *= shock.factor
        return self._points(symbol, raw, 0, factor, self.shocks)

    # ----------------------------------------------------------------------------------------------------- at a moment
    def price(self, symbol: str, now_ms: int) -> int | None:
        """Last price in ticks at a moment; through an outage the last one before it; None before the first bar."""
        points = self._walk(symbol, now_ms // self.base_ms * self.base_ms)
        if points is not None:
            return _interpolate(points, now_ms)
        for days in (1, 30, 3650):
            before = self.bars(symbol, now_ms - days * DAY_MS, now_ms)
            if len(before):
                return int(before.close[-1])
        return None

    def reach(self, symbol: str, start_ms: int, end_ms: int) -> tuple[int, int] | None:
        """(lowest, highest) price in [start_ms, end_ms], inside one base bar; None in an outage."""
        points = self._walk(symbol, start_ms // self.base_ms * self.base_ms)
        if points is None:
            return None
        first, last = _interpolate(points, start_ms), _interpolate(points, end_ms)
        low, high = (first, last) if first <= last else (last, first)
        for time_ms, price in points:
            if start_ms <= time_ms < end_ms:
                low, high = min(low, price), max(high, price)
        return low, high

    def partial(self, symbol: str, start_ms: int, end_ms: int) -> TickBars:
        """The part [start_ms, end_ms) of one base bar as a bar of its own, volume in proportion; empty in an outage."""
        open_ms = start_ms // self.base_ms * self.base_ms
        points = self._walk(symbol, open_ms)
        if points is None or end_ms <= start_ms:
            return empty_bars()
        end_ms = min(end_ms, open_ms + self.base_ms)
        last = _interpolate(points, end_ms)
        prices = [_interpolate(points, start_ms), *(p for t, p in points if start_ms <= t < end_ms), last]
        share = (end_ms - start_ms) / self.base_ms
        whole = self.market.bars(symbol, open_ms, open_ms + self.base_ms)
        row = (
            open_ms,
            prices[0],
            max(prices),
            min(prices),
            last,
            int(whole.volume[0] * share),
            int(whole.taker_buy[0] * share),
        )
        return TickBars(*(np.array([v], np.int64) for v in row))

    def liquidity(self, symbol: str, now_ms: int) -> tuple[int, int]:
        """(volume in lots of the last finished base bar, mean close of the last five minutes) at a moment."""
        open_ms = now_ms // self.base_ms * self.base_ms
        key = (symbol, open_ms)
        if key not in self._liquidity:
            if len(self._liquidity) >= _CACHED_MOMENTS:
                self._liquidity.clear()
            recent = self.bars(symbol, open_ms - max(5 * 60_000, self.base_ms), open_ms)
            self._liquidity[key] = (int(recent.volume[-1]), int(recent.close.mean())) if len(recent) else None
        return self._liquidity[key] or (1, self.price(symbol, now_ms) or 1)

    def segments(self, symbol: str, start_ms: int, end_ms: int) -> tuple[TickBars, list[int]]:
        """The market from start to end for the engine: bars (the first and last may be parts) and when each ends."""
        first_whole = -(-start_ms // self.base_ms) * self.base_ms
        last_whole = end_ms // self.base_ms * self.base_ms
        parts, ends = [], []
        if first_whole > start_ms:
            head = self.partial(symbol, start_ms, min(first_whole, end_ms))
            parts.append(head)
            ends += [min(first_whole, end_ms)] * len(head)
        if last_whole > first_whole:
            whole = self.bars(symbol, first_whole, last_whole)
            parts.append(whole)
            ends += (whole.open_ms + self.base_ms).tolist()
        if end_ms > last_whole >= first_whole:
            tail = self.partial(symbol, last_whole, end_ms)
            parts.append(tail)
            ends += [end_ms] * len(tail)
        return join_bars(parts), ends

    # --------------------------------------------------------------------------------------------------------- candles
    def candles(
        self,
        symbol: str,
        interval: str,
        start_ms: int | None,
        end_ms: int | None,
        limit: int,
        now_ms: int,
        offset_ms: int = 0,
    ) -> TickBars:
        """At most `limit` candles known at `now_ms`, the last one unfinished.

        With `start_ms` the oldest from there, else the newest up to `end_ms`; both bound the open time, inclusively.
        """
        if INTERVAL_MS[interval] < self.base_ms:
            return empty_bars()
        length = INTERVAL_MS[interval]
        newest = min(now_ms, end_ms if end_ms is not None else now_ms)
        first = self.market.first_ms(symbol)
        if start_ms is not None:
            low = max(first, next_open_time(open_time(start_ms - 1, interval, offset_ms), interval, offset_ms))
            span = limit
            while True:
                found = self._known(symbol, interval, low, min(newest, low + span * length), now_ms, offset_ms)
                if len(found) >= limit or low + span * length >= newest:
                    return found.slice(0, limit)
                span *= 4
        span = limit
        while True:
            low = max(first, open_time(newest - span * length, interval, offset_ms))
            found = self._known(symbol, interval, low, newest, now_ms, offset_ms)
            if len(found) >= limit or low <= first:
                return found.slice(max(0, len(found) - limit), len(found))
            span *= 4

    def _known(self, symbol: str, interval: str, low_ms: int, high_ms: int, now_ms: int, offset_ms: int) -> TickBars:
        """Candles that open in [low_ms, high_ms], as far as they have happened."""
        if high_ms < low_ms:
            return empty_bars()
        last_open = open_time(high_ms, interval, offset_ms)
        end = next_open_time(last_open, interval, offset_ms)
        if end <= now_ms:
            found = self.finished(symbol, interval, low_ms, end, offset_ms)
        else:
            closed = self.finished(symbol, interval, low_ms, last_open, offset_ms)
            base_now = now_ms // self.base_ms * self.base_ms
            forming = join_bars(
                [self.bars(symbol, max(last_open, low_ms), base_now), self.partial(symbol, base_now, now_ms)]
            )
            if not len(forming) and now_ms == base_now == last_open:
                forming = self._opening(symbol, now_ms)
            found = join_bars([closed, aggregate(forming, interval, offset_ms)])
        return found.between(low_ms, high_ms + 1)

    def _opening(self, symbol: str, now_ms: int) -> TickBars:
        """The candle that opens at this very moment: one price, no volume yet."""
        price = self.price(symbol, now_ms) if len(self.market.bars(symbol, now_ms, now_ms + self.base_ms)) else None
        if price is None:
            return empty_bars()
        return TickBars(*(np.array([v], np.int64) for v in (now_ms, price, price, price, price, 0, 0)))

    def finished(self, symbol: str, interval: str, low_ms: int, high_ms: int, offset_ms: int) -> TickBars:
        """Finished candles that open in [low_ms, high_ms); the common intervals come from cached chunks."""
        if high_ms <= low_ms:
            return empty_bars()
        if interval not in _CACHED_INTERVALS or offset_ms:
            return aggregate(self.bars(symbol, low_ms, high_ms), interval, offset_ms)
        chunks = range(low_ms // _CHUNK_MS, (high_ms - 1) // _CHUNK_MS + 1)
        return join_bars(self._chunk(symbol, interval, c).between(low_ms, high_ms) for c in chunks)

    def _chunk(self, symbol: str, interval: str, chunk: int) -> TickBars:
        key = (symbol, interval, chunk)
        found = self._chunks.get(key)
        if found is None:
            found = aggregate(self.bars(symbol, chunk * _CHUNK_MS, (chunk + 1) * _CHUNK_MS), interval)
            self._chunks[key] = found
            while len(self._chunks) > _CACHED_CHUNKS:
                self._chunks.popitem(last=False)
        else:
            self._chunks.move_to_end(key)
        return found

    # ---------------------------------------------------------------------------------------------------------- trades
    def public_trades(self, symbol: str, first_id: int, last_id: int) -> list[tuple[int, int, int, int, bool]]:
        """Public trades by id, inclusive: (id, time ms, price in ticks, lots, whether the buyer was the maker)."""
        found = []
        for minute in range(first_id // TRADES_PER_BASE_BAR, last_id // TRADES_PER_BASE_BAR + 1):
            open_ms = minute * self.base_ms
            points = self._walk(symbol, open_ms)
            if points is None:
                continue
            bar = self.market.bars(symbol, open_ms, open_ms + self.base_ms)
            lots = max(1, int(bar.volume[0]) // TRADES_PER_BASE_BAR)
            sells = TRADES_PER_BASE_BAR - round(
                TRADES_PER_BASE_BAR * int(bar.taker_buy[0]) / max(1, int(bar.volume[0]))
            )
            for k in range(TRADES_PER_BASE_BAR):
                trade_id = minute * TRADES_PER_BASE_BAR + k
                if first_id <= trade_id <= last_id:
                    time_ms = open_ms + k * self.base_ms // TRADES_PER_BASE_BAR
                    found.append(
                        (trade_id, time_ms, _interpolate(points, time_ms), lots, k * 5 % TRADES_PER_BASE_BAR < sells)
                    )
        return found

    def last_trade_id(self, now_ms: int) -> int:
        """Id of the newest public trade at a moment."""
        return now_ms * TRADES_PER_BASE_BAR // self.base_ms


def _interpolate(points: list[tuple[int, int]], time_ms: int) -> int:
    for (t0, p0), (t1, p1) in itertools.pairwise(points):
        if time_ms <= t1:
            return p0 + round((p1 - p0) * max(0, time_ms - t0) / (t1 - t0)) if t1 > t0 else p1
    return points[-1][1]
