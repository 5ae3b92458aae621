"""Feeds to articles, articles to scores, scores to one decayed number a symbol: the DAG `score_sentiment`."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from tradewind.core.ports import Ports
from tradewind.core.sentiment import SentimentRules, aggregate_sentiment, drop_repeats, find_symbols
from tradewind.core.types import Article, ArticleScore, FeedState
from tradewind.errors import NewsBudgetSpent, NewsUnavailable

_log = logging.getLogger(__name__)

# An article that could not be scored is offered again for this long, then left alone.
_OFFER_FOR = timedelta(hours=6)
_MAX_ARTICLES_A_RUN = 200


@dataclass(frozen=True, slots=True)
class _Harvest:
    articles: list[Article]
    states: list[FeedState]
    answered_at: datetime | None  # when any feed last answered, this run or an earlier one
    failed: dict[str, str]


def score_sentiment(ports: Ports, rules: SentimentRules | None = None) -> dict[str, Any]:
    """Fetch, score and aggregate once; returns counts and the scores by symbol.

    A failing feed or scorer is isolated: what else came is stored, the aggregate says "stale" or "none" where it must,
    and only then, when no feed at all or no scorer answered, NewsUnavailable is raised so that the run is retried.
    """
    rules = rules or SentimentRules()
    now = ports.clock.now()

    harvest = _fetch(ports, now)
    known = ports.news_store.recent_articles(now - timedelta(seconds=rules.repeat_window_s))
    fresh = [
        replace(article, symbols=find_symbols(f"{article.title}\n{article.summary}", ports.symbols))
        for article in drop_repeats(harvest.articles, known)
    ]
    new_articles = ports.news_store.insert_articles(fresh)
    # Only now: a validator remembered before its articles are stored would hide them behind "not modified".
    for feed_state in harvest.states:
        ports.news_store.save_feed_state(feed_state)

    scored, scorer_error = _score(ports, now)

    as_of = ports.clock.now()
    scores = ports.news_store.scored_articles(
        ports.article_scorer.name, as_of - timedelta(seconds=rules.window_s), as_of
    )
    states = aggregate_sentiment(ports.symbols, scores, as_of, feeds_answered_at=harvest.answered_at, rules=rules)
    ports.news_store.insert_sentiment(states)
    for state in states:
        ports.metrics.gauge("tradewind.sentiment.score", state.score, symbol=state.symbol, status=state.status)

    if harvest.failed and len(harvest.failed) == len(ports.news_feeds.names):
        raise _unavailable(ports, "feeds", "no news feed answers: " + "; ".join(harvest.failed.values()))
    if scorer_error:
        raise _unavailable(ports, "scorer", scorer_error)
    return {
        "as_of": as_of.isoformat(),
        "scorer": ports.article_scorer.name,
        "feeds": len(ports.news_feeds.names),
        "feeds_failed": len(harvest.failed),
        "articles_new": new_articles,
        "articles_scored": scored,
        "scores": {state.symbol: round(state.score, 4) for state in states},
        "statuses": {state.symbol: state.status for state in states},
    }


def _fetch(ports: Ports, now: datetime) -> _Harvest:
    """Every feed's articles; a feed that fails is remembered with its error and delays no other."""
    names = ports.news_feeds.names
    remembered = ports.news_store.feed_states(names)
    articles: list[Article] = []
    states: list[FeedState] = []
    failed: dict[str, str] = {}
    answers = [state.fetched_at for state in remembered.values() if state.fetched_at]
    for name in names:
        try:
            found, state = ports.news_feeds.fetch(name, remembered.get(name), now)
        except Exception as error:  # noqa: BLE001  (hostile bytes raise anything; no other feed may suffer)
            expected = isinstance(error, NewsUnavailable)
            words = str(error) if expected else f"feed {name.partition('?')[0]} failed: {type(error).__name__}"
            _log.warning("%s", words, exc_info=None if expected else error)
            failed[name] = words
            states.append(replace(remembered.get(name, FeedState(name)), last_error=words))
            continue
        articles += found
        states.append(state)
        answers.append(now)
    ports.metrics.gauge("tradewind.sentiment.feeds_failed", len(failed))
    return _Harvest(articles, states, max(answers, default=None), failed)


def _score(ports: Ports, now: datetime) -> tuple[int, str]:
    """Score what this scorer has not scored; returns how many were, and why it failed, if it did."""
    scorer = ports.article_scorer
    waiting: Sequence[Article] = ports.news_store.unscored_articles(scorer.name, now - _OFFER_FOR, _MAX_ARTICLES_A_RUN)
    if not waiting:
        return 0, ""
    try:
        scores = scorer.score(waiting)
    except NewsBudgetSpent as error:
        # Trying again before midnight changes nothing, so the run does not fail.
        _unavailable(ports, "budget", str(error))
        return 0, ""
    except NewsUnavailable as error:
        return 0, str(error)
    scored_at = ports.clock.now()
    stored = ports.news_store.insert_scores(
        [ArticleScore(article_id, scorer.name, score, scored_at) for article_id, score in scores.items()]
    )
    ports.metrics.count("tradewind.sentiment.articles_scored", stored, scorer=scorer.name)
    return stored, ""


def _unavailable(ports: Ports, part: str, problem: str) -> NewsUnavailable:
    """Tell people; returns the error for who cannot go on."""
    ports.alerts.raise_alert(
        "warning",
        f"sentiment:{part}",
        "News sentiment is neutral",
        f"{problem}. Entries are decided without news until it answers again.",
    )
    return NewsUnavailable(problem)
