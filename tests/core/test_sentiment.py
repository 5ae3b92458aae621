"""Articles and their aggregate: what repeats, what is meant, how it ages, and that nothing comes from the future."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradewind.core.lexicon import lexicon_score
from tradewind.core.sentiment import (
    MARKET,
    SentimentRules,
    aggregate_sentiment,
    article_id,
    drop_repeats,
    find_symbols,
    link_key,
    title_key,
)
from tradewind.core.types import Article, ArticleScore, ScoredArticle, SentimentState

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
RULES = SentimentRules()
SYMBOLS = ("BTC/USDT", "BCH/USDT", "ETH/USDT", "SOL/USDT")


def article(title: str, link: str = "", *, symbols: tuple[str, ...] = (), age: timedelta = timedelta(0)) -> Article:
    moment = NOW - age
    return Article(article_id(title, link), "feed", title, "", link, symbols, moment, moment)


def scored(
    score: float, *, symbols: tuple[str, ...] = ("BTC/USDT",), age: timedelta = timedelta(0), scored_at: datetime = NOW
) -> ScoredArticle:
    item = article(f"{score} {symbols} {age} {scored_at}", symbols=symbols, age=age)
    return ScoredArticle(item, ArticleScore(item.article_id, "lexicon", score, scored_at))


def aggregate(items: list[ScoredArticle], as_of: datetime = NOW) -> dict[str, SentimentState]:
    states = aggregate_sentiment(("BTC/USDT", "ETH/USDT"), items, as_of, feeds_answered_at=as_of, rules=RULES)
    return {state.symbol: state for state in states}


def test_a_title_is_the_same_without_its_dress() -> None:
    assert title_key("  Bitcoin’s  RALLY — explained!") == title_key("bitcoin s rally: Explained")


@pytest.mark.parametrize(
    "link",
    [
        "https://www.news.example/a/?utm_source=rss&utm_medium=x",
        "http://news.example/a#top",
        "https://NEWS.example/a/",
    ],
)
def test_a_link_is_the_same_without_tracking(link: str) -> None:
    assert link_key(link) == "news.example/a"


def test_a_link_keeps_the_parameters_that_name_the_article() -> None:
    assert link_key("https://n.example/?id=2") != link_key("https://n.example/?id=3")


@pytest.mark.parametrize("link", ["", "javascript:alert(1)", "//x", "https://[broken"])
def test_what_is_no_web_address_has_no_key(link: str) -> None:
    assert link_key(link) == ""


def test_repeats_go_by_title_or_by_link_but_two_missing_links_are_no_repeat() -> None:
    known = [article("Known title", "https://a.example/1")]
    fresh = drop_repeats(
        [
            article("known TITLE!", "https://other.example/9"),
            article("Edited title", "https://a.example/1/"),
            article("New one"),
            article("New two"),
            article("new one?"),
            article("!!!"),
        ],
        known,
    )
    assert [item.title for item in fresh] == ["New one", "New two"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Bitcoin rallies", ("BTC/USDT",)),
        ("BTC and $ETH move", ("BTC/USDT", "ETH/USDT")),
        ("ethereum, SOLANA and more", ("ETH/USDT", "SOL/USDT")),
        ("Bitcoin Cash forks", ("BCH/USDT",)),
        ("Bitcoin Cash falls while bitcoin rises", ("BTC/USDT", "BCH/USDT")),
        ("El sol sale; whether together", ()),
        ("SOLD OUT: BTC CONFERENCE", ()),
        ("ALL CAPS ABOUT $SOL", ("SOL/USDT",)),
        ("wBTC and BTCUSD are other things", ()),
    ],
)
def test_symbols_are_recognised(text: str, expected: tuple[str, ...]) -> None:
    assert find_symbols(text, SYMBOLS) == expected


def test_no_news_is_neutral_and_says_so() -> None:
    assert aggregate([])["BTC/USDT"] == SentimentState("BTC/USDT", NOW, 0.0, 0.0, "none", "")


def test_silent_feeds_make_everything_stale_and_neutral() -> None:
    for answered in (None, NOW - timedelta(hours=2, seconds=1)):
        states = aggregate_sentiment(("BTC/USDT",), [scored(-1.0)], NOW, feeds_answered_at=answered, rules=RULES)
        assert [(s.status, s.score) for s in states] == [("stale", 0.0)] * 2


def test_one_fresh_headline_never_shouts() -> None:
    assert aggregate([scored(-1.0)])["BTC/USDT"].score == pytest.approx(-0.5)


def test_an_article_counts_half_after_the_half_life() -> None:
    state = aggregate([scored(1.0, age=timedelta(hours=6))])["BTC/USDT"]
    assert state.weight == pytest.approx(0.5)
    assert state.score == pytest.approx(0.5 / 1.5)


def test_market_news_counts_a_quarter_for_a_symbol_and_others_news_nothing() -> None:
    states = aggregate([scored(1.0, symbols=()), scored(-1.0, symbols=("ETH/USDT",))])
    assert states["BTC/USDT"].weight == pytest.approx(0.25)
    assert states["BTC/USDT"].score == pytest.approx(0.25 / 1.25)
    assert states[MARKET].weight == pytest.approx(2.0)
    assert states[MARKET].score == pytest.approx(0.0)


def test_a_score_is_not_known_before_it_was_made() -> None:
    late = scored(1.0, age=timedelta(hours=1), scored_at=NOW + timedelta(seconds=1))
    assert aggregate([late])["BTC/USDT"].status == "none"
    assert aggregate([late], NOW + timedelta(seconds=1))["BTC/USDT"].status == "ok"


def test_old_news_is_forgotten() -> None:
    assert aggregate([scored(1.0, age=timedelta(hours=48))])["BTC/USDT"].weight == 0.0


@given(
    st.lists(
        st.tuples(
            st.floats(-1, 1),
            st.integers(0, 200_000),
            st.sampled_from([(), ("BTC/USDT",), ("ETH/USDT",), ("BTC/USDT", "ETH/USDT")]),
            st.integers(-3600, 3600),
        ),
        max_size=20,
    )
)
def test_the_aggregate_is_bounded_and_blind_to_the_future(rows: list[tuple[float, int, tuple[str, ...], int]]) -> None:
    items = [
        scored(score, symbols=symbols, age=timedelta(seconds=age), scored_at=NOW + timedelta(seconds=delay))
        for score, age, symbols, delay in rows
    ]
    answer = aggregate(items)
    assert all(-1.0 < state.score < 1.0 and state.weight >= 0 for state in answer.values())
    known = [item for item in items if item.score.scored_at <= NOW]
    assert aggregate(known) == answer
    changed = [
        item if item in known else replace(item, score=replace(item.score, score=-item.score.score)) for item in items
    ]
    assert aggregate(changed) == answer


@pytest.mark.parametrize(
    ("title", "sign"),
    [
        ("Bitcoin surges to all-time high", 1),
        ("Exchange hacked, funds stolen", -1),
        ("Court finds no fraud at exchange", 1),
        ("Ethereum developers meet in Prague", 0),
        ("", 0),
    ],
)
def test_the_lexicon_reads_the_tone(title: str, sign: int) -> None:
    score = lexicon_score(title, "")
    assert (score > 0) - (score < 0) == sign


@given(st.text(max_size=400), st.text(max_size=400))
def test_the_lexicon_stays_in_range(title: str, summary: str) -> None:
    assert -1.0 <= lexicon_score(title, summary) <= 1.0
