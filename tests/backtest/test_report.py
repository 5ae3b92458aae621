"""The report and its numbers, against values worked out by hand."""

import re
from pathlib import Path

import numpy as np
import pytest

from tradewind.backtest.metrics import bootstrap_low, drawdown_frac, measure
from tradewind.backtest.report import write_report
from tradewind.backtest.results import EquityPoint, FunnelRow, RunResult, Trade
from tradewind.core.types import Bars, Side

BAR_MS = 900_000
START_MS = 1_760_000_400_000


def trade(net_r: float, net_quote: float, symbol: str = "BTC/USDT") -> Trade:
    return Trade(
        position_id="p",
        symbol=symbol,
        side=Side.LONG,
        family="trending",
        regime="trending_strong",
        bar_ms=START_MS + 30 * BAR_MS,
        entry_ms=START_MS + 31 * BAR_MS,
        entry_price=100.0,
        exit_ms=START_MS + 40 * BAR_MS,
        exit_price=102.0,
        quantity=1.0,
        initial_stop_price=99.0,
        target_price=102.0,
        stop_path=((START_MS + 31 * BAR_MS, 99.0), (START_MS + 36 * BAR_MS, 100.2)),
        net_r=net_r,
        net_quote=net_quote,
        fees_quote=0.2,
        exit_reason="target",
    )


def bars(symbol: str = "BTC/USDT") -> Bars:
    n = 100
    close = 100 + np.sin(np.arange(n) / 5)
    return Bars(
        symbol, "15m", START_MS + BAR_MS * np.arange(n, dtype=np.int64), close, close + 1, close - 1, close, np.ones(n)
    )


def result(trades: list[Trade], title: str = "A run") -> RunResult:
    return RunResult(
        title=title,
        labels=["Synthetic market: no real prices"],
        strategy_version="1-abc",
        start_ms=START_MS,
        end_ms=START_MS + 100 * BAR_MS,
        initial_equity_quote=10_000.0,
        trades=trades,
        equity=[EquityPoint(START_MS, 10_000.0), EquityPoint(START_MS + 50 * BAR_MS, 10_100.0)],
        funnel=[FunnelRow("regime", passed=7, refused=3, first_refusals=3)],
        decisions=[{"symbol": "BTC/USDT", "reason": "<script>alert(1)</script>"}],
        bars={"BTC/USDT": bars()},
    )


def test_drawdown_is_the_loss_from_the_running_peak() -> None:
    assert drawdown_frac(np.array([100.0, 110.0, 99.0, 121.0])) == pytest.approx([0.0, 0.0, 0.1, 0.0])


def test_measure_agrees_with_hand_arithmetic() -> None:
    day_ms = 86_400_000
    equity = [EquityPoint(0, 1000.0), EquityPoint(day_ms, 1010.0), EquityPoint(2 * day_ms, 1000.0)]
    performance = measure([trade(2.0, 20.0), trade(-1.0, -10.0), trade(-1.0, -10.0)], equity, 1000.0)
    assert (performance.trades, performance.wins) == (3, 1)
    assert performance.net_quote == pytest.approx(0.0)
    assert performance.profit_factor == pytest.approx(1.0)
    assert performance.expectancy_r == pytest.approx(0.0)
    assert performance.max_drawdown_frac == pytest.approx(10 / 1010)
    returns = np.array([0.01, -10 / 1010])
    assert performance.sharpe_daily == pytest.approx(returns.mean() / returns.std(ddof=1) * 365**0.5)


def test_the_bootstrap_bound_lies_below_the_mean_and_is_undefined_for_one_value() -> None:
    values = np.array([1.0, -1.0, 2.0, -1.0, 3.0, 0.5] * 10)
    assert bootstrap_low(values) < values.mean()
    assert np.isnan(bootstrap_low(values[:1]))


def test_the_report_is_self_contained_and_escapes_text(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "report.html"
    write_report(path, result([trade(1.9, 190.0)]), {"Models": [{"version": "m1", "state": "champion"}]})
    html = path.read_text()
    body = html[html.index("</script>") :]  # behind plotly's own script
    assert "<script>alert(1)</script>" not in body
    assert "Synthetic market: no real prices" in body
    assert "champion" in body
    assert not re.findall(r"""(?:src|href)=["']?(?:https?:)?//""", html[: html.index("<script>")] + body)


def test_a_run_without_trades_still_has_a_report(tmp_path: Path) -> None:
    write_report(tmp_path / "r.html", result([]), {})
    assert "No position was closed" in (tmp_path / "r.html").read_text()
