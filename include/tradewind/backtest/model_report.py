"""The report of one model version: one HTML file that opens offline, every number out of its manifest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import plotly.graph_objects as go
from jinja2 import ChainableUndefined, Environment, PackageLoader
from plotly.offline import get_plotlyjs
from plotly.subplots import make_subplots

_GREEN, _RED, _BLUE, _AMBER, _GREY = "#1a9a6c", "#d1495b", "#2f6fb5", "#c98a12", "#7a8594"
_CLASS_COLOURS: Final = (_GREEN, _RED, _BLUE)
_LAYOUT: Final[dict[str, Any]] = {
    "template": "plotly_white",
    "margin": {"l": 56, "r": 16, "t": 36, "b": 40},
    "paper_bgcolor": "rgba(0,0,0,0)",
    "plot_bgcolor": "rgba(0,0,0,0)",
    "font": {"family": "system-ui, sans-serif", "size": 12, "color": _GREY},
}


def write_model_report(path: Path, version: Mapping[str, Any]) -> None:
    """Write the report of `version` to `path`, its folder made if need be.

    `version` is a registry's row: `version`, `state`, `manifest`, `gates` and `events`. The file asks no other host for
    anything; what the manifest lacks (a version older than a score) is left out.
    """
    metrics: Mapping[str, Any] = version["manifest"].get("metrics", {})
    walked = metrics.get("walk_forward", {})
    promotion = metrics.get("promotion", {})
    environment = Environment(
        loader=PackageLoader("tradewind.backtest", "templates"), autoescape=True, undefined=ChainableUndefined
    )
    environment.filters["day"] = _day
    environment.filters["number"] = _number
    html = environment.get_template("model_report.html.j2").render(
        version=version,
        manifest=version["manifest"],
        promotion=promotion,
        walked=walked,
        selection=version["manifest"].get("selection", {}),
        plotly_script=get_plotlyjs(),
        fold_chart=_div(_fold_figure(walked["folds"])) if walked.get("folds") else "",
        curve_charts=[
            (title, _div(_curve_figure(scores["classes"])))
            for title, scores in (
                ("Walk-forward, all folds", walked.get("pooled", {})),
                ("Promotion window", promotion.get("pooled", {})),
            )
            if scores.get("classes")
        ],
        class_tables=[
            (title, scores)
            for title, scores in (
                ("Walk-forward, all folds", walked.get("pooled")),
                ("Promotion window", promotion.get("pooled")),
                ("Promotion window, trending", promotion.get("trending")),
                ("Promotion window, ranging", promotion.get("ranging")),
            )
            if scores
        ],
        candidates_chart=_div(_candidates_figure(walked["overfitting"])) if walked.get("overfitting") else "",
        regime_chart=_div(_regime_figure(metrics["regimes"])) if metrics.get("regimes") else "",
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(html, encoding="utf-8")


def _day(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d")


def _number(value: object, digits: int = 4) -> str:
    """A figure with so many digits; a dash for what is unknown."""
    return f"{value:.{digits}f}" if isinstance(value, int | float) and value == value else "–"


def _div(figure: go.Figure) -> str:
    html: str = figure.to_html(
        full_html=False, include_plotlyjs=False, config={"displaylogo": False, "responsive": True}
    )
    return html


def _fold_figure(folds: Sequence[Mapping[str, Any]]) -> go.Figure:
    """Gain in log-loss over the base rate and expectancy of the chain's trades, fold by fold."""
    names = [f"{_day(fold['test_start_ms'])}<br>to {_day(fold['test_end_ms'])}" for fold in folds]
    gains = [fold.get("log_loss_gain") for fold in folds]
    worth = [fold.get("trades", {}).get("expectancy_r") for fold in folds]
    figure = make_subplots(rows=1, cols=2, subplot_titles=("Log-loss gain over the base rate", "Expectancy in R"))
    for column, values in enumerate((gains, worth), start=1):
        colours = [_GREEN if value is not None and value > 0 else _RED for value in values]
        figure.add_trace(go.Bar(x=names, y=values, marker={"color": colours}), row=1, col=column)
    figure.update_layout(**_LAYOUT, height=300, showlegend=False)
    return figure


def _curve_figure(classes: Mapping[str, Mapping[str, Any]]) -> go.Figure:
    """Said against seen in bins of equal mass; the closer to the diagonal, the more a probability means itself."""
    figure = go.Figure()
    most = max((max(p, o) for scores in classes.values() for p, o, _ in scores["curve"]), default=1.0)
    figure.add_trace(go.Scatter(x=[0, most], y=[0, most], line={"color": _GREY, "dash": "dot"}, name="perfect"))
    for (name, scores), colour in zip(classes.items(), _CLASS_COLOURS, strict=False):
        figure.add_trace(
            go.Scatter(
                x=[point[0] for point in scores["curve"]],
                y=[point[1] for point in scores["curve"]],
                mode="lines+markers",
                line={"color": colour},
                name=name,
            )
        )
    figure.update_layout(**_LAYOUT, height=360, xaxis_title="predicted", yaxis_title="observed")
    return figure


def _candidates_figure(overfitting: Mapping[str, Any]) -> go.Figure:
    """What each choice that was not made would have brought over all folds, in R of independent entries."""
    names = list(overfitting["candidates"])[::-1]
    values = [overfitting["candidates"][name] for name in names]
    colours = [_AMBER if name.startswith("ensemble") else _BLUE for name in names]
    figure = go.Figure(go.Bar(x=values, y=names, orientation="h", marker={"color": colours}))
    figure.update_layout(
        **{**_LAYOUT, "margin": {"l": 170, "r": 16, "t": 16, "b": 32}}, height=80 + 20 * len(names), showlegend=False
    )
    return figure


def _regime_figure(regimes: Mapping[str, Any]) -> go.Figure:
    """Share of time in each regime, and where one leads within a bar."""
    names = regimes["names"]
    figure = make_subplots(
        rows=1, cols=2, column_widths=[0.35, 0.65], subplot_titles=("Share of time", "Next bar's regime, by row")
    )
    figure.add_trace(go.Bar(x=names, y=regimes["shares"], marker={"color": _BLUE}), row=1, col=1)
    figure.add_trace(
        go.Heatmap(
            z=regimes["transitions"], x=names, y=names, colorscale="Blues", texttemplate="%{z:.3f}", showscale=False
        ),
        row=1,
        col=2,
    )
    figure.update_layout(**_LAYOUT, height=380, showlegend=False)
    return figure
