"""Every read of the status app, as named SQL over one account. Nothing here writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from tradewind.adapters.database import Database

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Window:
    """Which rows of a list: newest first within [start, end), after skipping `offset`."""

    limit: int = 100
    offset: int = 0
    start: datetime | None = None
    end: datetime | None = None
    symbol: str | None = None

    def values(self, account: str) -> Row:
        """Bound parameters; one row more than asked for says whether there is a next page."""
        return {
            "account": account,
            "limit": self.limit + 1,
            "offset": self.offset,
            "start": self.start,
            "end": self.end,
            "symbol": self.symbol,
        }


_PAGE: Final = "LIMIT %(limit)s OFFSET %(offset)s"


def _within(column: str) -> str:
    return (
        f"(%(start)s::timestamptz IS NULL OR {column} >= %(start)s) "
        f"AND (%(end)s::timestamptz IS NULL OR {column} < %(end)s) "
    )


_SYMBOL: Final = "AND (%(symbol)s::text IS NULL OR symbol = %(symbol)s) "


class Queries:
    """Reads of one account's rows."""

    def __init__(self, database: Database, account: str) -> None:
        self._database = database
        self._account = account

    def _rows(self, sql: str, **values: Any) -> list[Row]:
        return self._database.rows(sql, {"account": self._account, **values})

    def _row(self, sql: str, **values: Any) -> Row | None:
        return self._database.row(sql, {"account": self._account, **values})

    # ---------------------------------------------------------------------------------------------------------- safety
    LATCH: Final = "SELECT mode, reason, since, sequence FROM latches WHERE account = %(account)s"

    def latch(self) -> Row:
        """The latch; active and never touched when there is no row."""
        return self._row(self.LATCH) or {"mode": "active", "reason": "", "since": None, "sequence": 0}

    FLATTENING: Final = """
        SELECT started_at, last_attempt_at, attempts, verified_flat_at FROM flattenings
        WHERE account = %(account)s AND latch_sequence = %(sequence)s"""

    def flattening(self, sequence: int) -> Row | None:
        """The work of flattening after one latch."""
        return self._row(self.FLATTENING, sequence=sequence)

    HEARTBEATS: Final = """
        SELECT name, at, extract(epoch FROM clock_timestamp() - at)::float8 AS age_s FROM heartbeats
        WHERE account = %(account)s ORDER BY name"""

    def heartbeats(self) -> list[Row]:
        return self._rows(self.HEARTBEATS)

    RECONCILIATION: Final = """
        SELECT at, clean, report FROM reconciliations WHERE account = %(account)s
        ORDER BY at DESC, reconciliation_id DESC LIMIT 1"""

    def last_reconciliation(self) -> Row | None:
        return self._row(self.RECONCILIATION)

    UNPROTECTED: Final = """
        SELECT s.position_id, p.symbol, s.cause, s.started_at FROM unprotected_spans s JOIN positions p USING (position_id)
        WHERE p.account = %(account)s AND s.ended_at IS NULL ORDER BY s.started_at"""

    def unprotected(self) -> list[Row]:
        """Positions without protection at the exchange right now."""
        return self._rows(self.UNPROTECTED)

    ALERTS: Final = """
        SELECT alert_id, severity, key, title, body, created_at, last_seen_at, repeats, sent_at FROM alerts
        ORDER BY last_seen_at DESC LIMIT %(limit)s"""

    def alerts(self, limit: int) -> list[Row]:
        return self._rows(self.ALERTS, limit=limit)

    AUDIT: Final = """
        SELECT at, actor, action, outcome, detail, source FROM audit ORDER BY audit_id DESC LIMIT %(limit)s"""

    def audit(self, limit: int) -> list[Row]:
        return self._rows(self.AUDIT, limit=limit)

    # ---------------------------------------------------------------------------------------------------------- equity
    LAST_EQUITY: Final = """
        SELECT at, equity_quote, detail FROM equity WHERE account = %(account)s AND kind = 'mark'
        ORDER BY at DESC LIMIT 1"""

    def last_equity(self) -> Row | None:
        return self._row(self.LAST_EQUITY)

    DAY_OPEN: Final = """
        SELECT at, equity_quote FROM equity
        WHERE account = %(account)s AND kind = 'day_open' AND at <= %(moment)s ORDER BY at DESC LIMIT 1"""

    def day_open(self, moment: datetime) -> Row | None:
        """The newest opening at or before a moment of the market's clock."""
        return self._row(self.DAY_OPEN, moment=moment)

    FIRST_EQUITY: Final = """
        SELECT at, equity_quote FROM equity WHERE account = %(account)s ORDER BY at LIMIT 1"""

    def first_equity(self) -> Row | None:
        return self._row(self.FIRST_EQUITY)

    PEAK: Final = """
        SELECT max(equity_quote) AS peak FROM equity WHERE account = %(account)s AND at >= coalesce((
            SELECT max(at) FROM equity WHERE account = %(account)s AND kind = 'day_open' AND detail ? 'resumed_by'
        ), '-infinity')"""

    def peak_equity(self) -> Any:
        """The highest reading since the last resume; None before the first."""
        row = self._row(self.PEAK)
        return row["peak"] if row else None

    # Each bucket keeps its last mark and its lowest, so that thinning never hides a loss.
    EQUITY: Final = f"""
        WITH marks AS (
            SELECT at, equity_quote FROM equity
            WHERE account = %(account)s AND kind = 'mark' AND {_within("at")}
        ), span AS (
            SELECT greatest(1.0, extract(epoch FROM max(at) - min(at)) / %(points)s)::float8 AS bucket_s FROM marks
        )
        SELECT max(at) AS at, (array_agg(equity_quote ORDER BY at DESC))[1] AS equity_quote,
               min(equity_quote) AS low_quote
        FROM marks, span GROUP BY floor(extract(epoch FROM at) / bucket_s) ORDER BY 1"""  # noqa: S608 - constants only

    def equity(self, start: datetime | None, end: datetime | None, points: int) -> list[Row]:
        """Marked equity, oldest first, thinned to about `points` buckets."""
        return self._rows(self.EQUITY, start=start, end=end, points=points)

    DAY_OPENS: Final = f"""
        SELECT at, equity_quote FROM equity
        WHERE account = %(account)s AND kind = 'day_open' AND {_within("at")} ORDER BY at"""  # noqa: S608

    def day_opens(self, start: datetime | None, end: datetime | None) -> list[Row]:
        """Opening equities, oldest first: what the breaker compares with."""
        return self._rows(self.DAY_OPENS, start=start, end=end)

    # ---------------------------------------------------------------------------------------------- positions and orders
    # The books are read as they lie; what a stop protects is the sum of the stop orders that rest for the position.
    POSITIONS: Final = f"""
        SELECT p.position_id, p.symbol, p.side, p.family, p.status, p.strategy_version, p.bar, p.opened_at, p.closed_at,
               p.quantity, p.entry_quantity, p.entry_price, p.initial_stop_price, p.stop_price, p.target_price,
               p.realised_quote, p.fees_quote, p.exit_reason, p.managed_bar, p.atr_quote,
               CASE WHEN p.entry_price IS NOT NULL AND p.status IN ('closed', 'dust')
                         AND p.entry_price <> p.initial_stop_price AND p.entry_quantity > 0
                    THEN (p.realised_quote / (abs(p.entry_price - p.initial_stop_price) * p.entry_quantity))::float8
               END AS realised_r,
               c.close AS last_close, c.open_time AS last_bar,
               (SELECT coalesce(sum(o.quantity - o.filled_quantity), 0) FROM orders o
                WHERE o.position_id = p.position_id AND o.role = 'stop' AND o.state IN ('working', 'partial')
               ) AS protected_quantity
        FROM positions p
        LEFT JOIN LATERAL (
            SELECT close, open_time FROM candles
            WHERE symbol = p.symbol AND timeframe = '15m' AND p.status IN ('opening', 'open', 'closing')
            ORDER BY open_time DESC LIMIT 1
        ) c ON true
        WHERE p.account = %(account)s AND (%(live)s::boolean IS NULL OR %(live)s = (p.status IN ('opening', 'open', 'closing')))
          AND (%(symbol)s::text IS NULL OR p.symbol = %(symbol)s)
          AND {_within("coalesce(p.opened_at, p.bar)")}
        ORDER BY coalesce(p.opened_at, p.bar) DESC, p.position_id {_PAGE}"""  # noqa: S608

    def positions(self, window: Window, live: bool | None) -> list[Row]:
        """Positions newest first: only live ones, only ended ones, or all."""
        return self._rows(self.POSITIONS, **window.values(self._account), live=live)

    ORDERS: Final = f"""
        SELECT client_order_id, position_id, symbol, role, is_buy, lot, generation, order_type, quantity, price, stop_price,
               list_client_id, state, exchange_order_id, filled_quantity, planned_at, sent_at, updated_at, reason
        FROM orders
        WHERE account = %(account)s AND {_within("planned_at")} {_SYMBOL}
          AND (%(states)s::text[] IS NULL OR state = ANY(%(states)s))
        ORDER BY planned_at DESC, client_order_id {_PAGE}"""  # noqa: S608

    def orders(self, window: Window, states: Sequence[str] | None) -> list[Row]:
        return self._rows(self.ORDERS, **window.values(self._account), states=list(states) if states else None)

    ORDER_STATES: Final = """
        SELECT state, count(*) AS orders FROM orders
        WHERE account = %(account)s AND state IN ('planned', 'sent', 'working', 'partial', 'unknown') GROUP BY state"""

    def live_order_states(self) -> dict[str, int]:
        """How many orders are in each state that has not ended."""
        return {row["state"]: row["orders"] for row in self._rows(self.ORDER_STATES)}

    FILLS: Final = f"""
        SELECT f.at, f.symbol, f.trade_id, f.client_order_id, o.position_id, o.role, f.is_buy, f.quantity, f.price, f.fee,
               f.fee_asset, f.is_maker
        FROM fills f LEFT JOIN orders o USING (client_order_id)
        WHERE f.account = %(account)s AND {_within("f.at")} AND (%(symbol)s::text IS NULL OR f.symbol = %(symbol)s)
        ORDER BY f.at DESC, f.trade_id DESC {_PAGE}"""  # noqa: S608

    def fills(self, window: Window) -> list[Row]:
        return self._rows(self.FILLS, **window.values(self._account))

    FEES: Final = f"""
        SELECT date_trunc('day', at AT TIME ZONE 'UTC')::date AS day, symbol, fee_asset, sum(fee) AS fee,
               sum(quantity * price) AS turnover_quote, count(*) AS fills
        FROM fills
        WHERE account = %(account)s AND {_within("at")} {_SYMBOL}
        GROUP BY 1, 2, 3 ORDER BY 1 DESC, 2, 3 {_PAGE}"""  # noqa: S608

    def fees(self, window: Window) -> list[Row]:
        """Fees a UTC day, symbol and asset."""
        return self._rows(self.FEES, **window.values(self._account))

    TOTALS: Final = """
        SELECT count(*) AS closed, count(*) FILTER (WHERE realised_quote > 0) AS won,
               coalesce(sum(realised_quote), 0) AS realised_quote, coalesce(sum(fees_quote), 0) AS fees_quote
        FROM positions WHERE account = %(account)s AND status IN ('closed', 'dust')"""

    def trade_totals(self) -> Row:
        row = self._row(self.TOTALS)
        assert row is not None  # an aggregate always has a row
        return row

    # ------------------------------------------------------------------------------------------------------- decisions
    CYCLES: Final = """
        SELECT bar, state, run_id, detail, recorded_at FROM cycles
        WHERE account = %(account)s ORDER BY bar DESC LIMIT %(limit)s"""

    def cycles(self, limit: int) -> list[Row]:
        return self._rows(self.CYCLES, limit=limit)

    DECISIONS: Final = f"""
        SELECT symbol, bar, strategy_version, outcome, reason, intent_id, decision, created_at FROM decisions
        WHERE account = %(account)s AND {_within("bar")} {_SYMBOL}
          AND (%(bar)s::timestamptz IS NULL OR bar = %(bar)s)
          AND (%(outcome)s::text IS NULL OR outcome = %(outcome)s)
        ORDER BY bar DESC, symbol {_PAGE}"""  # noqa: S608

    def decisions(self, window: Window, bar: datetime | None = None, outcome: str | None = None) -> list[Row]:
        return self._rows(self.DECISIONS, **window.values(self._account), bar=bar, outcome=outcome)

    LAST_DECIDED_BAR: Final = "SELECT max(bar) AS bar FROM decisions WHERE account = %(account)s"

    def last_decided_bar(self) -> datetime | None:
        row = self._row(self.LAST_DECIDED_BAR)
        return row["bar"] if row else None

    FUNNEL: Final = """
        SELECT outcome, count(*) AS decisions FROM decisions
        WHERE account = %(account)s AND bar >= %(since)s GROUP BY outcome"""

    def outcomes_since(self, since: datetime) -> dict[str, int]:
        return {row["outcome"]: row["decisions"] for row in self._rows(self.FUNNEL, since=since)}

    # --------------------------------------------------------------------------------------------- market data and signals
    FRESHNESS: Final = """
        SELECT wanted.symbol, t.timeframe, c.open_time AS last_open
        FROM unnest(%(symbols)s::text[]) AS wanted (symbol)
        CROSS JOIN (VALUES ('15m'), ('1h')) AS t (timeframe)
        LEFT JOIN LATERAL (
            SELECT open_time FROM candles WHERE symbol = wanted.symbol AND timeframe = t.timeframe
            ORDER BY open_time DESC LIMIT 1
        ) c ON true"""

    def freshness(self, symbols: Sequence[str]) -> list[Row]:
        """The newest stored bar of each series."""
        return self._rows(self.FRESHNESS, symbols=list(symbols))

    CANDLES: Final = """
        SELECT open_time, open, high, low, close, volume FROM candles
        WHERE symbol = %(symbol)s AND timeframe = %(timeframe)s AND (%(end)s::timestamptz IS NULL OR open_time < %(end)s)
        ORDER BY open_time DESC LIMIT %(limit)s"""

    def candles(self, symbol: str, timeframe: str, end: datetime | None, limit: int) -> list[Row]:
        """The newest bars before `end`, oldest first."""
        rows = self._rows(self.CANDLES, symbol=symbol, timeframe=timeframe, end=end, limit=limit)
        return rows[::-1]

    STOP_MOVES: Final = """
        SELECT e.position_id, e.event, e.detail, e.at FROM position_events e JOIN positions p USING (position_id)
        WHERE p.account = %(account)s AND p.symbol = %(symbol)s AND e.at >= %(since)s ORDER BY e.event_id"""

    def position_events(self, symbol: str, since: datetime) -> list[Row]:
        return self._rows(self.STOP_MOVES, symbol=symbol, since=since)

    REGIMES: Final = f"""
        SELECT symbol, bar, regime, family, adx, natr_ratio, natr_quantile, bandwidth_quantile FROM regimes
        WHERE {_within("bar")} {_SYMBOL} AND params_hash = coalesce(%(params_hash)s, params_hash)
        ORDER BY bar DESC, symbol {_PAGE}"""  # noqa: S608

    def regimes(self, window: Window, params_hash: str | None) -> list[Row]:
        return self._rows(self.REGIMES, **window.values(self._account), params_hash=params_hash)

    NEWEST_REGIMES: Final = """
        SELECT r.symbol, r.bar, r.regime, r.family, r.adx, r.natr_ratio, r.natr_quantile, r.bandwidth_quantile
        FROM unnest(%(symbols)s::text[]) AS wanted (symbol)
        CROSS JOIN LATERAL (
            SELECT * FROM regimes WHERE symbol = wanted.symbol AND params_hash = %(params_hash)s ORDER BY bar DESC LIMIT 1
        ) r"""

    def newest_regimes(self, symbols: Sequence[str], params_hash: str) -> list[Row]:
        return self._rows(self.NEWEST_REGIMES, symbols=list(symbols), params_hash=params_hash)

    REGIME_SHARES: Final = """
        SELECT r.symbol, r.regime, count(*) AS bars
        FROM unnest(%(symbols)s::text[]) AS wanted (symbol)
        CROSS JOIN LATERAL (
            SELECT symbol, regime FROM regimes
            WHERE symbol = wanted.symbol AND params_hash = %(params_hash)s ORDER BY bar DESC LIMIT %(bars)s
        ) r GROUP BY 1, 2"""

    def regime_shares(self, symbols: Sequence[str], params_hash: str, bars: int) -> list[Row]:
        """How many of each symbol's last bars were in each regime."""
        return self._rows(self.REGIME_SHARES, symbols=list(symbols), params_hash=params_hash, bars=bars)

    SENTIMENT: Final = f"""
        SELECT symbol, as_of, score, weight, status, scorer FROM sentiment
        WHERE {_within("as_of")} {_SYMBOL}
        ORDER BY as_of DESC, symbol {_PAGE}"""  # noqa: S608

    def sentiment(self, window: Window) -> list[Row]:
        return self._rows(self.SENTIMENT, **window.values(self._account))

    ARTICLES: Final = """
        SELECT a.article_id, a.feed, a.title, a.link, a.symbols, a.published_at, a.seen_at, s.scorer, s.score, s.scored_at
        FROM articles a LEFT JOIN LATERAL (
            SELECT scorer, score, scored_at FROM article_scores WHERE article_id = a.article_id
            ORDER BY scored_at DESC LIMIT 1
        ) s ON true
        ORDER BY a.published_at DESC, a.article_id LIMIT %(limit)s"""

    def articles(self, limit: int) -> list[Row]:
        return self._rows(self.ARTICLES, limit=limit)

    FEEDS: Final = "SELECT feed, fetched_at, last_error FROM feed_states ORDER BY feed"

    def feeds(self) -> list[Row]:
        return self._rows(self.FEEDS)

    # ---------------------------------------------------------------------------------------------------- models and jobs
    MODELS: Final = f"""
        SELECT version, state, manifest, trained_from, trained_until, created_at FROM models
        WHERE {_within("created_at")}
        ORDER BY (state = 'champion') DESC, created_at DESC, version {_PAGE}"""  # noqa: S608

    def models(self, window: Window) -> list[Row]:
        """Versions, the champion first."""
        return self._rows(self.MODELS, **window.values(self._account))

    GATES: Final = """
        SELECT version, gate, passed, numbers FROM model_gates WHERE version = ANY(%(versions)s) ORDER BY version, gate"""

    def gates(self, versions: Sequence[str]) -> list[Row]:
        return self._rows(self.GATES, versions=list(versions))

    TRAINING: Final = """
        SELECT run_id, reason, state, started_at, finished_at FROM training_runs ORDER BY started_at DESC LIMIT %(limit)s"""

    def training_runs(self, limit: int) -> list[Row]:
        return self._rows(self.TRAINING, limit=limit)

    DRIFT: Final = "SELECT at, version, alarmed FROM drift_reports ORDER BY at DESC LIMIT 1"

    def last_drift(self) -> Row | None:
        return self._row(self.DRIFT)

    JOBS: Final = """
        SELECT j.job_id, j.kind, j.state, j.params, j.dag_id, j.dag_run_id, j.requested_by, j.created_at, j.started_at,
               j.finished_at, j.error, c.chunks, c.chunks_done, c.rows_seen, c.rows_new
        FROM (SELECT * FROM jobs WHERE %(job_id)s::text IS NULL OR job_id = %(job_id)s
              ORDER BY created_at DESC LIMIT %(limit)s) j
        LEFT JOIN LATERAL (
            SELECT count(*) AS chunks, count(done_at) AS chunks_done, coalesce(sum(rows_seen), 0)::bigint AS rows_seen,
                   coalesce(sum(rows_new), 0)::bigint AS rows_new
            FROM history_chunks WHERE job_id = j.job_id
        ) c ON true
        ORDER BY j.created_at DESC"""

    def jobs(self, limit: int) -> list[Row]:
        """Jobs newest first, a history load with its chunks counted."""
        return self._rows(self.JOBS, job_id=None, limit=limit)

    def job(self, job_id: str) -> Row | None:
        return self._row(self.JOBS, job_id=job_id, limit=1)
