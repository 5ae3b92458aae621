"""Reads of candles, regimes, news, models and jobs. Nothing here writes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from .reader import PAGE, SYMBOL, Reader, Row, Window, within


class SignalQueries(Reader):
    """What decisions are made from, and the work that makes it."""

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
        WHERE symbol = %(symbol)s AND timeframe = %(timeframe)s
          AND (%(end)s::timestamptz IS NULL OR open_time < %(end)s)
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
        WHERE {within("bar")} {SYMBOL} AND params_hash = coalesce(%(params_hash)s, params_hash)
        ORDER BY bar DESC, symbol {PAGE}"""  # noqa: S608

    def regimes(self, window: Window, params_hash: str | None) -> list[Row]:
        return self._rows(self.REGIMES, **window.values(self.account), params_hash=params_hash)

    NEWEST_REGIMES: Final = """
        SELECT r.symbol, r.bar, r.regime, r.family, r.adx, r.natr_ratio, r.natr_quantile, r.bandwidth_quantile
        FROM unnest(%(symbols)s::text[]) AS wanted (symbol)
        CROSS JOIN LATERAL (
            SELECT * FROM regimes WHERE symbol = wanted.symbol AND params_hash = %(params_hash)s
            ORDER BY bar DESC LIMIT 1
        ) r"""

    def newest_regimes(self, symbols: Sequence[str], params_hash: str) -> list[Row]:
        return self._rows(self.NEWEST_REGIMES, symbols=list(symbols), params_hash=params_hash)

    TRANSITIONS: Final = """
        SELECT symbol, before, regime, count(*) AS bars FROM (
            SELECT wanted.symbol, r.regime, lag(r.regime) OVER (PARTITION BY wanted.symbol ORDER BY r.bar) AS before
            FROM unnest(%(symbols)s::text[]) AS wanted (symbol)
            CROSS JOIN LATERAL (
                SELECT bar, regime FROM regimes
                WHERE symbol = wanted.symbol AND params_hash = %(params_hash)s ORDER BY bar DESC LIMIT %(bars)s
            ) r
        ) steps WHERE before IS NOT NULL GROUP BY 1, 2, 3"""

    def regime_transitions(self, symbols: Sequence[str], params_hash: str, bars: int) -> list[Row]:
        """How often each regime followed each within each symbol's last bars."""
        return self._rows(self.TRANSITIONS, symbols=list(symbols), params_hash=params_hash, bars=bars)

    SENTIMENT: Final = f"""
        SELECT symbol, as_of, score, weight, status, scorer FROM sentiment
        WHERE {within("as_of")} {SYMBOL}
        ORDER BY as_of DESC, symbol {PAGE}"""  # noqa: S608

    def sentiment(self, window: Window) -> list[Row]:
        return self._rows(self.SENTIMENT, **window.values(self.account))

    ARTICLES: Final = """
        SELECT a.article_id, a.feed, a.title, a.link, a.symbols, a.published_at, a.seen_at, s.scorer, s.score,
               s.scored_at
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

    # ------------------------------------------------------------------------------------------------ models and jobs
    # A manifest weighs tens of kilobytes; of each version in a list this much tells how good it was.
    MODELS: Final = f"""
        SELECT version, state, trained_from, trained_until, created_at,
               (manifest #> '{{metrics,promotion}}') - 'trending' - 'ranging' AS promotion
        FROM (
            SELECT * FROM models WHERE {within("created_at")}
            ORDER BY (state = 'champion') DESC, created_at DESC, version {PAGE}
        ) page
        ORDER BY (state = 'champion') DESC, created_at DESC, version"""  # noqa: S608

    def models(self, window: Window) -> list[Row]:
        """Versions, the champion first, with what each scored on the window that no fit had seen."""
        return self._rows(self.MODELS, **window.values(self.account))

    MODEL: Final = """
        SELECT version, state, trained_from, trained_until, created_at, manifest FROM models
        WHERE version = %(version)s"""

    def model(self, version: str) -> Row | None:
        return self._row(self.MODEL, version=version)

    CHAMPION: Final = "SELECT version, trained_until FROM models WHERE state = 'champion'"

    def champion(self) -> Row | None:
        return self._row(self.CHAMPION)

    GATES: Final = """
        SELECT version, gate, passed, numbers FROM model_gates WHERE version = ANY(%(versions)s)
        ORDER BY version, gate"""

    def gates(self, versions: Sequence[str]) -> list[Row]:
        return self._rows(self.GATES, versions=list(versions))

    TRAINING: Final = """
        SELECT run_id, reason, state, started_at, finished_at FROM training_runs
        ORDER BY started_at DESC LIMIT %(limit)s"""

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
