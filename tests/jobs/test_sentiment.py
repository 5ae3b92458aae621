"""The job over a real database and real HTTP: what is stored, what is isolated, what is said when nothing answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from tests.support.http_server import Answer, serving
from tradewind.adapters.alerts import OutboxAlerts
from tradewind.adapters.database import Database
from tradewind.adapters.lexicon_scorer import LexiconScorer
from tradewind.adapters.metrics import NullMetrics
from tradewind.adapters.news_feeds import RssFeeds
from tradewind.adapters.signal_store import PgSignalStore
from tradewind.core.ports import Ports
from tradewind.core.types import Article
from tradewind.errors import NewsBudgetSpent, NewsUnavailable
from tradewind.jobs.sentiment import score_sentiment

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@dataclass
class StandingClock:
    moment: datetime = NOW

    def now(self) -> datetime:
        return self.moment


@dataclass
class Bundle:
    """The ports that the job touches, built from the real adapters."""

    database: Database
    news_feeds: RssFeeds
    clock: StandingClock = field(default_factory=StandingClock)
    symbols: tuple[str, ...] = ("BTC/USDT", "ETH/USDT")
    article_scorer: Any = field(default_factory=LexiconScorer)
    metrics: NullMetrics = field(default_factory=NullMetrics)

    @property
    def news_store(self) -> PgSignalStore:
        return PgSignalStore(self.database)

    @property
    def alerts(self) -> OutboxAlerts:
        return OutboxAlerts(self.database, "news")

    def run(self) -> dict[str, Any]:
        return score_sentiment(cast(Ports, self))


class UnavailableScorer:
    name = "gemini"

    def score(self, articles: Sequence[Article]) -> dict[str, float]:
        raise NewsUnavailable("Gemini answered 503")


class SpentScorer:
    name = "gemini"

    def score(self, articles: Sequence[Article]) -> dict[str, float]:
        raise NewsBudgetSpent("Gemini's budget of 1 USD a day is spent")


def rss(*titles: str) -> Answer:
    items = "".join(
        f"<item><title>{title}</title><link>https://n.example/{abs(hash(title))}</link>"
        f"<pubDate>Sun, 01 Mar 2026 11:00:00 GMT</pubDate></item>"
        for title in titles
    )
    return Answer(200, f'<rss version="2.0"><channel><title>t</title>{items}</channel></rss>'.encode())


def test_news_becomes_a_stored_score_known_from_now_on(database: Database) -> None:
    feed = rss("Bitcoin surges to record high", "Ethereum bridge hacked", "Crypto stays quiet")
    with serving(lambda request: feed) as (url, _):
        bundle = Bundle(database, RssFeeds([url]))
        report = bundle.run()
        assert (report["articles_new"], report["articles_scored"], report["scorer"]) == (3, 3, "lexicon")
        assert report["scores"]["BTC/USDT"] > 0 > report["scores"]["ETH/USDT"]
        bundle.clock.moment += timedelta(minutes=20)
        again = bundle.run()
    assert (again["articles_new"], again["articles_scored"]) == (0, 0)
    assert 0 < again["scores"]["BTC/USDT"] < report["scores"]["BTC/USDT"], "news ages"
    known = bundle.news_store.sentiment_as_of(["BTC/USDT", "*"], NOW)
    assert known["BTC/USDT"].status == "ok"
    assert known["*"].weight > 2
    assert bundle.news_store.sentiment_as_of(["BTC/USDT"], NOW - timedelta(seconds=1))["BTC/USDT"].status == "none"


def test_one_dead_feed_of_two_is_isolated(database: Database) -> None:
    with serving(lambda request: rss("Bitcoin gains")) as (url, _):
        dead = "http://127.0.0.1:9/rss"
        report = Bundle(database, RssFeeds([dead, url])).run()
    assert (report["feeds_failed"], report["articles_new"]) == (1, 1)
    row = database.row("SELECT last_error FROM feed_states WHERE feed = %s", (dead,))
    assert row is not None
    assert "does not answer" in row["last_error"]


def test_a_feed_that_raises_what_nobody_expected_is_isolated(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(lambda request: rss("Bitcoin rallies")) as (good, _):
        feeds = RssFeeds(["https://n.example/rss?key=subscriber", good])
        fetch = feeds.fetch
        monkeypatch.setattr(feeds, "fetch", lambda name, *rest: fetch(name, *rest) if name == good else [][1])
        report = Bundle(database, feeds).run()
    assert (report["feeds_failed"], report["articles_new"]) == (1, 1)
    (error,) = database.rows("SELECT last_error FROM feed_states WHERE last_error IS NOT NULL")
    assert error["last_error"] == "feed https://n.example/rss failed: IndexError"


def test_all_feeds_dead_is_neutral_after_a_while_and_raises(database: Database) -> None:
    with serving(lambda request: rss("Bitcoin plunges")) as (url, _):
        bundle = Bundle(database, RssFeeds([url]))
        bundle.run()
    bundle.clock.moment += timedelta(minutes=20)
    with pytest.raises(NewsUnavailable, match="no news feed"):
        bundle.run()
    soon = bundle.news_store.sentiment_as_of(["BTC/USDT"], bundle.clock.moment)["BTC/USDT"]
    assert soon.status == "ok", "one missed fetch forgets nothing"
    bundle.clock.moment += timedelta(hours=3)
    with pytest.raises(NewsUnavailable):
        bundle.run()
    later = bundle.news_store.sentiment_as_of(["BTC/USDT"], bundle.clock.moment)["BTC/USDT"]
    assert (later.status, later.score) == ("stale", 0.0)
    alerts = database.rows("SELECT key, repeats FROM alerts")
    assert alerts == [{"key": "sentiment:feeds", "repeats": 1}]


def test_a_dead_scorer_leaves_neutral_and_the_articles_for_later(database: Database) -> None:
    with serving(lambda request: rss("Bitcoin plunges")) as (url, _):
        bundle = Bundle(database, RssFeeds([url]), article_scorer=UnavailableScorer())
        with pytest.raises(NewsUnavailable, match="503"):
            bundle.run()
        state = bundle.news_store.sentiment_as_of(["BTC/USDT"], NOW)["BTC/USDT"]
        assert (state.status, state.score) == ("none", 0.0), "no other scorer speaks in its place"
        bundle.article_scorer = LexiconScorer()
        bundle.clock.moment += timedelta(minutes=20)
        assert bundle.run()["articles_scored"] == 1


def test_the_same_news_from_two_feeds_counts_once(database: Database) -> None:
    with serving(lambda request: rss("Bitcoin gains!" if request.path == "/a" else "BITCOIN gains")) as (url, _):
        report = Bundle(database, RssFeeds([f"{url}/a", f"{url}/b"])).run()
    assert report["articles_new"] == 1


def test_a_spent_budget_is_told_and_fails_no_run(database: Database) -> None:
    with serving(lambda request: rss("Bitcoin surges")) as (url, _):
        bundle = Bundle(database, RssFeeds([url]), article_scorer=SpentScorer())
        report = bundle.run()
    assert (report["articles_new"], report["articles_scored"]) == (1, 0)
    assert report["statuses"]["BTC/USDT"] == "none"
    alert = database.row("SELECT body FROM alerts WHERE key = 'sentiment:budget'")
    assert alert is not None
    assert "1 USD a day" in alert["body"]
