"""Reads of the safety side, equity, positions, orders and decisions. Nothing here writes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from tradewind.adapters.equity_store import read_links, read_record
from tradewind.core.transfers import EquityLink, EquityRecord, Reading, in_todays_money, rounded

from .reader import PAGE, SYMBOL, Reader, Row, Window, within


def _in_todays_money(rows: Sequence[Row], links: Sequence[EquityLink], *names: str) -> list[Row]:
    """The rows with these columns scaled as the breaker scales its references, but for what cannot be compared."""
    found = []
    for row in rows:
        link = row.pop("link")
        scaled = {name: rounded(in_todays_money(Reading(row["at"], row[name], link), links)) for name in names}
        if None not in scaled.values():
            found.append({**row, **scaled})
    return found


class LedgerQueries(Reader):
    """What was decided, sent, filled and earned."""

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
        ORDER BY reconciliation_id DESC LIMIT 1"""

    def last_reconciliation(self) -> Row | None:
        return self._row(self.RECONCILIATION)

    UNPROTECTED: Final = """
        SELECT s.position_id, p.symbol, s.cause, s.started_at
        FROM unprotected_spans s JOIN positions p USING (position_id)
        WHERE p.account = %(account)s AND s.ended_at IS NULL ORDER BY s.started_at"""

    def unprotected(self) -> list[Row]:
        """Positions without protection at the exchange right now."""
        return self._rows(self.UNPROTECTED)

    ALERTS: Final = """
        SELECT alert_id, severity, key, title, body, created_at, last_seen_at, repeats, sent_at FROM alerts
        WHERE account = %(account)s ORDER BY last_seen_at DESC LIMIT %(limit)s"""

    def alerts(self, limit: int) -> list[Row]:
        return self._rows(self.ALERTS, limit=limit)

    # Rows of before an account was written with each are of the account that the database is stamped with.
    AUDIT: Final = """
        SELECT at, actor, action, outcome, detail, source FROM audit
        WHERE coalesce(detail ->> 'account', (SELECT identity ->> 'account' FROM deployment)) = %(account)s
        ORDER BY audit_id DESC LIMIT %(limit)s"""

    def audit(self, limit: int) -> list[Row]:
        return self._rows(self.AUDIT, limit=limit)

    REFUSAL: Final = """
        SELECT refused.detail -> 'refusals' AS refusals FROM audit refused JOIN audit asked USING (source)
        WHERE refused.action = 'resume' AND refused.outcome = 'refused'
          AND asked.outcome = 'requested' AND asked.detail ->> 'request' = %(request)s LIMIT 1"""

    def resume_refusal(self, request: str) -> str | None:
        """Why a resume that was asked for was refused, in words."""
        row = self._row(self.REFUSAL, request=request)
        return "Refused: " + "; ".join(row["refusals"]) if row else None

    # ---------------------------------------------------------------------------------------------------------- equity
    LAST_EQUITY: Final = """
        SELECT at, equity_quote, detail FROM equity WHERE account = %(account)s AND kind = 'mark'
        ORDER BY at DESC, reading_id DESC LIMIT 1"""

    def last_equity(self) -> Row | None:
        return self._row(self.LAST_EQUITY)

    def equity_record(self, moment: datetime) -> EquityRecord:
        """What the breaker measures equity against at a moment of the market's clock."""
        return read_record(self._database, self.account, moment)

    FIRST_EQUITY: Final = """
        SELECT at, equity_quote, link_id AS link FROM equity WHERE account = %(account)s AND link_id >= %(link)s
        ORDER BY at, reading_id LIMIT 1"""

    def first_equity(self, link: int) -> Reading | None:
        """The first reading of those that were made after a link."""
        row = self._row(self.FIRST_EQUITY, link=link)
        return Reading(**row) if row else None

    # Each bucket keeps its last mark and its lowest, so that thinning never hides a loss.
    EQUITY: Final = f"""
        WITH span AS (
            SELECT greatest(interval '1 minute', (max(at) - min(at)) / %(points)s) AS bucket FROM equity
            WHERE account = %(account)s AND kind = 'mark' AND {within("at")}
        ), buckets AS (
            SELECT max(at) AS at, min(equity_quote) AS low_quote, link_id
            FROM equity, span WHERE account = %(account)s AND kind = 'mark' AND {within("at")}
            GROUP BY date_bin(bucket, at, timestamptz '2000-01-01'), link_id
        )
        SELECT DISTINCT ON (at, link_id) at, e.equity_quote, b.low_quote, link_id AS link
        FROM buckets b JOIN equity e USING (at, link_id)
        WHERE e.account = %(account)s AND e.kind = 'mark'
        ORDER BY at, link_id, e.reading_id DESC"""  # noqa: S608 - constants only

    def links(self) -> tuple[EquityLink, ...]:
        """Where money came or went: what scales the readings before it."""
        return read_links(self._database, self.account)

    def equity(
        self, links: Sequence[EquityLink], start: datetime | None, end: datetime | None, points: int
    ) -> list[Row]:
        """Marked equity in the money of now, oldest first, thinned to about `points` buckets."""
        rows = self._rows(self.EQUITY, start=start, end=end, points=points)
        return _in_todays_money(rows, links, "equity_quote", "low_quote")

    DAY_OPENS: Final = f"""
        SELECT at, equity_quote, link_id AS link FROM equity
        WHERE account = %(account)s AND kind = 'day_open' AND {within("at")} ORDER BY at, reading_id"""  # noqa: S608

    def day_opens(self, links: Sequence[EquityLink], start: datetime | None, end: datetime | None) -> list[Row]:
        """Opening equities in the money of now, oldest first: what the breaker compares with."""
        return _in_todays_money(self._rows(self.DAY_OPENS, start=start, end=end), links, "equity_quote")

    # --------------------------------------------------------------------------------------------- positions and orders
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
        WHERE p.account = %(account)s
          AND (%(live)s::boolean IS NULL OR %(live)s = (p.status IN ('opening', 'open', 'closing')))
          AND (%(symbol)s::text IS NULL OR p.symbol = %(symbol)s)
          AND {within("coalesce(p.opened_at, p.bar)")}
        ORDER BY coalesce(p.opened_at, p.bar) DESC, p.position_id {PAGE}"""  # noqa: S608

    def positions(self, window: Window, live: bool | None) -> list[Row]:
        """Positions newest first: only live ones, only ended ones, or all."""
        return self._rows(self.POSITIONS, **window.values(self.account), live=live)

    ORDERS: Final = f"""
        SELECT client_order_id, position_id, symbol, role, is_buy, lot, generation, order_type, quantity, price,
               stop_price, list_client_id, state, exchange_order_id, filled_quantity, planned_at, sent_at,
               updated_at, reason
        FROM orders
        WHERE account = %(account)s AND {within("planned_at")} {SYMBOL}
          AND (%(states)s::text[] IS NULL OR state = ANY(%(states)s))
        ORDER BY planned_at DESC, client_order_id {PAGE}"""  # noqa: S608

    def orders(self, window: Window, states: Sequence[str] | None) -> list[Row]:
        return self._rows(self.ORDERS, **window.values(self.account), states=list(states) if states else None)

    BAR_ORDERS: Final = """
        SELECT o.client_order_id, o.symbol, o.role, o.is_buy, o.lot, o.order_type, o.quantity, o.price, o.stop_price,
               o.state, o.filled_quantity, o.planned_at, o.updated_at, o.reason
        FROM orders o JOIN positions p USING (position_id)
        WHERE p.account = %(account)s AND p.bar = %(bar)s ORDER BY o.planned_at, o.client_order_id LIMIT %(limit)s"""

    def orders_of_bar(self, bar: datetime, limit: int) -> list[Row]:
        """Every order of the entries that were decided on one bar, oldest first."""
        return self._rows(self.BAR_ORDERS, bar=bar, limit=limit)

    ORDER_STATES: Final = """
        SELECT state, count(*) AS orders FROM orders
        WHERE account = %(account)s AND state IN ('planned', 'sent', 'working', 'partial', 'unknown') GROUP BY state"""

    def live_order_states(self) -> dict[str, int]:
        """How many orders are in each state that has not ended."""
        return {row["state"]: row["orders"] for row in self._rows(self.ORDER_STATES)}

    FILLS: Final = f"""
        SELECT f.at, f.symbol, f.trade_id, f.client_order_id, o.position_id, o.role, f.is_buy, f.quantity, f.price,
               f.fee, f.fee_asset, f.is_maker
        FROM fills f LEFT JOIN orders o USING (client_order_id)
        WHERE f.account = %(account)s AND {within("f.at")} AND (%(symbol)s::text IS NULL OR f.symbol = %(symbol)s)
        ORDER BY f.at DESC, length(f.trade_id) DESC, f.trade_id DESC {PAGE}"""  # noqa: S608

    def fills(self, window: Window) -> list[Row]:
        return self._rows(self.FILLS, **window.values(self.account))

    FEES: Final = f"""
        SELECT date_trunc('day', at AT TIME ZONE 'UTC')::date AS day, symbol, fee_asset, sum(fee) AS fee,
               sum(quantity * price) AS turnover_quote, count(*) AS fills
        FROM fills
        WHERE account = %(account)s AND {within("at")} {SYMBOL}
        GROUP BY 1, 2, 3 ORDER BY 1 DESC, 2, 3 {PAGE}"""  # noqa: S608

    def fees(self, window: Window) -> list[Row]:
        """Fees a UTC day, symbol and asset."""
        return self._rows(self.FEES, **window.values(self.account))

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
        WHERE account = %(account)s AND {within("bar")} {SYMBOL}
          AND (%(bar)s::timestamptz IS NULL OR bar = %(bar)s)
          AND (%(outcome)s::text IS NULL OR outcome = %(outcome)s)
        ORDER BY bar DESC, symbol {PAGE}"""  # noqa: S608

    def decisions(self, window: Window, bar: datetime | None = None, outcome: str | None = None) -> list[Row]:
        return self._rows(self.DECISIONS, **window.values(self.account), bar=bar, outcome=outcome)

    LAST_DECIDED_BAR: Final = "SELECT max(bar) AS bar FROM decisions WHERE account = %(account)s"

    def last_decided_bar(self) -> datetime | None:
        row = self._row(self.LAST_DECIDED_BAR)
        return row["bar"] if row else None

    FUNNEL: Final = """
        SELECT outcome, count(*) AS decisions FROM decisions
        WHERE account = %(account)s AND bar >= %(since)s GROUP BY outcome"""

    def outcomes_since(self, since: datetime) -> dict[str, int]:
        return {row["outcome"]: row["decisions"] for row in self._rows(self.FUNNEL, since=since)}
