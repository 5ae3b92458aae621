"""A market replayed from candle files: `BTC_USDT-15m.parquet` with open_time, open, high, low, close, volume.

The files' bars are the base bars; what they lack is an outage, in which nothing trades and no candle appears. Either
the recording keeps its own times, for a clock that is stepped by hand, or it is shifted by whole four-hour steps (so
that candles keep their grid) to end now.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tradewind.core.matching_rules import SymbolRules
from tradewind.core.types import FloatArray, IntArray
from tradewind.errors import BadSetting
from tradewind.paper.intervals import INTERVAL_MS
from tradewind.paper.markets import TickBars, listing

_FILE = re.compile(r"([A-Z0-9]+)_([A-Z0-9]+)-(1m|5m|15m|1h)\.parquet")
_SHIFT_STEP_MS = 4 * 3_600_000
_EXAMPLE = "TRADEWIND_MARKET=replay:/data/candles (files such as BTC_USDT-15m.parquet)"


@dataclass(frozen=True, slots=True, eq=False)
class _Recording:
    rules: SymbolRules
    bars: TickBars


class ReplayMarket:
    """The candle files of a directory as a market.

    Raises
    ------
    BadSetting
        If the directory holds no candle file, mixes timeframes, or a file lacks a column or holds a broken bar.
    """

    def __init__(self, directory: Path) -> None:
        self.shift_ms = 0
        found = sorted(p for p in directory.glob("*.parquet") if _FILE.fullmatch(p.name))
        timeframes = {m[3] for p in found if (m := _FILE.fullmatch(p.name))}
        if len(timeframes) != 1:
            problem = "mixes timeframes" if timeframes else "holds no candle file"
            raise BadSetting("TRADEWIND_MARKET", f"the directory {directory} {problem}", _EXAMPLE)
        self._timeframe = timeframes.pop()
        self._recordings: dict[str, _Recording] = {}
        digest = hashlib.sha256()
        for path in found:
            recording = _read(path, INTERVAL_MS[self._timeframe])
            self._recordings[recording.rules.symbol] = recording
            digest.update(recording.rules.symbol.encode())
            digest.update(np.ascontiguousarray(recording.bars.close).tobytes())
        self._identity = f"replay {self._timeframe} {digest.hexdigest()[:16]}"

    @property
    def name(self) -> str:
        return "replay"

    @property
    def identity(self) -> str:
        return self._identity

    @property
    def base_ms(self) -> int:
        return INTERVAL_MS[self._timeframe]

    @property
    def rules(self) -> dict[str, SymbolRules]:
        return {s: r.rules for s, r in self._recordings.items()}

    def first_ms(self, symbol: str) -> int:
        return int(self._recordings[symbol].bars.open_ms[0]) + self.shift_ms

    def end_ms(self) -> int:
        """When the last bar of the recording ends."""
        return max(int(r.bars.open_ms[-1]) for r in self._recordings.values()) + self.base_ms + self.shift_ms

    def end_at(self, now_ms: int) -> None:
        """Shift the recording so that it ends now, or up to four hours later."""
        self.shift_ms -= (self.end_ms() - now_ms) // _SHIFT_STEP_MS * _SHIFT_STEP_MS

    def bars(self, symbol: str, start_ms: int, end_ms: int) -> TickBars:
        """Recorded bars that open in [start_ms, end_ms), at their shifted times."""
        found = self._recordings[symbol].bars.between(start_ms - self.shift_ms, end_ms - self.shift_ms)
        return TickBars(found.open_ms + self.shift_ms, *found.columns()[1:])


def _read(path: Path, base_ms: int) -> _Recording:
    match = _FILE.fullmatch(path.name)
    assert match is not None
    # Here, since the other markets' servers would carry its 50 MB for nothing.
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    missing = {"open_time", "open", "high", "low", "close", "volume"} - set(table.column_names)
    if missing:
        raise BadSetting("TRADEWIND_MARKET", f"{path} has no column {sorted(missing)[0]}", _EXAMPLE)
    times = _epoch_ms(table.column("open_time").to_numpy())
    opens, highs, lows, closes, volumes = (
        table.column(c).to_numpy().astype(np.float64) for c in ("open", "high", "low", "close", "volume")
    )
    order = np.argsort(times, kind="stable")
    broken = (
        ~np.isfinite(opens + highs + lows + closes + volumes)
        | (lows > np.minimum(opens, closes))
        | (highs < np.maximum(opens, closes))
        | (lows <= 0)
        | (volumes < 0)
        | (times % base_ms != 0)
    )
    if broken.any() or not len(times) or (np.diff(times[order]) == 0).any():
        row = int(np.flatnonzero(broken)[0]) if broken.any() else 0
        raise BadSetting("TRADEWIND_MARKET", f"{path} holds no bars, a bar twice or a broken bar (row {row})", _EXAMPLE)
    rules = listing(f"{match[1]}/{match[2]}", float(np.median(closes))).rules
    tick, step = float(rules.tick), float(rules.step)

    def ticks(prices: FloatArray) -> NDArray[np.int64]:
        return np.maximum(np.rint(prices[order] / tick), 1).astype(np.int64)

    volume = np.rint(volumes[order] / step).astype(np.int64)
    o, h, low, c = ticks(opens), ticks(highs), ticks(lows), ticks(closes)
    lean = np.divide(c - o, h - low, out=np.zeros(len(o)), where=h > low)
    taker = (volume * (0.5 + 0.2 * lean)).astype(np.int64)
    return _Recording(rules, TickBars(times[order], o, h, low, c, volume, taker))


def _epoch_ms(column: NDArray[np.generic]) -> IntArray:
    """Open times as epoch milliseconds, from timestamps or from integers in milliseconds."""
    if np.issubdtype(column.dtype, np.datetime64):
        return column.astype("datetime64[ms]").astype(np.int64)
    return column.astype(np.int64)
