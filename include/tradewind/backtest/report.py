"""The report: one HTML file that opens offline, with the script that draws it inside.

Every number comes from `metrics.measure`, every line from a `RunResult`: nothing is computed for show.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
from jinja2 import Environment, PackageLoader, StrictUndefined
from plotly.offline import get_plotlyjs
from plotly.subplots import make_subplots

from tradewind.core.types import Bars, Side

from .breakdown import buy_and_hold, by, costs, monthly_returns
from .metrics import drawdown_frac, measure
from .results import EquityCurve, EquityPoint, RunResult, Trade

MAX_TRADE_CHARTS = 60  # a chart a trade grows the file by about 20 kB; beyond this the table alone lists them
MAX_MARKS = 6000  # of a curve: more would not be seen
CONTEXT_BARS = 24  # drawn before the entry and after the exit of each trade

_GREEN, _RED, _BLUE, _AMBER, _GREY = "#1a9a6c", "#d1495b", "#2f6fb5", "#c98a12", "#7a8594"
_LAYOUT = {
    "template": "plotly_white",
    "margin": {"l": 56, "r": 16, "t": 36, "b": 32},
    "paper_bgcolor": "rgba(0,0,0,0)",
    "plot_bgcolor": "rgba(0,0,0,0)",
    "font": {"family": "system-ui, sans-serif", "size": 12, "color": _GREY},
    "showlegend": False,
    "hovermode": "x unified",
}


def write_report(path: Path, result: RunResult, sections: Mapping[str, Sequence[Mapping[str, object]]]) -> None:
    """Write the report of `result` to `path`, its folder made if need be.

    `sections` adds plain tables by title (models with their gates, data per series, what the breaker did): a list of
    rows that share their keys. Text is escaped; the file asks no other host for anything.
    """
    environment = Environment(
        loader=PackageLoader("tradewind.backtest", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
    )
    environment.filters["utc"] = _utc
    drawn = result.trades[:MAX_TRADE_CHARTS]
    span = (result.start_ms, result.end_ms)
    performance = measure(result.trades, result.equity, result.initial_equity_quote, span_ms=span)
    held = buy_and_hold(result)
    html = environment.get_template("report.html.j2").render(
        result=result,
        performance=performance,
        held_return_frac=held.equity_quote[-1] / result.initial_equity_quote - 1 if len(held) else float("nan"),
        held_drawdown_frac=float(drawdown_frac(held.equity_quote).max()) if len(held) else float("nan"),
        tables={
            "Months, %": monthly_returns(result),
            "By regime": by(result.trades, "regime", lambda trade: trade.regime or "unknown"),
            "By symbol": by(result.trades, "symbol", lambda trade: trade.symbol),
            "By exit": by(result.trades, "exit", lambda trade: trade.exit_reason),
            "Costs": costs(result, performance) if result.trades else [],
        },
        plotly_script=get_plotlyjs(),
        equity_chart=_div(_equity_figure(result.equity, result.initial_equity_quote, held)),
        r_chart=_div(_r_figure(result.trades)) if result.trades else "",
        funnel_chart=_div(_funnel_figure(result)) if result.funnel else "",
        trade_charts=[
            (trade, _div(_trade_figure(trade, result.bars[trade.symbol])))
            for trade in drawn
            if trade.symbol in result.bars and len(result.bars[trade.symbol])
        ],
        undrawn=len(result.trades) - len(drawn),
        sections=sections,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(html, encoding="utf-8")


def _utc(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")


def _times(ms: Sequence[int]) -> list[datetime]:
    return [datetime.fromtimestamp(value / 1000, UTC) for value in ms]


def _div(figure: go.Figure) -> str:
    html: str = figure.to_html(
        full_html=False, include_plotlyjs=False, config={"displaylogo": False, "responsive": True}
    )
    return html


def _thinned(curve: EquityCurve) -> EquityCurve:
    """At most some thousand marks, the extremes of each stretch kept, so that a long run stays a small file."""
    stretch = -(-len(curve) // (MAX_MARKS // 4))
    if stretch < 4:
        return curve
    rows = [0, len(curve) - 1]
    for first in range(0, len(curve), stretch):
        part = curve.equity_quote[first : first + stretch]
        rows += [first, first + int(part.argmin()), first + int(part.argmax())]
    kept = np.unique(rows)
    return EquityCurve(curve.at_ms[kept], curve.equity_quote[kept])


def _equity_figure(equity: Sequence[EquityPoint], initial_quote: float, held: EquityCurve) -> go.Figure:
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, row_heights=[0.7, 0.3], vertical_spacing=0.04)
    curve, held = _thinned(EquityCurve.of(equity)), _thinned(held)
    times, values = _times(curve.at_ms.tolist()), curve.equity_quote
    figure.add_trace(
        go.Scatter(
            x=_times(held.at_ms.tolist()), y=held.equity_quote, line={"color": _GREY, "width": 1}, name="buy and hold"
        ),
        row=1,
        col=1,
    )
    figure.add_trace(go.Scatter(x=times, y=values, line={"color": _BLUE, "width": 2}, name="equity"), row=1, col=1)
    figure.add_hline(y=initial_quote, line={"color": _GREY, "dash": "dot"}, row=1, col=1)
    if len(values):
        lost = -100 * drawdown_frac(values)
        figure.add_trace(
            go.Scatter(x=times, y=lost, fill="tozeroy", line={"color": _RED, "width": 1}, name="drawdown %"),
            row=2,
            col=1,
        )
    drawn = np.concatenate((values, held.equity_quote))
    if len(drawn) and drawn.max() > 3 * drawn.min():
        figure.update_yaxes(type="log", row=1, col=1)  # else the larger of the two curves hides the other
    figure.update_layout(**_LAYOUT, height=420, title="Equity, buy and hold (grey), drawdown")
    return figure


def _r_figure(trades: Sequence[Trade]) -> go.Figure:
    figure = go.Figure(go.Histogram(x=[trade.net_r for trade in trades], nbinsx=40, marker={"color": _BLUE}))
    figure.add_vline(x=0, line={"color": _GREY})
    figure.update_layout(**_LAYOUT, height=260, title="Result of each trade in R, after costs")
    return figure


def _funnel_figure(result: RunResult) -> go.Figure:
    names = [row.filter for row in result.funnel][::-1]
    figure = go.Figure()
    figure.add_bar(
        y=names, x=[row.passed for row in result.funnel][::-1], orientation="h", name="passed", marker={"color": _GREEN}
    )
    figure.add_bar(
        y=names, x=[row.refused for row in result.funnel][::-1], orientation="h", name="refused", marker={"color": _RED}
    )
    figure.update_layout(
        **{**_LAYOUT, "margin": {"l": 170, "r": 16, "t": 36, "b": 32}},
        barmode="stack",
        height=120 + 24 * len(names),
        title="Filter funnel: each filter's verdict over all candidates",
    )
    return figure


def _trade_figure(trade: Trade, bars: Bars) -> go.Figure:
    """The trade on its candles: entry and exit as marks, the stop as the stair it really was, the target dashed."""
    step_ms = int(bars.open_time_ms[1] - bars.open_time_ms[0]) if len(bars) > 1 else 900_000
    first = int(np.searchsorted(bars.open_time_ms, trade.bar_ms - CONTEXT_BARS * step_ms))
    last = int(np.searchsorted(bars.open_time_ms, trade.exit_ms + CONTEXT_BARS * step_ms))
    shown = bars.slice(first, last)
    figure = go.Figure(
        go.Candlestick(
            x=_times([int(t) for t in shown.open_time_ms]),
            open=shown.open,
            high=shown.high,
            low=shown.low,
            close=shown.close,
            increasing_line_color=_GREEN,
            decreasing_line_color=_RED,
            name=trade.symbol,
        )
    )
    stops = [*trade.stop_path, (trade.exit_ms, trade.stop_path[-1][1])] if trade.stop_path else []
    figure.add_trace(
        go.Scatter(
            x=_times([at for at, _ in stops]),
            y=[price for _, price in stops],
            line={"color": _AMBER, "width": 2, "shape": "hv"},
            name="stop",
        )
    )
    figure.add_trace(
        go.Scatter(
            x=_times([trade.entry_ms, trade.exit_ms]),
            y=[trade.target_price, trade.target_price],
            line={"color": _GREEN, "dash": "dash"},
            name="target",
        )
    )
    marker = "triangle-up" if trade.side is Side.LONG else "triangle-down"
    figure.add_trace(
        go.Scatter(
            x=_times([trade.entry_ms, trade.exit_ms]),
            y=[trade.entry_price, trade.exit_price],
            mode="markers",
            marker={"size": 12, "symbol": [marker, "x"], "color": [_BLUE, _RED if trade.net_quote < 0 else _GREEN]},
            name="entry, exit",
        )
    )
    figure.update_layout(**{**_LAYOUT, "hovermode": "closest"}, height=320, xaxis_rangeslider_visible=False)
    return figure
