"""The whole state in one answer: may it trade, is it making money, is anything wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from tradewind.core.risk import loss_limit_quote
from tradewind.core.transfers import first_comparable, in_todays_money, result_since, rounded
from tradewind.core.types import TradingMode
from tradewind.errors import TradewindError
from tradewind.jobs.fetching import market_symbols
from tradewind.jobs.permission import CLOCKS_DIFFER_S, MAX_RECONCILIATION_AGE_S, WATCH
from tradewind.stack.checks import MONEY_DAGS, Check, watch_check

from .queries import Queries, Row, Snapshot, Window
from .services import Services

_BAR = {"15m": timedelta(minutes=15), "1h": timedelta(hours=1)}
# A bar is stored within a minute or two of its close; twice that is late.
_LATE_AFTER = timedelta(minutes=4)
# Without these no entry is sent. Redis is dispensable, and a process that is started again is named by its part.
_BLOCKING = ("postgresql", "airflow", "exchange", "watch")
_SAID_ALREADY = ("part:", "process:", "dag_failed:", "naked:", "breaker", "halt-")
_RECENT_ALERT = timedelta(hours=24)


def system_status(made: Services) -> dict[str, Any]:
    """Everything at a glance; without PostgreSQL only what can be known without it."""
    checks = made.checks.all()
    failed = {check.name: check for check in checks if not check.ok}
    market_now = _market_now(made) if "exchange" not in failed else None
    answer: dict[str, Any] = {
        "available": "postgresql" not in failed,
        "deployment": _deployment(made),
        "trading": {"allowed": False, "mode": None, "reasons": ["PostgreSQL does not answer"], "since": None},
        "equity": None,
        "positions": [],
        "last_cycle": None,
        "data": [],
        "model": None,
        "sentiment": [],
        "dags": [asdict(dag) for dag in made.checks.dags()],
        "checks": made.checks.as_dicts(),
        "problems": [],
        "clock": {
            "wall": datetime.now(UTC),
            "market": market_now,
            "exchange_offset_ms": next((check.value for check in checks if check.name == "exchange"), None),
        },
    }
    if answer["available"]:
        with made.database.transaction() as connection:
            _fill(answer, made, Queries(Snapshot(connection), made.account), checks)
    else:
        answer["problems"] = [_problem("critical", check.name, check.detail) for check in checks if not check.ok]
    return answer


def _fill(answer: dict[str, Any], made: Services, queries: Queries, checks: Sequence[Check]) -> None:
    """Everything that lies in the rows."""
    # Answers of checks are seconds old; the heartbeat is read again, so that this says "no" when the tasks do.
    beats = {beat["name"]: beat["age_s"] for beat in queries.heartbeats()}
    watch = watch_check(beats.get(WATCH), made.wiring.params.watch_silent_s)
    checks = [watch if check.name == watch.name else check for check in checks]
    answer["checks"] = [asdict(check) for check in checks]
    failed = {check.name: check for check in checks if not check.ok}
    now = answer["clock"]["market"] or datetime.now(UTC)
    answer["equity"] = _equity(queries, made)
    answer["positions"] = [with_r(row) for row in queries.positions(Window(limit=50), True)[:50]]
    answer["last_cycle"] = _last_cycle(queries, now)
    answer["data"] = _freshness(queries, market_symbols(made.wiring), now)
    answer["model"] = _model(queries, made, now)
    answer["sentiment"] = _sentiment(made, now)
    answer["trading"] = _trading(queries, failed, answer, now, made.wiring.params_error)
    answer["problems"] = _problems(queries, checks, answer)


def with_r(position: Row) -> Row:
    """A position row with its unrealised result in R and in quote, and whether its whole quantity is protected.

    R is the distance from the entry to the initial stop; the last stored close stands for the price.
    """
    entry, close = position["entry_price"], position["last_close"]
    sign = 1 if position["side"] == "long" else -1
    distance = abs(entry - position["initial_stop_price"]) if entry is not None else None
    unrealised = r_now = stop_r = None
    if entry is not None and close is not None:
        unrealised = sign * (Decimal(str(close)) - entry) * position["quantity"]
    if entry is not None and close is not None and distance:
        r_now = float(sign * (Decimal(str(close)) - entry) / distance)
    if entry is not None and distance:
        stop_r = float(sign * (position["stop_price"] - entry) / distance)
    held = position["quantity"] > 0
    return {
        **position,
        "unrealised_quote": unrealised,
        "r": r_now,
        "stop_r": stop_r,
        "protected": (position["protected_quantity"] >= position["quantity"] * Decimal("0.999")) if held else None,
    }


def _deployment(made: Services) -> dict[str, Any]:
    settings = made.settings
    synthetic = settings.market == "synthetic"
    return {
        "mode": settings.mode,
        "real_money": settings.mode == "live",
        "market": settings.market,
        "synthetic": synthetic,
        "exchange": settings.exchange,
        "market_type": settings.market_type,
        "account": made.account,
        "symbols": list(made.wiring.symbols),
        "quote": settings.quote_currency,
        "strategy_version": made.wiring.params.strategy_version,
    }


def _market_now(made: Services) -> datetime | None:
    try:
        return made.wiring.clock.now()
    except TradewindError:
        return None


def _equity(queries: Queries, made: Services) -> dict[str, Any] | None:
    last = queries.last_equity()
    if last is None:
        return None
    equity: Decimal = last["equity_quote"]
    record = queries.equity_record(last["at"])
    first = queries.first_equity(first_comparable(record.links))
    opened = record.opening or record.before_midnight
    day_open, peak = rounded(record.day_open_quote), rounded(record.peak_quote)
    trips_at = None if day_open is None else breaker_quote(day_open, made)
    totals = queries.trade_totals()
    return {
        "at": last["at"],
        "equity_quote": equity,
        "unpriced": last["detail"].get("unpriced", []),
        "day_open_quote": day_open,
        "day_quote": None if opened is None else result_since(opened, equity, record.links),
        "day_frac": _change(equity, day_open),
        "total_frac": _change(equity, None if first is None else rounded(in_todays_money(first, record.links))),
        "peak_quote": peak,
        "drawdown_frac": _change(equity, peak),
        "breaker_quote": trips_at,
        "breaker_frac": None if trips_at is None else _change(trips_at, day_open),
        "max_drawdown_frac": -made.wiring.params.max_drawdown_frac,
        "trades_closed": totals["closed"],
        "trades_won": totals["won"],
        "realised_quote": totals["realised_quote"],
        "fees_quote": totals["fees_quote"],
        "blind_spots": record.blind_spots(),
    }


def breaker_quote(day_open: Decimal, made: Services) -> Decimal:
    """The equity at which the day's loss trips the breaker."""
    limit_frac = made.wiring.params.max_daily_loss_frac
    return day_open - loss_limit_quote(day_open, limit_frac, made.settings.max_capital_quote)


def _change(now: Decimal, reference: Decimal | None) -> float | None:
    return float(now / reference - 1) if reference is not None and reference > 0 else None


def _last_cycle(queries: Queries, now: datetime) -> dict[str, Any] | None:
    cycles = queries.cycles(1)
    if not cycles:
        return None
    cycle = cycles[0]
    return {**cycle, "age_s": max(0.0, (now - (cycle["bar"] + _BAR["15m"])).total_seconds())}


def _freshness(queries: Queries, symbols: Sequence[str], now: datetime) -> list[dict[str, Any]]:
    answer = []
    for row in queries.freshness(symbols):
        length = _BAR[row["timeframe"]]
        closed = row["last_open"] + length if row["last_open"] else None
        answer.append(
            {
                "symbol": row["symbol"],
                "timeframe": row["timeframe"],
                "last_open": row["last_open"],
                "age_s": (now - closed).total_seconds() if closed else None,
                "late": closed is None or now - closed > length + _LATE_AFTER,
            }
        )
    return answer


def _model(queries: Queries, made: Services, now: datetime) -> dict[str, Any] | None:
    champion = queries.champion()
    if champion is None:
        return None
    age_s = (now - champion["trained_until"]).total_seconds()
    return {
        "version": champion["version"],
        "trained_until": champion["trained_until"],
        "age_s": age_s,
        "too_old": age_s > made.wiring.params.max_model_age_s,
    }


def _sentiment(made: Services, now: datetime) -> list[dict[str, Any]]:
    states = made.wiring.state_store.sentiment_as_of((*made.wiring.symbols, "*"), now)
    return [
        {
            "symbol": state.symbol,
            "score": state.score,
            "weight": state.weight,
            "status": state.status,
            "scorer": state.scorer,
            "as_of": state.as_of,
        }
        for state in states.values()
    ]


def _trading(
    queries: Queries, failed: dict[str, Check], answer: dict[str, Any], now: datetime, params_error: str
) -> dict[str, Any]:
    """Whether an entry could be sent now, and every reason why not."""
    latch = queries.latch()
    reasons = []
    if latch["mode"] != TradingMode.ACTIVE:
        word = "the breaker is latched" if latch["mode"] == TradingMode.HALTED else "halted by hand"
        reasons.append(f"{word}: {latch['reason']}")
    reasons += [params_error] if params_error else []
    reasons += [f"{check.name}: {check.detail}" for name, check in failed.items() if name in _BLOCKING]
    reasons += answer["equity"]["blind_spots"] if answer["equity"] else queries.equity_record(now).blind_spots()
    reconciliation = queries.last_reconciliation()
    reasons += _reconciliation_reasons(reconciliation)
    if answer["model"] is None:
        reasons.append("no champion model stands yet")
    elif answer["model"]["too_old"]:
        reasons.append("the champion model is too old")
    return {
        "allowed": not reasons,
        "mode": latch["mode"],
        "reasons": reasons,
        "since": latch["since"],
        "sequence": latch["sequence"],
        "flattening": queries.flattening(latch["sequence"]) if latch["mode"] == TradingMode.HALTED else None,
        "reconciled_at": reconciliation["at"] if reconciliation else None,
    }


def _reconciliation_reasons(last: Row | None) -> list[str]:
    """The same conditions as `jobs.permission` sets, read without an exchange client in this process."""
    if last is None:
        return ["exchange and ledger were never compared"]
    reasons = [] if last["clean"] else ["the last reconciliation found a difference"]
    age_s = (datetime.now(UTC) - last["at"]).total_seconds()
    if age_s > MAX_RECONCILIATION_AGE_S:
        reasons.append(f"exchange and ledger were last compared {age_s:.0f} s ago")
    elif age_s < -CLOCKS_DIFFER_S:
        reasons.append(f"the last reconciliation is {-age_s:.0f} s in the future: the clock ran backwards")
    return reasons


def _problems(queries: Queries, checks: Sequence[Check], answer: dict[str, Any]) -> list[dict[str, str]]:
    """What a person should look at, worst first."""
    found = []
    if answer["trading"]["mode"] == TradingMode.HALTED:
        found.append(_problem("critical", "breaker", answer["trading"]["reasons"][0]))
    causes = {span["position_id"]: span["cause"] for span in queries.unprotected()}
    for position in answer["positions"]:
        if position["protected"] is False or position["position_id"] in causes:
            cause = causes.get(position["position_id"], "see manage_positions")
            found.append(_problem("critical", "naked position", f"{position['symbol']} has no resting stop: {cause}"))
    unknown = queries.live_order_states().get("unknown", 0)
    if unknown:
        found.append(_problem("critical", "unknown orders", f"{unknown} orders await reconciliation"))
    found += [_problem("critical", check.name, check.detail) for check in checks if not check.ok]
    cycle = answer["last_cycle"]
    if cycle and cycle["state"] in ("failed", "missed"):
        found.append(_problem("warning", "trade cycle", f"the cycle of {cycle['bar']:%H:%M} {cycle['state']}"))
    late = sorted({row["symbol"] for row in answer["data"] if row["late"]})
    if late:
        found.append(_problem("warning", "data", f"bars are late: {', '.join(late)}"))
    for dag in answer["dags"]:
        if dag["last_state"] == "failed":
            severity = "critical" if dag["dag_id"] in MONEY_DAGS else "warning"
            found.append(_problem(severity, "DAG", f"the last run of {dag['dag_id']} failed"))
        elif dag["paused"] and dag["dag_id"] not in MONEY_DAGS:
            found.append(_problem("warning", "DAG", f"{dag['dag_id']} is paused"))
    found += _alarms(queries.alerts(40))
    return found


def _alarms(alerts: Sequence[Row]) -> list[dict[str, str]]:
    """Alerts of the last day that nobody was sent, except what is over and what the checks above say themselves."""
    recent = datetime.now(UTC) - _RECENT_ALERT
    over = {alert["key"].removesuffix(":over"): alert["last_seen_at"] for alert in alerts if ":over" in alert["key"]}
    return [
        _problem(alert["severity"], "alert", alert["title"])
        for alert in alerts
        if alert["severity"] != "info"
        and alert["sent_at"] is None
        and alert["last_seen_at"] > recent
        and not alert["key"].startswith(_SAID_ALREADY)
        and over.get(alert["key"], recent) < alert["last_seen_at"]
    ]


def _problem(severity: str, what: str, detail: str) -> dict[str, str]:
    return {"severity": severity, "what": what, "detail": detail}
