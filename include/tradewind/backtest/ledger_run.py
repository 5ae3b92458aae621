"""A `RunResult` from what a live or paper account left in the database, so that both kinds of run share one report."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from tradewind.adapters.database import Database
from tradewind.adapters.equity_store import read_links
from tradewind.core.transfers import Reading, in_todays_money
from tradewind.core.types import Bars, Side

from .results import EquityPoint, FunnelRow, RunResult, Trade

_TRADES = """
SELECT p.*, r.regime,
       (SELECT sum(f.quantity * f.price) / sum(f.quantity) FROM fills f JOIN orders o USING (client_order_id)
        WHERE o.position_id = p.position_id AND o.role <> 'entry') AS exit_price,
       (SELECT json_agg(json_build_array(o.planned_at, o.stop_price) ORDER BY o.planned_at, o.generation)
        FROM orders o WHERE o.position_id = p.position_id AND o.role = 'stop' AND o.state <> 'rejected'
          AND o.stop_price IS NOT NULL) AS stops
FROM positions p LEFT JOIN LATERAL (
    SELECT regime FROM regimes WHERE symbol = p.symbol AND bar = p.bar LIMIT 1) r ON true
WHERE p.account = %(account)s AND p.status IN ('closed', 'dust') AND p.entry_price IS NOT NULL
ORDER BY p.closed_at
"""
_EQUITY = """
SELECT at, equity_quote, link_id AS link FROM equity WHERE account = %(account)s ORDER BY at, reading_id
"""
_DECISIONS = """
SELECT symbol, bar, outcome, reason, decision FROM decisions
WHERE account = %(account)s ORDER BY bar DESC, symbol LIMIT %(limit)s
"""
_FUNNEL = """
WITH judged AS (
    SELECT v.symbol, v.bar, e.ordinality AS place, e.value->>'filter' AS filter, (e.value->>'passed')::boolean AS passed
    FROM filter_verdicts v, jsonb_array_elements(v.verdicts) WITH ORDINALITY e
    WHERE v.account = %(account)s
), firsts AS (
    SELECT DISTINCT ON (symbol, bar) symbol, bar, filter FROM judged WHERE NOT passed ORDER BY symbol, bar, place
)
SELECT j.filter, min(j.place) AS place, count(*) FILTER (WHERE j.passed) AS passed,
       count(*) FILTER (WHERE NOT j.passed) AS refused,
       (SELECT count(*) FROM firsts f WHERE f.filter = j.filter) AS first_refusals
FROM judged j GROUP BY j.filter ORDER BY place
"""


def read_run(
    database: Database,
    account: str,
    *,
    title: str,
    labels: Sequence[str],
    strategy_version: str,
    bars: dict[str, Bars],
    end: datetime,
    decisions_shown: int = 400,
) -> RunResult:
    """All closed positions, equity marks, verdicts and the newest decisions of `account`.

    `bars` are the candles to draw the trades on. The run starts at the first equity mark; without any mark it starts
    and ends at `end` with an equity of zero, which the report then shows as it is.
    """
    key = {"account": account}
    links = read_links(database, account)
    readings = [Reading(**row) for row in database.rows(_EQUITY, key)]
    # As the breaker sees them: what was paid in or out since is no result of the run.
    marks = [
        EquityPoint(_ms(reading.at), float(counted))
        for reading in readings
        if (counted := in_todays_money(reading, links)) is not None
    ]
    return RunResult(
        title=title,
        labels=labels,
        strategy_version=strategy_version,
        start_ms=marks[0].at_ms if marks else _ms(end),
        end_ms=_ms(end),
        initial_equity_quote=marks[0].equity_quote if marks else 0.0,
        trades=[_trade(row) for row in database.rows(_TRADES, key)],
        equity=marks,
        funnel=[
            FunnelRow(row["filter"], row["passed"], row["refused"], row["first_refusals"])
            for row in database.rows(_FUNNEL, key)
        ],
        decisions=[_decision(row) for row in database.rows(_DECISIONS, {**key, "limit": decisions_shown})],
        bars=bars,
    )


def _trade(row: dict[str, Any]) -> Trade:
    entry_price, quantity = float(row["entry_price"]), float(row["entry_quantity"])
    risk_quote = abs(entry_price - float(row["initial_stop_price"])) * quantity
    net_quote = float(row["realised_quote"])
    stops = [(_ms(datetime.fromisoformat(at)), float(price)) for at, price in row["stops"] or []]
    return Trade(
        position_id=row["position_id"],
        symbol=row["symbol"],
        side=Side(row["side"]),
        family=row["family"],
        regime=row["regime"] or row["family"],
        bar_ms=_ms(row["bar"]),
        entry_ms=_ms(row["opened_at"]),
        entry_price=entry_price,
        exit_ms=_ms(row["closed_at"]),
        exit_price=float(row["exit_price"]) if row["exit_price"] is not None else entry_price,
        quantity=quantity,
        initial_stop_price=float(row["initial_stop_price"]),
        target_price=float(row["target_price"]),
        stop_path=tuple(stops),
        net_r=net_quote / risk_quote if risk_quote else 0.0,
        net_quote=net_quote,
        fees_quote=float(row["fees_quote"]),
        exit_reason=row["exit_reason"],
    )


def _decision(row: dict[str, Any]) -> dict[str, object]:
    prediction = row["decision"].get("prediction") or {}
    return {
        "bar": f"{row['bar']:%Y-%m-%d %H:%M}",
        "symbol": row["symbol"],
        "outcome": row["outcome"],
        "p long": _rounded(prediction.get("p_long")),
        "p short": _rounded(prediction.get("p_short")),
        "expected R": _rounded(prediction.get("expected_r_long")),
        "regime": (row["decision"].get("regime") or {}).get("regime", ""),
        "reason": row["reason"],
    }


def _rounded(value: float | None) -> str:
    return "" if value is None else f"{float(value):.3f}"


def _ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)
