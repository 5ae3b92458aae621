"""Feeds over real HTTP: conditional requests, limits, hostile content."""

from __future__ import annotations

import contextlib
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.support.http_server import Answer, Request, serving
from tradewind.adapters.news_feeds import RssFeeds
from tradewind.core.types import FeedState
from tradewind.errors import NewsUnavailable

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def feed(*items: str) -> bytes:
    return f'<?xml version="1.0"?><rss version="2.0"><channel><title>t</title>{"".join(items)}</channel></rss>'.encode()


def item(title: str, link: str = "https://n.example/1", published: str = "", summary: str = "") -> str:
    date = f"<pubDate>{published}</pubDate>" if published else ""
    return f"<item><title>{title}</title><link>{link}</link>{date}<description>{summary}</description></item>"


def test_items_become_articles_of_plain_text() -> None:
    body = feed(
        item(
            "Bitcoin &lt;b&gt;rallies&lt;/b&gt; &amp;amp; more",
            published="Sun, 01 Mar 2026 11:30:00 GMT",
            summary="&lt;p&gt;One&lt;/p&gt;\n&lt;script&gt;alert(1)&lt;/script&gt; two",
        )
    )
    with serving(lambda request: Answer(200, body)) as (url, _):
        articles, state = RssFeeds([url]).fetch(url, None, NOW)
    assert len(articles) == 1
    assert articles[0].title == "Bitcoin rallies & more"
    assert articles[0].summary == "One alert(1) two"
    assert articles[0].published_at == datetime(2026, 3, 1, 11, 30, tzinfo=UTC)
    assert articles[0].seen_at == NOW
    assert state == FeedState(url, None, None, NOW, None)


def test_times_from_the_future_and_missing_times_become_now() -> None:
    body = feed(item("a", published="Sun, 01 Mar 2099 11:30:00 GMT"), item("b", "https://n.example/2"))
    with serving(lambda request: Answer(200, body)) as (url, _):
        articles, _ = RssFeeds([url]).fetch(url, None, NOW)
    assert [article.published_at for article in articles] == [NOW, NOW]


def test_the_second_request_is_conditional() -> None:
    def answer(request: Request) -> Answer:
        if request.headers.get("if-none-match") == '"v1"' and request.headers.get("if-modified-since") == "yesterday":
            return Answer(304)
        return Answer(200, feed(item("a")), {"ETag": '"v1"', "Last-Modified": "yesterday"})

    with serving(answer) as (url, seen):
        feeds = RssFeeds([url])
        first, state = feeds.fetch(url, None, NOW)
        second, again = feeds.fetch(url, state, NOW)
    assert len(first) == 1
    assert second == []
    assert again == state
    assert len(seen) == 2


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (Answer(500), "answered 500"),
        (Answer(200, b"<html><body>Please log in</body></html>"), "no feed"),
        (Answer(200, b""), "no feed"),
        (Answer(200, b"x" * 2_000_001), "larger than"),
    ],
)
def test_bad_answers_are_named_without_the_query(reply: Answer, words: str) -> None:
    with serving(lambda request: reply) as (base, _):
        url = f"{base}/rss?key=subscriber"
        with pytest.raises(NewsUnavailable, match=words) as caught:
            RssFeeds([url]).fetch(url, None, NOW)
    assert "subscriber" not in str(caught.value)


def test_a_feed_that_hangs_is_given_up() -> None:
    given_up = threading.Event()

    def hang(request: Request) -> Answer:
        given_up.wait(60)
        return Answer(200)

    with serving(hang) as (url, _):
        with pytest.raises(NewsUnavailable, match="does not answer: ReadTimeout"):
            RssFeeds([url], timeout_s=0.3).fetch(url, None, NOW)
        given_up.set()


def test_a_redirect_loop_ends() -> None:
    loop = Answer(302, headers={"Location": "/again"})
    with serving(lambda request: loop) as (url, seen), pytest.raises(NewsUnavailable, match="TooManyRedirects"):
        RssFeeds([url]).fetch(url, None, NOW)
    assert len(seen) <= 5


def test_an_entity_bomb_costs_nothing() -> None:
    entities = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 12))
    bomb = f'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY l0 "lol">{entities}]>'.encode() + feed(item("&l11;"))[21:]
    with serving(lambda request: Answer(200, bomb)) as (url, _):
        started = time.monotonic()
        # Refusing the document is as good an answer as reading it; taking long or much is not.
        with contextlib.suppress(NewsUnavailable):
            articles, _ = RssFeeds([url]).fetch(url, None, NOW)
            assert all(len(article.title) <= 300 for article in articles)
        assert time.monotonic() - started < 3


def test_long_feeds_and_long_texts_are_cut() -> None:
    body = feed(*(item(f"{n} " + "t" * 1000, f"https://n.example/{n}", summary="s" * 9000) for n in range(150)))
    with serving(lambda request: Answer(200, body)) as (url, _):
        articles, _ = RssFeeds([url]).fetch(url, None, NOW)
    assert len(articles) == 100
    assert max(len(article.title) for article in articles) == 300
    assert max(len(article.summary) for article in articles) == 2000


def test_a_file_is_a_feed_too(tmp_path: Path) -> None:
    path = tmp_path / "my feed.xml"
    path.write_bytes(feed(item("From a file")))
    url = path.as_uri()
    articles, _ = RssFeeds([url]).fetch(url, None, NOW)
    assert [article.title for article in articles] == ["From a file"]
    with pytest.raises(NewsUnavailable, match="cannot be read"):
        RssFeeds([url]).fetch((tmp_path / "none.xml").as_uri(), None, NOW)
