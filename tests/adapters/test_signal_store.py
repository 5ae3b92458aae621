"""Regimes and sentiment as the chain reads them: the newest known before a moment, never rewritten."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from tradewind.adapters.database import Database
from tradewind.adapters.signal_store import PgSignalStore
from tradewind.core.types import (
    Article,
    ArticleScore,
    FeedState,
    Regime,
    RegimeFamily,
    RegimeState,
    SentimentState,
)
from tradewind.core.usage import TokenPrices, Usage

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
QUARTER = timedelta(minutes=15)


@pytest.fixture
def store(database: Database) -> PgSignalStore:
    return PgSignalStore(database)


def regime(symbol: str, bar: datetime, kind: Regime = Regime.RANGING_QUIET) -> RegimeState:
    family = None if kind is Regime.CHAOTIC else RegimeFamily.RANGING
    return RegimeState(symbol, bar, kind, family, 18.5, 1.1, 0.4, 0.5)


def article(number: int, *, published: datetime = NOON, symbols: tuple[str, ...] = ("BTC/USDT",)) -> Article:
    return Article(
        f"id{number}",
        "feed",
        f"Title {number}",
        "Text",
        f"https://news.example/{number}",
        symbols,
        published,
        published,
    )


def test_regimes_are_inserted_once_and_read_back_equal(store: PgSignalStore) -> None:
    first, chaotic = regime("BTC/USDT", NOON), regime("BTC/USDT", NOON + QUARTER, Regime.CHAOTIC)
    assert store.insert_regimes([first, chaotic], "p") == 2
    assert store.insert_regimes([replace(first, adx=99.0), chaotic], "p") == 0
    assert store.last_regimes(["BTC/USDT"], NOON + QUARTER, "p") == {"BTC/USDT": first}
    assert store.last_regimes(["BTC/USDT"], NOON + 2 * QUARTER, "p") == {"BTC/USDT": chaotic}


def test_a_regime_of_the_bar_itself_is_not_before_it(store: PgSignalStore) -> None:
    store.insert_regimes([regime("BTC/USDT", NOON)], "p")
    assert store.last_regimes(["BTC/USDT"], NOON, "p") == {}


def test_regimes_of_other_parameters_are_not_seen(store: PgSignalStore) -> None:
    store.insert_regimes([regime("BTC/USDT", NOON)], "old")
    assert store.last_regimes(["BTC/USDT", "ETH/USDT"], NOON + QUARTER, "new") == {}


def test_usage_adds_up_by_day(store: PgSignalStore) -> None:
    used = TokenPrices().usage(1000, 200)
    assert store.usage("gemini", NOON.date()) == Usage()
    for _ in range(3):
        store.add_usage("gemini", NOON.date(), used)
    found = store.usage("gemini", NOON.date())
    assert (found.requests, found.prompt_tokens, found.answer_tokens) == (3, 3000, 600)
    assert found.cost_usd == 3 * used.cost_usd == Decimal("0.0024")
    assert store.usage("gemini", (NOON + timedelta(days=1)).date()) == Usage()


def test_many_regimes_of_many_symbols(store: PgSignalStore) -> None:
    states = [regime(symbol, NOON + n * QUARTER) for symbol in ("A/USDT", "B/USDT") for n in range(2000)]
    assert store.insert_regimes(states, "p") == 4000
    last = store.last_regimes(["A/USDT", "B/USDT", "C/USDT"], NOON + 2000 * QUARTER, "p")
    assert {symbol: state.bar for symbol, state in last.items()} == {
        symbol: NOON + 1999 * QUARTER for symbol in ("A/USDT", "B/USDT")
    }


def test_nothing_stored_is_neutral_and_says_so(store: PgSignalStore) -> None:
    answer = store.sentiment_as_of(["BTC/USDT", "*"], NOON)
    assert answer["*"] == SentimentState("*", NOON, 0.0, 0.0, "none", "")
    assert set(answer) == {"BTC/USDT", "*"}


def test_sentiment_is_what_was_known_then(store: PgSignalStore) -> None:
    early = SentimentState("BTC/USDT", NOON, 0.5, 3.0, "ok", "lexicon")
    late = SentimentState("BTC/USDT", NOON + timedelta(minutes=20), -0.7, 4.0, "ok", "lexicon")
    assert store.insert_sentiment([early, late]) == 2
    assert store.insert_sentiment([replace(early, score=1.0)]) == 0
    assert store.sentiment_as_of(["BTC/USDT"], NOON + timedelta(minutes=19))["BTC/USDT"] == early
    assert store.sentiment_as_of(["BTC/USDT"], NOON + timedelta(minutes=20))["BTC/USDT"] == late
    assert store.sentiment_as_of(["BTC/USDT"], NOON - QUARTER)["BTC/USDT"].status == "none"


def test_an_old_aggregate_is_stale_and_neutral(store: PgSignalStore) -> None:
    store.insert_sentiment([SentimentState("BTC/USDT", NOON, -0.9, 4.0, "ok", "gemini")])
    exactly = store.sentiment_as_of(["BTC/USDT"], NOON + timedelta(hours=2))["BTC/USDT"]
    later = store.sentiment_as_of(["BTC/USDT"], NOON + timedelta(hours=2, seconds=1))["BTC/USDT"]
    assert (exactly.status, exactly.score) == ("ok", -0.9)
    assert (later.status, later.score, later.weight) == ("stale", 0.0, 0.0)
    assert later.as_of == NOON, "says since when"


def test_articles_and_scores(store: PgSignalStore) -> None:
    assert store.insert_articles([article(1), article(2)]) == 2
    assert store.insert_articles([article(2), article(3)]) == 1
    since = NOON - timedelta(days=1)
    assert [a.article_id for a in store.unscored_articles("lexicon", since, 10)] == ["id1", "id2", "id3"]
    score = ArticleScore("id1", "lexicon", 0.25, NOON + QUARTER)
    assert store.insert_scores([score]) == 1
    assert store.insert_scores([replace(score, score=1.0)]) == 0
    assert [a.article_id for a in store.unscored_articles("lexicon", since, 10)] == ["id2", "id3"]
    assert [a.article_id for a in store.unscored_articles("gemini", since, 10)] == ["id1", "id2", "id3"]
    assert store.scored_articles("lexicon", since, NOON) == [], "the score was not knowable yet"
    known = store.scored_articles("lexicon", since, NOON + QUARTER)
    assert [(k.article, k.score) for k in known] == [(article(1), score)]


def test_a_failed_fetch_keeps_the_time_of_the_last_success(store: PgSignalStore) -> None:
    store.save_feed_state(FeedState("f", "etag", "yesterday", NOON, None))
    store.save_feed_state(FeedState("f", "etag", "yesterday", None, "timed out"))
    assert store.feed_states(["f", "g"]) == {"f": FeedState("f", "etag", "yesterday", NOON, "timed out")}
