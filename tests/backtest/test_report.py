"""The report and its numbers, against values worked out by hand."""

import re
from dataclasses import replace
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest

from tradewind.backtest.bootstrap import day_intervals, ratios, trade_intervals
from tradewind.backtest.breakdown import monthly_returns
from tradewind.backtest.metrics import bootstrap_low, deflated_sharpe, drawdown_frac, exposure_frac, measure
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
    assert performance.sharpe == pytest.approx(returns.mean() / returns.std(ddof=1) * 365**0.5)


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


def test_hostile_names_stay_text_in_the_report(tmp_path: Path) -> None:
    """Symbols, titles and reasons come from exchanges and files; in charts they are JSON within a script."""
    name = "</script><img src=x onerror=alert(1)>"
    path = tmp_path / "report.html"
    hostile = replace(
        result([replace(trade(1.9, 190.0), symbol=name, regime=name, exit_reason=name)], title=name),
        labels=[name],
        bars={name: bars(name)},
        funnel=[FunnelRow(name, passed=7, refused=3, first_refusals=3)],
    )
    write_report(path, hostile, {name: [{name: name}]})
    html = path.read_text()
    assert "onerror=alert(1)" in html, "the names are there"
    assert "<img src=x" not in html
    usual = tmp_path / "usual.html"
    write_report(usual, result([trade(1.9, 190.0)]), {"Models": [{"version": "m1"}]})
    assert html.count("</script") == usual.read_text().count("</script"), "no script is ended by a name"


def test_the_report_tells_months_regimes_symbols_costs_and_holding(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_report(path, result([trade(1.9, 190.0), trade(-1.0, -100.0, "ETH/USDT")]), {})
    body = path.read_text().rpartition("</script>")[0][-400_000:] + path.read_text().rpartition("</script>")[2]
    for words in ("By regime", "trending_strong", "By symbol", "ETH/USDT", "Months, %", "Costs", "buy and hold"):
        assert words in body, words


def test_deflation_asks_more_of_the_best_of_many() -> None:
    returns = np.random.default_rng(5).normal(0.001, 0.01, 500)
    once, often = deflated_sharpe(returns, 1), deflated_sharpe(returns, 200)
    assert 0.9 < once <= 1
    assert often < once - 0.2
    sharpe = returns.mean() / returns.std(ddof=1)
    z = (returns - returns.mean()) / returns.std(ddof=1)
    error = ((1 - (z**3).mean() * sharpe + ((z**4).mean() - 1) / 4 * sharpe**2) / 499) ** 0.5
    assert once == pytest.approx(NormalDist().cdf(sharpe / error))


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(2)
    inside = 0
    for _ in range(60):
        r = rng.normal(0.1, 1.0, 150)
        low, high = trade_intervals(r, r)["expectancy_r"]
        inside += low <= 0.1 <= high
    assert 45 <= inside <= 60
    returns = rng.normal(0.0005, 0.01, 400)
    low, high = day_intervals(returns)["sharpe"]
    assert low < ratios(returns)[0] < high
    assert day_intervals(returns) == day_intervals(returns)
    assert np.isnan(day_intervals(returns[:5])["sharpe"][0])


def test_a_month_is_its_marks_growth() -> None:
    day = 86_400_000
    january = 1_767_225_600_000  # 2026-01-01
    run = replace(
        result([]),
        start_ms=january,
        equity=[
            EquityPoint(january + 10 * day, 10_200.0),
            EquityPoint(january + 31 * day, 10_500.0),
            EquityPoint(january + 40 * day, 10_290.0),
        ],
    )
    (row,) = monthly_returns(run)
    assert (row["year"], row["Jan"], row["Feb"], row["Mar"]) == (2026, "+5.0", "-2.0", "")
    assert row["whole"] == "+2.9"


def test_exposure_counts_overlapping_positions_once() -> None:
    first = replace(trade(1, 1), entry_ms=0, exit_ms=40)
    second = replace(first, entry_ms=20, exit_ms=60)
    assert exposure_frac([first, second], 0, 100) == pytest.approx(0.6)


def test_a_run_without_trades_still_has_a_report(tmp_path: Path) -> None:
    write_report(tmp_path / "r.html", result([]), {})
    assert "No position was closed" in (tmp_path / "r.html").read_text()
