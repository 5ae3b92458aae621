"""A run cut into tables: by month, regime, symbol and exit, its costs, and what holding the same markets did."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import numpy as np

from tradewind.core.types import FloatArray

from .metrics import Performance
from .results import EquityCurve, RunResult, Trade

Table = list[dict[str, object]]


def monthly_returns(run: RunResult) -> Table:
    """A row a year, a column a month, in percent; a month without a mark is empty. The last column is the year's."""
    curve = EquityCurve.of(run.equity)
    if len(curve) == 0:
        return []
    months = (curve.at_ms - 1).astype("datetime64[ms]").astype("datetime64[M]").astype(np.int64)
    ends = np.flatnonzero(np.diff(months, append=months[-1] + 1))
    closes = np.concatenate(([run.initial_equity_quote], curve.equity_quote[ends]))
    table: dict[int, dict[str, object]] = {}
    growth: dict[int, float] = {}
    for month, change in zip(months[ends].tolist(), (closes[1:] / closes[:-1] - 1).tolist(), strict=True):
        year, number = 1970 + month // 12, month % 12
        names: dict[str, object] = {datetime(2000, m, 1, tzinfo=UTC).strftime("%b"): "" for m in range(1, 13)}
        row = table.setdefault(year, {"year": year, **names, "whole": ""})
        row[datetime(2000, number + 1, 1, tzinfo=UTC).strftime("%b")] = f"{100 * change:+.1f}"
        growth[year] = growth.get(year, 1.0) * (1 + change)
        row["whole"] = f"{100 * (growth[year] - 1):+.1f}"
    return list(table.values())


def by(trades: Sequence[Trade], name: str, key: Callable[[Trade], str]) -> Table:
    """Trades grouped by a property: how many, how often won, expectancy, result, fees."""
    groups: dict[str, list[Trade]] = {}
    for trade in trades:
        groups.setdefault(key(trade), []).append(trade)
    return [
        {
            name: value,
            "trades": len(own),
            "won": f"{sum(t.net_quote > 0 for t in own) / len(own):.0%}",
            "expectancy R": f"{np.mean([t.net_r for t in own]):+.3f}",
            "net": f"{sum(t.net_quote for t in own):+,.2f}",
            "fees": f"{sum(t.fees_quote for t in own):,.2f}",
        }
        for value, own in sorted(groups.items())
    ]


def costs(run: RunResult, performance: Performance) -> Table:
    """What trading cost, against what it turned over."""
    turnover = performance.turnover * run.initial_equity_quote
    gross = performance.net_quote + performance.fees_quote
    return [
        {
            "turnover": f"{turnover:,.0f}",
            "turnover / capital": f"{performance.turnover:,.1f}",
            "fees": f"{performance.fees_quote:,.2f}",
            "fees, bps of turnover": f"{10_000 * performance.fees_quote / turnover:.1f}" if turnover else "",
            "result before fees": f"{gross:+,.2f}",
            "result after fees": f"{performance.net_quote:+,.2f}",
        }
    ]


def buy_and_hold(run: RunResult) -> EquityCurve:
    """The capital split evenly over the run's markets at its first bar and held, at the closes of their bars."""
    held: list[tuple[np.ndarray, FloatArray]] = []
    for bars in run.bars.values():
        first, last = np.searchsorted(bars.open_time_ms, [run.start_ms, run.end_ms])
        if last > first:
            step = int(bars.open_time_ms[first + 1] - bars.open_time_ms[first]) if last > first + 1 else 0
            worth = bars.close[first:last] / bars.open[first]
            held.append((bars.open_time_ms[first:last] + step, worth))
    if not held:
        return EquityCurve(np.empty(0, dtype=np.int64), np.empty(0))
    times = np.unique(np.concatenate([own for own, _ in held]))
    total = np.zeros(len(times))
    for own, worth in held:
        rows = np.searchsorted(own, times, side="right") - 1
        total += np.where(rows >= 0, worth[np.maximum(rows, 0)], 1.0)
    return EquityCurve(times.astype(np.int64), total / len(held) * run.initial_equity_quote)
