"""Levels, read from the rows every quarter minute: what a counter in a task cannot tell, because nothing happened."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import psycopg
from redis.exceptions import RedisError

from tradewind.core.risk import loss_limit_quote
from tradewind.core.types import Regime
from tradewind.errors import StoreUnavailable, TradewindError
from tradewind.stack.checks import Check, DagHealth
from tradewind.wiring import Wiring

_log = logging.getLogger(__name__)
_TIGHTNESS: Final = {"active": 0.0, "reduce_only": 1.0, "halted": 2.0}

_MONEY: Final = """
    SELECT at, equity_quote FROM equity WHERE account = %(account)s AND kind = 'mark'
    ORDER BY at DESC, reading_id DESC LIMIT 1"""
_POSITIONS: Final = """
    SELECT count(*) AS open,
           coalesce(sum(p.quantity * c.close), 0)::float8 AS notional_quote,
           coalesce(sum(greatest((p.entry_price - p.stop_price) * p.quantity
                                 * CASE p.side WHEN 'long' THEN 1 ELSE -1 END, 0)), 0)::float8 AS risk_quote
    FROM positions p LEFT JOIN LATERAL (
        SELECT close FROM candles WHERE symbol = p.symbol AND timeframe = '15m' ORDER BY open_time DESC LIMIT 1
    ) c ON true
    WHERE p.account = %(account)s AND p.status IN ('opening', 'open', 'closing')"""
# Cost against what was decided or ordered, in bps, weighted by what was filled; positive is worse than planned.
_SLIPPAGE: Final = """
    SELECT o.role, (sum((f.price / planned.price - 1) * CASE WHEN f.is_buy THEN 1 ELSE -1 END * f.quantity * f.price)
                    / sum(f.quantity * f.price) * 10000)::float8 AS bps
    FROM fills f JOIN orders o USING (client_order_id) JOIN positions p USING (position_id)
    LEFT JOIN candles c ON c.symbol = o.symbol AND c.timeframe = '15m' AND c.open_time = p.bar
    CROSS JOIN LATERAL (SELECT CASE o.role WHEN 'entry' THEN c.close::numeric WHEN 'stop' THEN o.stop_price
                                           WHEN 'target' THEN o.price END AS price) planned
    WHERE f.account = %(account)s AND f.at > %(now)s - interval '30 days' AND planned.price > 0
    GROUP BY o.role"""
_SAFETY: Final = """
    SELECT coalesce((SELECT mode FROM latches WHERE account = %(account)s), 'active') AS latch,
           (SELECT count(*) FROM unprotected_spans s JOIN positions p USING (position_id)
            WHERE p.account = %(account)s AND s.ended_at IS NULL) AS unprotected,
           (SELECT count(*) FROM orders WHERE account = %(account)s AND state IN ('sent', 'unknown')) AS in_doubt,
           (SELECT count(*) FROM alerts WHERE sent_at IS NULL AND created_at > now() - interval '1 day') AS unsent,
           (SELECT extract(epoch FROM clock_timestamp() - max(at))::float8 FROM reconciliations
            WHERE account = %(account)s) AS reconciled_s"""
_HEARTBEATS: Final = """
    SELECT name, extract(epoch FROM clock_timestamp() - at)::float8 AS age_s FROM heartbeats
    WHERE account = %(account)s"""
_CANDLES: Final = """
    SELECT wanted.symbol, t.timeframe, extract(epoch FROM %(now)s - last.open_time)::float8 AS age_s
    FROM unnest(%(symbols)s::text[]) AS wanted (symbol) CROSS JOIN (VALUES ('15m'), ('1h')) AS t (timeframe)
    CROSS JOIN LATERAL (
        SELECT open_time FROM candles WHERE symbol = wanted.symbol AND timeframe = t.timeframe
        ORDER BY open_time DESC LIMIT 1) last"""
_FEEDS: Final = """
    SELECT feed, extract(epoch FROM %(now)s - fetched_at)::float8 AS age_s FROM feed_states
    WHERE fetched_at IS NOT NULL"""
_REGIMES: Final = """
    SELECT wanted.symbol, last.regime
    FROM unnest(%(symbols)s::text[]) AS wanted (symbol) CROSS JOIN LATERAL (
        SELECT regime FROM regimes WHERE symbol = wanted.symbol AND params_hash = %(params_hash)s
        ORDER BY bar DESC LIMIT 1) last"""
_MODEL: Final = """
    SELECT extract(epoch FROM %(now)s - trained_until)::float8 AS age_s,
           manifest #> '{metrics,promotion,pooled,classes}' AS classes
    FROM models WHERE state = 'champion'"""
_DRIFT: Final = "SELECT alarmed, report -> 'calibration_error' AS errors FROM drift_reports ORDER BY at DESC LIMIT 1"


class Gauges:
    """Reads and sends; what cannot be read is left out, so that its gauge goes stale instead of lying."""

    def __init__(self, wiring: Wiring) -> None:
        self._wiring = wiring

    def emit(self, checks: Sequence[Check], dags: Sequence[DagHealth]) -> None:
        """Send every level once."""
        gauge = self._wiring.metrics.gauge
        for check in checks:
            gauge("tradewind.part.up", 1.0 if check.ok else 0.0, part=check.name)
        for dag in dags:
            gauge("tradewind.dag.paused", 1.0 if dag.paused else 0.0, dag=dag.dag_id)
            gauge("tradewind.dag.failed_24h", dag.failed_24h, dag=dag.dag_id)
        failed = {check.name for check in checks if not check.ok}
        parts: list[Callable[[datetime], None]] = []
        if "postgresql" not in failed:
            parts += [self._money, self._safety, self._fills, self._data, self._model]
        if "redis" not in failed:
            parts.append(self._rate_limit)
        try:
            now = self._wiring.clock.now() if "exchange" not in failed else datetime.now(UTC)
            for part in parts:
                part(now)
        except (StoreUnavailable, TradewindError, psycopg.Error, RedisError) as error:
            _log.warning("levels could not be read: %s", error)

    def _rows(self, sql: str, **values: Any) -> list[dict[str, Any]]:
        wiring = self._wiring
        given = {"account": wiring.account, "symbols": list(wiring.symbols), "params_hash": wiring.params.hash}
        return wiring.database.rows(sql, given | values)

    def _money(self, _now: datetime) -> None:
        gauge = self._wiring.metrics.gauge
        (held,) = self._rows(_POSITIONS)
        gauge("tradewind.positions.open", held["open"])
        for money in self._rows(_MONEY):
            equity = float(money["equity_quote"])
            gauge("tradewind.equity_quote", equity)
            gauge("tradewind.exposure_frac", held["notional_quote"] / equity if equity > 0 else 0.0)
            gauge("tradewind.open_risk_frac", held["risk_quote"] / equity if equity > 0 else 0.0)
            store, params = self._wiring.trading_store, self._wiring.params
            peak, day_open = store.peak_equity(), store.day_open_equity(money["at"])
            if peak is not None and peak > 0:
                gauge("tradewind.drawdown_frac", equity / float(peak) - 1)
            if day_open is not None and day_open > 0:
                gauge("tradewind.day_result_frac", equity / float(day_open) - 1)
                limit_quote = loss_limit_quote(day_open, params.max_daily_loss_frac, self._wiring.max_capital_quote)
                gauge("tradewind.day_loss_used_frac", max(0.0, (float(day_open) - equity) / float(limit_quote)))

    def _safety(self, _now: datetime) -> None:
        gauge = self._wiring.metrics.gauge
        (row,) = self._rows(_SAFETY)
        gauge("tradewind.latch.tightness", _TIGHTNESS[row["latch"]])
        gauge("tradewind.positions.without_stop", row["unprotected"])
        gauge("tradewind.orders.in_doubt", row["in_doubt"])
        gauge("tradewind.alerts.unsent", row["unsent"])
        if row["reconciled_s"] is not None:
            gauge("tradewind.reconciliation.age_s", row["reconciled_s"])
        for beat in self._rows(_HEARTBEATS):
            gauge("tradewind.heartbeat.age_s", beat["age_s"], of=beat["name"])

    def _fills(self, now: datetime) -> None:
        for row in self._rows(_SLIPPAGE, now=now):
            self._wiring.metrics.gauge("tradewind.fills.slippage_bps", row["bps"], role=row["role"])

    def _data(self, now: datetime) -> None:
        gauge = self._wiring.metrics.gauge
        for row in self._rows(_CANDLES, now=now):
            gauge("tradewind.candles.age_s", row["age_s"], symbol=row["symbol"], timeframe=row["timeframe"])
        for row in self._rows(_FEEDS, now=now):
            gauge("tradewind.feed.age_s", row["age_s"], feed=row["feed"])
        for row in self._rows(_REGIMES):
            for regime in Regime:
                gauge(
                    "tradewind.regime.active",
                    1.0 if row["regime"] == regime.value else 0.0,
                    symbol=row["symbol"],
                    regime=regime.value,
                )

    def _model(self, now: datetime) -> None:
        gauge = self._wiring.metrics.gauge
        champions = self._rows(_MODEL, now=now)
        gauge("tradewind.model.present", float(len(champions)))
        for champion in champions:
            gauge("tradewind.model.age_s", champion["age_s"])
            for name, scores in (champion["classes"] or {}).items():
                if scores.get("calibration_error") is not None:
                    gauge(
                        "tradewind.model.calibration_error", scores["calibration_error"], outcome=name, seen="promotion"
                    )
        for drift in self._rows(_DRIFT):
            gauge("tradewind.model.drift_alarm", 1.0 if drift["alarmed"] else 0.0)
            for name, error in (drift["errors"] or {}).items():
                gauge("tradewind.model.calibration_error", error, outcome=name, seen="live")

    def _rate_limit(self, _now: datetime) -> None:
        """What is left of the request weight that all processes share."""
        cache = self._wiring.redis
        for key in cache.scan_iter("tradewind:rate:*", count=100):
            tokens, capacity = cache.hmget(key, "tokens", "capacity")
            if tokens is not None and capacity is not None and float(capacity) > 0:
                self._wiring.metrics.gauge("tradewind.exchange.weight_left_frac", float(tokens) / float(capacity))
