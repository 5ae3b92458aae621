"""Performance numbers of a run, each from its definition; the report and `--json` show the same ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tradewind.core.types import FloatArray

from .results import EquityPoint, Trade


@dataclass(frozen=True, slots=True)
class Performance:
    """NaN where a number is undefined: no trades, or no day of variation. Fractions are of initial or peak equity."""

    trades: int
    wins: int
    net_quote: float
    fees_quote: float
    return_frac: float
    max_drawdown_frac: float
    expectancy_r: float
    expectancy_r_low: float  # 5 % bound of the bootstrap
    profit_factor: float
    sharpe_daily: float  # mean over standard deviation of daily returns, times the square root of 365


def drawdown_frac(equity: FloatArray) -> FloatArray:
    """Loss from the running peak as a fraction, 0 at a peak; same length as `equity`, which must be positive."""
    return 1.0 - equity / np.maximum.accumulate(equity)


def bootstrap_low(values: FloatArray, *, quantile: float = 0.05, resamples: int = 2000, seed: int = 7) -> float:
    """The `quantile` of the mean under resampling with replacement (percentile bootstrap); NaN for fewer than two."""
    if len(values) < 2:
        return float("nan")
    rng = np.random.default_rng(seed)
    means = values[rng.integers(0, len(values), size=(resamples, len(values)))].mean(axis=1)
    return float(np.quantile(means, quantile))


def daily_returns(equity: Sequence[EquityPoint]) -> FloatArray:
    """Simple returns between the last marks of consecutive UTC days; empty for less than two days."""
    last: dict[int, float] = {}
    for point in equity:
        last[point.at_ms // 86_400_000] = point.equity_quote
    closes = np.array([last[day] for day in sorted(last)], dtype=np.float64)
    return closes[1:] / closes[:-1] - 1.0 if len(closes) > 1 else np.empty(0)


def measure(trades: Sequence[Trade], equity: Sequence[EquityPoint], initial_equity_quote: float) -> Performance:
    """All numbers of one run."""
    r = np.array([trade.net_r for trade in trades], dtype=np.float64)
    net = np.array([trade.net_quote for trade in trades], dtype=np.float64)
    marks = np.array([initial_equity_quote, *(point.equity_quote for point in equity)], dtype=np.float64)
    lost = -float(net[net < 0].sum())
    returns = daily_returns(equity)
    deviation = float(returns.std(ddof=1)) if len(returns) > 1 else 0.0
    return Performance(
        trades=len(trades),
        wins=int((net > 0).sum()),
        net_quote=float(net.sum()),
        fees_quote=float(sum(trade.fees_quote for trade in trades)),
        return_frac=float(marks[-1] / initial_equity_quote - 1.0),
        max_drawdown_frac=float(drawdown_frac(marks).max()),
        expectancy_r=float(r.mean()) if len(r) else float("nan"),
        expectancy_r_low=bootstrap_low(r),
        profit_factor=float(net[net > 0].sum()) / lost if lost > 0 else float("nan"),
        sharpe_daily=float(returns.mean()) / deviation * 365**0.5 if deviation > 0 else float("nan"),
    )
