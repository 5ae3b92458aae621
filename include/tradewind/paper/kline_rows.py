"""Candles as Binance's arrays, already written as JSON: rendered once a block, then cut and joined.

A call for a thousand candles would otherwise format nine thousand numbers. Finished candles never change (unless a
shock is injected, which clears what was remembered), so blocks of them are kept as text with the place of each row; the
unfinished candle is written afresh.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np

from tradewind.core.matching_rules import SymbolRules
from tradewind.core.types import IntArray
from tradewind.paper.intervals import INTERVAL_MS, next_open_time, open_time
from tradewind.paper.market_view import MarketView
from tradewind.paper.markets import TRADES_PER_BASE_BAR, TickBars

_BLOCK_ROWS = 256
_CACHED_BLOCKS = 1024  # some 35 MB of text
_UNIT = 10**8
_LARGEST = float(1 << 62)

_Key = tuple[str, str, int, int]


@dataclass(frozen=True, slots=True, eq=False)
class _Block:
    """Rows joined by commas; row i lies in `text[starts[i] : starts[i + 1] - 1]`."""

    open_ms: IntArray
    text: bytes
    starts: IntArray

    def between(self, first_ms: int, last_ms: int) -> bytes:
        """The rows that open in [first_ms, last_ms]."""
        a = int(np.searchsorted(self.open_ms, first_ms))
        b = int(np.searchsorted(self.open_ms, last_ms, side="right"))
        return self.text[self.starts[a] : max(self.starts[a], self.starts[b] - 1)]


class KlineRows:
    """Writes the candles of one market; remembers what it wrote."""

    def __init__(self, view: MarketView) -> None:
        self._view = view
        self._version = view.version
        self._blocks: OrderedDict[_Key, tuple[int, _Block]] = OrderedDict()

    def render(self, bars: TickBars, symbol: str, interval: str, now_ms: int, offset_ms: int = 0) -> bytes:
        """`bars` as a JSON array of Binance's arrays: candles of `interval`, as `MarketView.candles` found them."""
        if not len(bars):
            return b"[]"
        if self._version != self._view.version:
            self._version = self._view.version
            self._blocks.clear()
        rules = self._view.rules[symbol]
        finished = len(bars)
        if next_open_time(int(bars.open_ms[-1]), interval, offset_ms) > now_ms:
            finished -= 1
        parts = []
        if finished:
            first_ms, last_ms = int(bars.open_ms[0]), int(bars.open_ms[finished - 1])
            span = _BLOCK_ROWS * INTERVAL_MS[interval]
            for number in range(first_ms // span, last_ms // span + 1):
                block = self._block(rules, interval, number, last_ms, offset_ms)
                found = block.between(first_ms, last_ms)
                if found:
                    parts.append(found)
        if finished < len(bars):
            parts += self._rows(bars.slice(finished, len(bars)), rules, interval, offset_ms)
        return b"[" + b",".join(parts) + b"]"

    def _block(self, rules: SymbolRules, interval: str, number: int, needed_ms: int, offset_ms: int) -> _Block:
        """Block `number`: the candles that open in its span, all those at least that open up to `needed_ms`."""
        key = (rules.symbol, interval, offset_ms, number)
        span = _BLOCK_ROWS * INTERVAL_MS[interval]
        needed_ms = min((number + 1) * span - 1, needed_ms)
        known = self._blocks.get(key)
        if known is not None and known[0] >= needed_ms:
            self._blocks.move_to_end(key)
            return known[1]
        # Weeks and months do not begin where blocks do: whole candles are asked for, and those of this block kept.
        first_ms = next_open_time(open_time(number * span - 1, interval, offset_ms), interval, offset_ms)
        end_ms = next_open_time(open_time(needed_ms, interval, offset_ms), interval, offset_ms)
        bars = self._view.finished(rules.symbol, interval, first_ms, end_ms, offset_ms)
        bars = bars.between(number * span, (number + 1) * span)
        rows = self._rows(bars, rules, interval, offset_ms)
        lengths = np.fromiter((len(row) + 1 for row in rows), np.int64, len(rows))
        block = _Block(bars.open_ms, b",".join(rows), np.concatenate(([0], np.cumsum(lengths))))
        self._blocks[key] = (needed_ms, block)
        while len(self._blocks) > _CACHED_BLOCKS:
            self._blocks.popitem(last=False)
        return block

    def _rows(self, bars: TickBars, rules: SymbolRules, interval: str, offset_ms: int) -> list[bytes]:
        """Each candle as JSON. The quote volume is volume times the mean of high, low and close, rounded down."""
        if not len(bars):
            return []
        opens = bars.open_ms.tolist()
        if interval == "1M":
            ends = [next_open_time(t, interval, offset_ms) for t in opens]
        else:
            ends = [t + INTERVAL_MS[interval] for t in opens]
        base_ms = self._view.base_ms
        price, lot = int(rules.tick * _UNIT), rules.base_atoms_per_lot
        typical = (bars.high + bars.low + bars.close) * rules.quote_atoms_per_ticklot
        largest = float(typical.max()) * float(max(bars.volume.max(), 1))
        exact = typical if largest < _LARGEST else typical.astype(object)
        columns = [c for column in (bars.open, bars.high, bars.low, bars.close) for c in _split(column * price)]
        columns += [*_split(bars.volume * lot), *_split(exact * bars.volume // 3)]
        columns += [*_split(bars.taker_buy * lot), *_split(exact * bars.taker_buy // 3)]
        notes = [self._note(rules.symbol, t, end) for t, end in zip(opens, ends, strict=True)]
        return [
            b'[%d,"%d.%08d","%d.%08d","%d.%08d","%d.%08d","%d.%08d",%d,"%d.%08d",%d,"%d.%08d","%d.%08d","%b"]'
            % (
                t, o, o8, h, h8, low, low8, c, c8, v, v8, end - 1, q, q8,
                max(1, (end - t) // base_ms) * TRADES_PER_BASE_BAR, taker, taker8, taker_q, taker_q8, note,
            )
            for t, end, note, o, o8, h, h8, low, low8, c, c8, v, v8, q, q8, taker, taker8, taker_q, taker_q8 in zip(
                opens, ends, notes, *columns, strict=True
            )
        ]  # fmt: skip

    def _note(self, symbol: str, start_ms: int, end_ms: int) -> bytes:
        """The field that Binance leaves unused names candles that hold an injected shock."""
        return b"injected shock" if self._view.is_shocked(symbol, start_ms, end_ms) else b"0"


def _split(units: IntArray) -> tuple[list[int], list[int]]:
    """Amounts of 10⁻⁸ as whole and fractional part."""
    whole = units // _UNIT  # not divmod, which has no loop for whole numbers beyond 64 bits
    return whole.tolist(), (units - whole * _UNIT).tolist()
