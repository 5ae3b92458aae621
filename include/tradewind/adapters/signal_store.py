"""Regimes, news and sentiment in PostgreSQL: what the decision chain reads besides candles and models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Any

from tradewind.adapters.database import Database
from tradewind.core.sentiment import known_at
from tradewind.core.types import (
    Article,
    ArticleScore,
    FeedState,
    Regime,
    RegimeFamily,
    RegimeState,
    ScoredArticle,
    SentimentState,
)
from tradewind.core.usage import Usage

_INSERT_REGIMES = """
    INSERT INTO regimes (symbol, bar, params_hash, regime, family, adx, natr_ratio, natr_quantile, bandwidth_quantile)
    SELECT s.symbol, s.bar, %(params_hash)s, s.regime, s.family, s.adx, s.ratio, s.natr_q, s.width_q
    FROM unnest(%(symbols)s::text[], %(bars)s::timestamptz[], %(regimes)s::text[], %(families)s::text[],
                %(adx)s::float8[], %(ratio)s::float8[], %(natr_q)s::float8[], %(width_q)s::float8[])
         AS s (symbol, bar, regime, family, adx, ratio, natr_q, width_q)
    ON CONFLICT DO NOTHING"""

_LAST_REGIMES = """
    SELECT r.symbol, r.bar, r.regime, r.family, r.adx, r.natr_ratio, r.natr_quantile, r.bandwidth_quantile
    FROM unnest(%(symbols)s::text[]) AS wanted (symbol)
    CROSS JOIN LATERAL (
        SELECT * FROM regimes
        WHERE symbol = wanted.symbol AND params_hash = %(params_hash)s AND bar < %(before)s
        ORDER BY bar DESC LIMIT 1
    ) AS r"""

_SENTIMENT_AS_OF = """
    SELECT s.symbol, s.as_of, s.score, s.weight, s.status, s.scorer
    FROM unnest(%(symbols)s::text[]) AS wanted (symbol)
    CROSS JOIN LATERAL (
        SELECT * FROM sentiment
        WHERE symbol = wanted.symbol AND as_of <= %(as_of)s
        ORDER BY as_of DESC LIMIT 1
    ) AS s"""

_SENTIMENT_BETWEEN = """
    SELECT symbol, as_of, score, weight, status, scorer FROM sentiment
    WHERE symbol = ANY(%(symbols)s) AND as_of >= %(start)s AND as_of < %(end)s ORDER BY symbol, as_of"""

_INSERT_SENTIMENT = """
    INSERT INTO sentiment (symbol, as_of, score, weight, status, scorer)
    VALUES (%(symbol)s, %(as_of)s, %(score)s, %(weight)s, %(status)s, %(scorer)s)
    ON CONFLICT DO NOTHING"""

_INSERT_ARTICLE = """
    INSERT INTO articles (article_id, feed, title, summary, link, symbols, published_at, seen_at)
    VALUES (%(article_id)s, %(feed)s, %(title)s, %(summary)s, %(link)s, %(symbols)s, %(published_at)s, %(seen_at)s)
    ON CONFLICT DO NOTHING"""

_RECENT_ARTICLES = """
    SELECT article_id, feed, title, summary, link, symbols, published_at, seen_at FROM articles
    WHERE seen_at > %(since)s ORDER BY seen_at, article_id"""

_UNSCORED_ARTICLES = """
    SELECT article_id, feed, title, summary, link, symbols, published_at, seen_at FROM articles
    WHERE seen_at > %(since)s
      AND NOT EXISTS (SELECT 1 FROM article_scores s WHERE s.article_id = articles.article_id AND s.scorer = %(scorer)s)
    ORDER BY seen_at, article_id LIMIT %(limit)s"""

_INSERT_SCORE = """
    INSERT INTO article_scores (article_id, scorer, score, scored_at)
    VALUES (%(article_id)s, %(scorer)s, %(score)s, %(scored_at)s)
    ON CONFLICT DO NOTHING"""

_SCORED_ARTICLES = """
    SELECT a.article_id, a.feed, a.title, a.summary, a.link, a.symbols, a.published_at, a.seen_at,
           s.scorer, s.score, s.scored_at
    FROM article_scores s JOIN articles a USING (article_id)
    WHERE s.scorer = %(scorer)s AND a.published_at > %(since)s AND s.scored_at <= %(as_of)s
    ORDER BY a.published_at, a.article_id"""

_SAVE_FEED_STATE = """
    INSERT INTO feed_states (feed, etag, last_modified, fetched_at, last_error)
    VALUES (%(feed)s, %(etag)s, %(last_modified)s, %(fetched_at)s, %(last_error)s)
    ON CONFLICT (feed) DO UPDATE SET
        etag = EXCLUDED.etag, last_modified = EXCLUDED.last_modified,
        fetched_at = coalesce(EXCLUDED.fetched_at, feed_states.fetched_at), last_error = EXCLUDED.last_error"""

_FEED_STATES = "SELECT feed, etag, last_modified, fetched_at, last_error FROM feed_states WHERE feed = ANY(%(feeds)s)"

_USAGE = """
    SELECT requests, prompt_tokens, answer_tokens, cost_usd FROM scorer_usage
    WHERE scorer = %(scorer)s AND day = %(day)s"""

_ADD_USAGE = """
    INSERT INTO scorer_usage (scorer, day, requests, prompt_tokens, answer_tokens, cost_usd)
    VALUES (%(scorer)s, %(day)s, %(requests)s, %(prompt_tokens)s, %(answer_tokens)s, %(cost_usd)s)
    ON CONFLICT (scorer, day) DO UPDATE SET
        requests = scorer_usage.requests + EXCLUDED.requests,
        prompt_tokens = scorer_usage.prompt_tokens + EXCLUDED.prompt_tokens,
        answer_tokens = scorer_usage.answer_tokens + EXCLUDED.answer_tokens,
        cost_usd = scorer_usage.cost_usd + EXCLUDED.cost_usd"""

DEFAULT_MAX_AGE_S = 7200.0


class PgSignalStore:
    """The `StateStore` of the chain and the `NewsStore` of the sentiment job.

    Parameters
    ----------
    database : where the rows lie.
    max_age_s : a stored aggregate older than this answers as stale, which means neutral; by default the shipped
        `StrategyParams.sentiment_max_age_s`.
    """

    def __init__(self, database: Database, *, max_age_s: float = DEFAULT_MAX_AGE_S) -> None:
        self._database = database
        self._max_age = timedelta(seconds=max_age_s)

    # ------------------------------------------------------------------------------------------------------- regimes
    def insert_regimes(self, states: Sequence[RegimeState], params_hash: str) -> int:
        """Store what is not stored yet; returns how many rows were new. A stored regime is never rewritten."""
        if not states:
            return 0
        columns = {
            "params_hash": params_hash,
            "symbols": [state.symbol for state in states],
            "bars": [state.bar for state in states],
            "regimes": [state.regime.value for state in states],
            "families": [state.family.value if state.family else None for state in states],
            "adx": [state.adx for state in states],
            "ratio": [state.natr_ratio for state in states],
            "natr_q": [state.natr_quantile for state in states],
            "width_q": [state.bandwidth_quantile for state in states],
        }
        return self._database.execute(_INSERT_REGIMES, columns)

    def last_regimes(self, symbols: Sequence[str], before: datetime, params_hash: str) -> dict[str, RegimeState]:
        """The newest stored regime of each symbol at a bar opened before `before`; a symbol without one is absent."""
        rows = self._database.rows(
            _LAST_REGIMES, {"symbols": list(symbols), "before": before, "params_hash": params_hash}
        )
        return {row["symbol"]: _regime_state(row) for row in rows}

    # ----------------------------------------------------------------------------------------------------- sentiment
    def insert_sentiment(self, states: Sequence[SentimentState]) -> int:
        """Store the aggregates of one run; returns how many rows were new."""
        with self._database.transaction() as connection, connection.cursor() as cursor:
            cursor.executemany(
                _INSERT_SENTIMENT,
                [
                    {
                        "symbol": state.symbol,
                        "as_of": state.as_of,
                        "score": state.score,
                        "weight": state.weight,
                        "status": state.status,
                        "scorer": state.scorer,
                    }
                    for state in states
                ],
            )
            return cursor.rowcount if states else 0

    def sentiment_as_of(self, symbols: Sequence[str], as_of: datetime) -> dict[str, SentimentState]:
        """What was known of each symbol (or of the market, `'*'`) at `as_of`; every asked symbol is answered.

        Nothing stored is status "none"; a newest aggregate older than the limit is "stale". Both have score 0.
        """
        rows = self._database.rows(_SENTIMENT_AS_OF, {"symbols": list(symbols), "as_of": as_of})
        newest = {row["symbol"]: SentimentState(**row) for row in rows}
        return {symbol: known_at(symbol, newest.get(symbol), as_of, self._max_age) for symbol in symbols}

    def sentiment_between(
        self, symbols: Sequence[str], start: datetime, end: datetime
    ) -> dict[str, tuple[SentimentState, ...]]:
        """Every aggregate stored as of [start, end), oldest first, for every asked symbol."""
        found: dict[str, list[SentimentState]] = {symbol: [] for symbol in symbols}
        bound = {"symbols": list(symbols), "start": start, "end": end}
        for row in self._database.rows(_SENTIMENT_BETWEEN, bound):
            found[row["symbol"]].append(SentimentState(**row))
        return {symbol: tuple(states) for symbol, states in found.items()}

    # ---------------------------------------------------------------------------------------------------------- news
    def insert_articles(self, articles: Sequence[Article]) -> int:
        """Store articles not seen before (by `article_id`); returns how many were new."""
        if not articles:
            return 0
        with self._database.transaction() as connection, connection.cursor() as cursor:
            cursor.executemany(
                _INSERT_ARTICLE,
                [
                    {
                        "article_id": article.article_id,
                        "feed": article.feed,
                        "title": article.title,
                        "summary": article.summary,
                        "link": article.link,
                        "symbols": list(article.symbols),
                        "published_at": article.published_at,
                        "seen_at": article.seen_at,
                    }
                    for article in articles
                ],
            )
            return cursor.rowcount

    def recent_articles(self, since: datetime) -> list[Article]:
        """Articles first seen after `since`, oldest first."""
        return [_article(row) for row in self._database.rows(_RECENT_ARTICLES, {"since": since})]

    def unscored_articles(self, scorer: str, since: datetime, limit: int) -> list[Article]:
        """Articles first seen after `since` that this scorer has not scored, oldest first."""
        rows = self._database.rows(_UNSCORED_ARTICLES, {"scorer": scorer, "since": since, "limit": limit})
        return [_article(row) for row in rows]

    def insert_scores(self, scores: Sequence[ArticleScore]) -> int:
        """Store scores not stored yet; returns how many were new."""
        if not scores:
            return 0
        with self._database.transaction() as connection, connection.cursor() as cursor:
            cursor.executemany(
                _INSERT_SCORE,
                [
                    {
                        "article_id": score.article_id,
                        "scorer": score.scorer,
                        "score": score.score,
                        "scored_at": score.scored_at,
                    }
                    for score in scores
                ],
            )
            return cursor.rowcount

    def scored_articles(self, scorer: str, since: datetime, as_of: datetime) -> list[ScoredArticle]:
        """This scorer's scores known at `as_of` for articles published after `since`, oldest first."""
        rows = self._database.rows(_SCORED_ARTICLES, {"scorer": scorer, "since": since, "as_of": as_of})
        return [
            ScoredArticle(_article(row), ArticleScore(row["article_id"], row["scorer"], row["score"], row["scored_at"]))
            for row in rows
        ]

    # --------------------------------------------------------------------------------------------------------- usage
    def usage(self, scorer: str, day: date) -> Usage:
        """What a scorer used of a UTC day; nothing where nothing is stored."""
        row = self._database.row(_USAGE, {"scorer": scorer, "day": day})
        return Usage(**row) if row else Usage()

    def add_usage(self, scorer: str, day: date, used: Usage) -> None:
        """Add one request's usage to its day."""
        self._database.execute(
            _ADD_USAGE,
            {
                "scorer": scorer,
                "day": day,
                "requests": used.requests,
                "prompt_tokens": used.prompt_tokens,
                "answer_tokens": used.answer_tokens,
                "cost_usd": used.cost_usd,
            },
        )

    # --------------------------------------------------------------------------------------------------------- feeds
    def feed_states(self, feeds: Sequence[str]) -> dict[str, FeedState]:
        """What is remembered of each feed for its next conditional request; a feed never fetched is absent."""
        return {row["feed"]: FeedState(**row) for row in self._database.rows(_FEED_STATES, {"feeds": list(feeds)})}

    def save_feed_state(self, state: FeedState) -> None:
        """Remember validators and the last answer of a feed. A failure keeps the time of the last success."""
        self._database.execute(
            _SAVE_FEED_STATE,
            {
                "feed": state.feed,
                "etag": state.etag,
                "last_modified": state.last_modified,
                "fetched_at": state.fetched_at,
                "last_error": state.last_error,
            },
        )


def _regime_state(row: Mapping[str, Any]) -> RegimeState:
    return RegimeState(
        symbol=row["symbol"],
        bar=row["bar"],
        regime=Regime(row["regime"]),
        family=RegimeFamily(row["family"]) if row["family"] else None,
        adx=row["adx"],
        natr_ratio=row["natr_ratio"],
        natr_quantile=row["natr_quantile"],
        bandwidth_quantile=row["bandwidth_quantile"],
    )


def _article(row: Mapping[str, Any]) -> Article:
    return Article(
        article_id=row["article_id"],
        feed=row["feed"],
        title=row["title"],
        summary=row["summary"],
        link=row["link"],
        symbols=tuple(row["symbols"]),
        published_at=row["published_at"],
        seen_at=row["seen_at"],
    )
