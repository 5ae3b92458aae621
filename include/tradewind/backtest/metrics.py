"""Performance numbers of a run, each from its definition; the report and `--json` show the same ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

import numpy as np

from tradewind.core.types import FloatArray

from .bootstrap import day_intervals, ratios, trade_intervals
from .results import EquityCurve, EquityPoint, Trade, TradeTable

DAY_MS: Final = 86_400_000
_EULER: Final = 0.5772156649015329
Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Performance:
    """NaN where a number is undefined: no trades, or no day of variation. Fractions are of initial or peak equity.

    Each `…_interval` holds the 5 % and 95 % bootstrap bounds. `deflated_sharpe` is the probability that the true Sharpe
    is above what the best of `trials` worthless strategies would have shown.
    """

    trades: int
    wins: int
    net_quote: float
    fees_quote: float
    return_frac: float
    max_drawdown_frac: float
    exposure_frac: float  # share of the time in which a position was held
    turnover: float  # bought and sold over the initial equity
    expectancy_r: float
    expectancy_r_interval: Interval
    profit_factor: float
    profit_factor_interval: Interval
    sharpe: float  # mean over standard deviation of daily returns, times the square root of 365
    sharpe_interval: Interval
    sortino: float
    sortino_interval: Interval
    calmar: float  # yearly growth over the deepest drawdown
    calmar_interval: Interval
    deflated_sharpe: float
    trials: int

    @property
    def expectancy_r_low(self) -> float:
        """The 5 % bound."""
        return self.expectancy_r_interval[0]


def drawdown_frac(equity: FloatArray) -> FloatArray:
    """Loss from the running peak as a fraction, 0 at a peak; same length as `equity`, which must be positive."""
    return 1.0 - equity / np.maximum.accumulate(equity)


def bootstrap_low(values: FloatArray) -> float:
    """The 5 % bound of the mean of trades drawn with replacement; NaN for fewer than two."""
    return trade_intervals(values, values)["expectancy_r"][0]


def daily_returns(equity: Sequence[EquityPoint], start_ms: int | None = None, end_ms: int | None = None) -> FloatArray:
    """Simple returns between the last marks of consecutive UTC days, a day without a mark being one without a change.

    `start_ms` and `end_ms` bound the run; the first and the last mark by default. Empty for less than two days.
    """
    curve = EquityCurve.of(equity)
    if len(curve) == 0:
        return np.empty(0)
    # A mark at midnight is the day's that ends there.
    days = (curve.at_ms - 1) // DAY_MS
    first = int(days[0]) if start_ms is None else start_ms // DAY_MS
    last = max(int(days[-1]), first) if end_ms is None else max((end_ms - 1) // DAY_MS, first)
    rows = np.searchsorted(days, np.arange(first, last + 1), side="right") - 1
    closes = curve.equity_quote[np.maximum(rows, 0)]
    out: FloatArray = closes[1:] / closes[:-1] - 1.0
    return out


def deflated_sharpe(returns: FloatArray, trials: int, trial_sharpes: Sequence[float] = ()) -> float:
    """Probability that the true Sharpe exceeds what the best of `trials` without any skill would show.

    Bailey and López de Prado (2014): the expected maximum of the trials' Sharpe ratios is the bar, and the estimate's
    error takes skewness and kurtosis in. `trial_sharpes` (yearly) give their spread; without them it is that of an
    estimate under no skill. NaN for fewer than ten days or no variation.
    """
    n = len(returns)
    deviation = float(returns.std(ddof=1)) if n > 1 else 0.0
    if n < 10 or deviation == 0:
        return float("nan")
    sharpe = float(returns.mean()) / deviation
    z = (returns - returns.mean()) / deviation
    skew, kurtosis = float((z**3).mean()), float((z**4).mean())
    known = np.array([s for s in trial_sharpes if math.isfinite(s)]) / math.sqrt(365)
    spread = float(known.std(ddof=1)) if len(known) > 1 else 1.0 / math.sqrt(n - 1)
    bar = 0.0
    if trials > 1:
        normal = NormalDist()
        bar = spread * (
            (1 - _EULER) * normal.inv_cdf(1 - 1 / trials) + _EULER * normal.inv_cdf(1 - 1 / (trials * math.e))
        )
    error = math.sqrt(max(1 - skew * sharpe + (kurtosis - 1) / 4 * sharpe**2, 1e-12) / (n - 1))
    return NormalDist().cdf((sharpe - bar) / error)


def exposure_frac(trades: Sequence[Trade], start_ms: int, end_ms: int) -> float:
    """Share of [start, end) in which at least one position was held."""
    table = TradeTable.of(trades)
    if len(table) == 0 or end_ms <= start_ms:
        return 0.0
    order = np.lexsort((table.exit_ms, table.entry_ms))
    spans = np.column_stack((table.entry_ms[order], table.exit_ms[order]))
    reached = np.maximum.accumulate(spans[:, 1])
    begun = np.maximum(spans[:, 0], np.concatenate(([start_ms], reached[:-1])))
    return float(np.maximum(spans[:, 1] - begun, 0).sum() / (end_ms - start_ms))


def measure(
    trades: Sequence[Trade],
    equity: Sequence[EquityPoint],
    initial_equity_quote: float,
    *,
    span_ms: tuple[int, int] | None = None,
    trials: int = 1,
    trial_sharpes: Sequence[float] = (),
) -> Performance:
    """All numbers of one run over `span_ms` (the first to the last mark by default), one of `trials` tried."""
    table = TradeTable.of(trades)
    r, net = table.net_r, table.net_quote
    curve = EquityCurve.of(equity)
    marks = np.concatenate(([initial_equity_quote], curve.equity_quote))
    lost = -float(net[net < 0].sum())
    start_ms, end_ms = span_ms or ((int(curve.at_ms[0]), int(curve.at_ms[-1])) if len(curve) else (0, 0))
    returns = daily_returns(curve, *(span_ms or (None, None)))
    sharpe, sortino, calmar = ratios(returns) if len(returns) > 1 else (float("nan"),) * 3
    of_trades, of_days = trade_intervals(r, net), day_intervals(returns)
    return Performance(
        trades=len(table),
        wins=int((net > 0).sum()),
        net_quote=float(net.sum()),
        fees_quote=float(table.fees_quote.sum()),
        return_frac=float(marks[-1] / initial_equity_quote - 1.0),
        max_drawdown_frac=float(drawdown_frac(marks).max()),
        exposure_frac=exposure_frac(table, start_ms, end_ms),
        turnover=float(table.turnover_quote.sum()) / initial_equity_quote,
        expectancy_r=float(r.mean()) if len(r) else float("nan"),
        expectancy_r_interval=of_trades["expectancy_r"],
        profit_factor=float(net[net > 0].sum()) / lost if lost > 0 else float("nan"),
        profit_factor_interval=of_trades["profit_factor"],
        sharpe=sharpe,
        sharpe_interval=of_days["sharpe"],
        sortino=sortino,
        sortino_interval=of_days["sortino"],
        calmar=calmar,
        calmar_interval=of_days["calmar"],
        deflated_sharpe=deflated_sharpe(returns, trials, trial_sharpes),
        trials=trials,
    )
