"""The rule `ema_cross` on another backtester: run by a Python that has it, prints one line of JSON.

    PYTHON engines_script.py backtesting|vectorbt FILE.parquet HORIZON_BARS RUNS

EMA(20) crosses EMA(50) up at a close: buy at the next open, stop 2.5 ATR(14) under that close, target 2 R above it, out
after HORIZON_BARS bars (0 for never), fee 0.1 % a side, one position at a time. Imports nothing of Tradewind.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import numpy as np
import pandas as pd


def columns(path: str) -> tuple[pd.DataFrame, np.ndarray, np.ndarray, np.ndarray]:
    """(bars, signal, stop, target); the three arrays are known at each bar's close."""
    table = pd.read_parquet(path)
    opened = table["open_time"]
    index = pd.to_datetime(opened, unit="ms", utc=True) if opened.dtype.kind == "i" else pd.DatetimeIndex(opened)
    frame = table[["open", "high", "low", "close", "volume"]].set_axis(index).astype(float)
    close = frame["close"].to_numpy()
    fast, slow = ema(close, 20), ema(close, 50)
    above, known = fast > slow, np.isfinite(slow)
    signal = np.zeros(len(close), dtype=bool)
    signal[1:] = above[1:] & ~above[:-1] & known[:-1]
    width = 2.5 * atr(frame["high"].to_numpy(), frame["low"].to_numpy(), close, 14)
    return frame, signal, close - width, close + 2.0 * width


def ema(values: np.ndarray, span: int) -> np.ndarray:
    """Seeded by the mean of the first `span` values, NaN before."""
    seeded = pd.Series(np.concatenate(([values[:span].mean()], values[span:])))
    out = np.full(len(values), np.nan)
    out[span - 1 :] = seeded.ewm(span=span, adjust=False).mean()
    return out


def atr(high: np.ndarray, low: np.ndarray, close: np.ndarray, period: int) -> np.ndarray:
    """Wilder's, seeded by the mean of the first `period` true ranges, NaN before."""
    ranges = np.maximum(high[1:], close[:-1]) - np.minimum(low[1:], close[:-1])
    seeded = pd.Series(np.concatenate(([ranges[:period].mean()], ranges[period:])))
    out = np.full(len(close), np.nan)
    out[period:] = seeded.ewm(alpha=1 / period, adjust=False).mean()
    return out


def with_backtesting(path: str, horizon: int, runs: int) -> dict[str, Any]:
    """backtesting.py: orders at the next open, stop and target held by the engine."""
    from backtesting import Backtest, Strategy  # type: ignore[import-not-found]  # another Python's package

    frame, signal, stops, targets = columns(path)

    class EmaCross(Strategy):  # type: ignore[misc]  # its base has no types here
        def init(self) -> None: ...

        def next(self) -> None:
            i = len(self.data) - 1
            if self.position:
                if horizon and i - self.trades[0].entry_bar >= horizon - 1:
                    self.position.close()
            elif signal[i] and np.isfinite(stops[i]):
                self.buy(size=0.2, sl=stops[i], tp=targets[i])

    named = frame.rename(columns=str.capitalize)
    named.index = pd.DatetimeIndex(named.index).tz_localize(None)
    seconds = []
    for _ in range(runs):
        start = time.perf_counter()
        stats = Backtest(named, EmaCross, cash=10_000_000, commission=0.001).run()
        seconds.append(time.perf_counter() - start)
    rows = stats["_trades"]
    trades = zip(rows["EntryBar"], rows["ExitBar"], rows["EntryPrice"], rows["ExitPrice"], strict=True)
    return {"seconds": seconds, "trades": [[int(a), int(b), float(c), float(d)] for a, b, c, d in trades]}


def with_vectorbt(path: str, horizon: int, runs: int) -> dict[str, Any]:
    """vectorbt: entries at the open, stop and target as shares of the entry's price; it has no time stop."""
    import vectorbt as vbt  # type: ignore[import-not-found]  # another Python's package

    frame, signal, stops, targets = columns(path)
    seconds = []
    for _ in range(runs):
        start = time.perf_counter()
        entries = np.concatenate(([False], signal[:-1]))
        opened = frame["open"].to_numpy()
        stop = np.concatenate(([np.nan], stops[:-1]))
        target = np.concatenate(([np.nan], targets[:-1]))
        portfolio = vbt.Portfolio.from_signals(
            frame["close"], entries, np.zeros(len(entries), dtype=bool), price=frame["open"], open=frame["open"],
            high=frame["high"], low=frame["low"], sl_stop=1 - stop / opened, tp_stop=target / opened - 1,
            fees=0.001, size=0.2, size_type="percent", init_cash=10_000_000, freq="15min", stop_entry_price="fillprice",
        )  # fmt: skip
        rows = portfolio.trades.records
        portfolio.stats()
        seconds.append(time.perf_counter() - start)
    trades = zip(rows["entry_idx"], rows["exit_idx"], rows["entry_price"], rows["exit_price"], strict=True)
    return {"seconds": seconds, "trades": [[int(a), int(b), float(c), float(d)] for a, b, c, d in trades]}


if __name__ == "__main__":
    engine, file, bars, count = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    run = {"backtesting": with_backtesting, "vectorbt": with_vectorbt}[engine]
    print(json.dumps(run(file, bars, count)))
