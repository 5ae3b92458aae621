"""Rows as the templates show them: how a number, a time, a verdict reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

Row = dict[str, Any]


# ------------------------------------------------------------------------------------------------------------- numbers
def quote(value: Any, digits: int = 2) -> str:
    """An amount with thousands separated by thin spaces; a dash for nothing."""
    if value is None:
        return "–"
    return f"{Decimal(value):,.{digits}f}".replace(",", "\u2009").replace("-", "−")


def signed(value: Any, digits: int = 2) -> str:
    if value is None:
        return "–"
    number = Decimal(str(value))
    return ("+" if number > 0 else "") + quote(number, digits)


def percent(value: float | None, digits: int = 2, *, sign: bool = True) -> str:
    if value is None:
        return "–"
    text = f"{value * 100:+.{digits}f}" if sign else f"{value * 100:.{digits}f}"
    return text.replace("-", "−") + "\u202f%"


def price(value: Any) -> str:
    """A price with as many digits as it needs: five or six significant ones."""
    if value is None:
        return "–"
    number = float(value)
    digits = 2 if abs(number) >= 1000 else 3 if abs(number) >= 10 else 4 if abs(number) >= 1 else 6
    return quote(Decimal(str(value)), digits)


def quantity(value: Any) -> str:
    if value is None:
        return "–"
    return f"{Decimal(value).normalize():f}"


def number(value: Any, digits: int = 2) -> str:
    """A plain number of unknown kind, as verdicts and metrics carry them."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return quote(Decimal(value), 0)
    if isinstance(value, float):
        return f"{value:.{digits + 2}g}".replace("-", "−") if abs(value) < 1 else quote(Decimal(str(value)), digits)
    return str(value)


def tone(value: Any) -> str:
    """The class that colours a result."""
    if value is None or float(value) == 0:
        return ""
    return "good" if float(value) > 0 else "bad"


# --------------------------------------------------------------------------------------------------------------- times
def moment(value: datetime | None) -> str:
    return value.astimezone(UTC).strftime("%d %b %H:%M") if value else "–"


def iso(value: datetime | None) -> str:
    return value.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z") if value else ""


def span(seconds: float | None) -> str:
    """A duration in its largest sensible unit."""
    if seconds is None:
        return "–"
    seconds = abs(seconds)
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def ago(value: datetime | None, now: datetime) -> str:
    return "never" if value is None else f"{span((now - value).total_seconds())} ago"


# ----------------------------------------------------------------------------------------------------------- decisions
def words(name: str) -> str:
    """`higher_timeframe_trend` as a person writes it."""
    return name.replace("_", " ")


def decision_table(rows: Sequence[Row]) -> list[Row]:
    """One entry a symbol: its outcome, its probabilities, and each filter's verdict in order."""
    table = []
    for row in rows:
        decision = row["decision"]
        prediction = decision.get("prediction") or {}
        intent = decision.get("intent") or {}
        verdicts = decision.get("verdicts") or []
        table.append(
            {
                "symbol": row["symbol"],
                "outcome": row["outcome"],
                "reason": row["reason"],
                "p_long": prediction.get("p_long"),
                "p_short": prediction.get("p_short"),
                "p_neither": prediction.get("p_neither"),
                "expected_r": prediction.get("expected_r_long"),
                "regime": (decision.get("regime") or {}).get("regime"),
                "sentiment": decision.get("sentiment") or {},
                "verdicts": verdicts,
                "passed": sum(1 for verdict in verdicts if verdict["passed"]),
                "intent": intent,
            }
        )
    return table


# --------------------------------------------------------------------------------------------------- market and models
def regime_rows(symbols: Sequence[str], newest: Sequence[Row], steps: Sequence[Row]) -> list[Row]:
    """One entry a symbol: its regime now and the share of the last week in each."""
    current = {row["symbol"]: row for row in newest}
    answer = []
    for symbol in symbols:
        own: Counter[str] = Counter()
        for row in steps:
            if row["symbol"] == symbol:
                own[row["regime"]] += row["bars"]
        total = sum(own.values())
        answer.append(
            {
                "symbol": symbol,
                "now": current.get(symbol),
                "shares": [(regime, own[regime] / total) for regime in REGIMES if regime in own],
            }
        )
    return answer


def transition_table(steps: Sequence[Row]) -> list[Row]:
    """One row a regime that was left or kept: how many bars, and the share of each regime that followed."""
    table = []
    for before in REGIMES:
        followed: Counter[str] = Counter()
        for row in steps:
            if row["before"] == before:
                followed[row["regime"]] += row["bars"]
        if total := followed.total():
            shares = [(regime, followed[regime] / total) for regime in REGIMES]
            table.append({"before": before, "bars": total, "shares": shares})
    return table


REGIMES = (
    "trending_strong",
    "trending_weak",
    "ranging_volatile",
    "ranging_quiet",
    "ranging_squeeze",
    "chaotic",
)


def model_card(model: Row, gates: Sequence[Row]) -> Row:
    """A version with its gates and what it scored on the window that no fit had seen."""
    promotion = _section(model["promotion"])
    pooled, trades = _section(promotion, "pooled"), _section(promotion, "trades")
    figures = [
        ("log-loss", pooled.get("log_loss"), pooled.get("base_log_loss")),
        ("Brier score", pooled.get("brier"), pooled.get("base_brier")),
        ("rows", pooled.get("rows"), None),
        ("days", promotion.get("days"), None),
        ("trades", trades.get("trades"), None),
        ("expectancy, R", trades.get("expectancy_r"), None),
        ("its 5 % bound, R", trades.get("expectancy_r_low"), None),
        ("profit factor", trades.get("profit_factor"), None),
        ("won", trades.get("win_share"), None),
    ]
    classes = [
        {
            "name": words(name),
            "auc": scores.get("auc"),
            "calibration_error": scores.get("calibration_error"),
            "points": [(100 * predicted, 100 - 100 * observed) for predicted, observed, _ in scores.get("curve", [])],
        }
        for name, scores in _section(pooled, "classes").items()
    ]
    return {
        **model,
        "gates": list(gates),
        "figures": [figure for figure in figures if figure[1] is not None],
        "classes": classes,
        "shortened": bool(promotion.get("shortened")),
    }


def _section(mapping: Any, *path: str) -> Mapping[str, Any]:
    """A nested mapping by its path; empty where a manifest of another version has no such section."""
    for name in path:
        mapping = mapping.get(name) if isinstance(mapping, Mapping) else None
    return mapping if isinstance(mapping, Mapping) else {}


def job_row(job: Row, counted: Row | None = None) -> Row:
    """A job with the share of its work that is done (None where nobody counts) and, by `counted`, of each series."""
    share = 1.0 if job["state"] == "done" else counted["percent"] / 100 if counted else None
    ended = job["finished_at"] or (datetime.now(UTC) if job["started_at"] else None)
    took: timedelta | None = ended - job["started_at"] if ended and job["started_at"] else None
    return {
        **job,
        "share": share,
        "took_s": took.total_seconds() if took else None,
        "left_s": counted["eta_s"] if counted else None,
        "series": counted["series"] if counted else {},
    }


def web_link(link: str) -> str:
    """An article's link where it is a web address, else nothing: other schemes could run script."""
    return link if link.startswith(("http://", "https://")) else ""


HELPERS: dict[str, Any] = {
    "quote": quote,
    "signed": signed,
    "percent": percent,
    "price": price,
    "quantity": quantity,
    "number": number,
    "tone": tone,
    "moment": moment,
    "iso": iso,
    "span": span,
    "ago": ago,
    "words": words,
    "web_link": web_link,
}
