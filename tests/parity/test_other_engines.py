"""The rule on the same candles by two independent backtesters: trades matched one to one, differences by convention.

They need packages of their own (backtesting, vectorbt). ENGINES_PYTHON names a Python that has them; the
candles are synthetic unless ENGINES_CANDLES names a folder with SOL_USDT-15m.parquet. Conventions that part us:

* a target is a resting limit order here: the market must trade through it by a tick and half the spread;
* who opens beyond a target gets the target's price here, the better open there;
* vectorbt looks at stop and target from the bar after the entry, here they rest from the entry on;
* an entry whose open lies an ATR beyond the signal's close is not filled here.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections import Counter
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from tests.backtest.test_candle_files import write
from tests.support.trading import random_bars
from tradewind.backtest.candle_files import read_candles
from tradewind.backtest.instruments import inferred_instrument
from tradewind.backtest.replay import ReplaySettings, replay
from tradewind.backtest.rules import EMA_CROSS, rule_series
from tradewind.bench import engines_script
from tradewind.core.matching_book import MatchingSettings

PYTHON = os.environ.get("ENGINES_PYTHON", "")
CANDLES = os.environ.get("ENGINES_CANDLES", "")

pytestmark = pytest.mark.skipif(
    not PYTHON, reason="ENGINES_PYTHON names no Python with backtesting and vectorbt (the extra `engines`)"
)

Row = tuple[int, int, float, float]


def theirs(engine: str, file: Path, horizon_bars: int) -> list[Row]:
    command = [PYTHON, "-W", "ignore", engines_script.__file__, engine, str(file), str(horizon_bars), "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return [tuple(row) for row in json.loads(done.stdout.splitlines()[-1])["trades"]]


@pytest.mark.parametrize(("engine", "horizon_bars"), [("backtesting", 96), ("vectorbt", 0)])
def test_the_same_trades(engine: str, horizon_bars: int, tmp_path: Path) -> None:
    folder = Path(CANDLES) if CANDLES else tmp_path
    if not CANDLES:
        write(tmp_path, random_bars(count=20_000, seed=8, volatility=0.006))
    bars, refused = read_candles(folder, "SOL/USDT")
    assert refused == 0
    rule = replace(EMA_CROSS, params=replace(EMA_CROSS.params, horizon_bars=horizon_bars or 10**6))
    # Nobody here pays a spread there, and their size never meets a thin book.
    free = MatchingSettings(half_spread_ppm=0, slippage_ppm=0, level_step_ppm=0, participation_ppm=1_000_000)
    series = {"SOL/USDT": rule_series(bars, inferred_instrument(bars, rule.params), rule)}
    result = replay(series, rule.params, 0, 1 << 45, ReplaySettings(capital_quote=Decimal(300), matching=free))
    row_of = {int(ms): row for row, ms in enumerate(bars.open_time_ms)}
    ours: dict[int, tuple[int, float, float, str]] = {
        row_of[t.entry_ms]: (
            row_of[t.exit_ms - t.exit_ms % 900_000], t.entry_price, t.exit_price, t.exit_reason,
        )
        for t in result.run.trades
    }  # fmt: skip
    levels = {row_of[t.entry_ms]: (t.initial_stop_price, t.target_price) for t in result.run.trades}
    tick = float(series["SOL/USDT"].instrument.tick_size)
    causes: Counter[str] = Counter()
    unexplained = []
    foreign = [row for row in theirs(engine, folder / "SOL_USDT-15m.parquet", horizon_bars) if row[1] < len(bars) - 1]
    busy_until = -1  # while one side is still in a trade that the other has left, their entries differ
    for entry, leave, price, exit_price in foreign:
        if entry not in ours:
            inside = [start for start, (end, *_) in ours.items() if start < entry <= end]
            over = bars.open[entry] > bars.close[entry - 1]
            if inside or entry <= busy_until:
                causes["follows from a trade that ended elsewhere"] += 1
            elif over:
                causes["opened an ATR beyond the close"] += 1
            else:
                unexplained.append((entry, leave, price, exit_price))
            continue
        end, our_price, our_exit, reason = ours[entry]
        stop, target = levels[entry]
        assert abs(our_price - price) <= 1.01 * tick, (entry, our_price, price)
        if end == leave and abs(our_exit - exit_price) <= 2.01 * tick:
            causes["equal"] += 1
        elif end == leave and reason == "target" and exit_price > target - tick:
            causes["opened beyond the target"] += 1
        elif leave < end and abs(bars.high[leave] - target) <= 2.01 * tick:
            causes["touched, not traded through"] += 1
            busy_until = max(busy_until, end)
        elif engine == "vectorbt" and end == entry < leave:
            causes["left inside its entry's bar"] += 1
            busy_until = max(busy_until, leave)
        elif end == leave and reason == "stop" and exit_price < stop + tick:
            causes["stop at another price inside one bar"] += 1
        else:
            unexplained.append((entry, leave, end, reason, price, our_price, exit_price, our_exit))
    print(engine, dict(causes), len(foreign), len(ours))
    assert not unexplained, unexplained[:10]
    assert causes["equal"] > 0.95 * len(foreign)
