"""Feeds over real HTTP: conditional requests, limits, hostile content."""

from __future__ import annotations

import contextlib
import gzip
import socket
import threading
import tracemalloc
import zlib
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.http_server import Answer, Request, serving
from tradewind.adapters import bounded_http, news_feeds
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
        tracemalloc.start()
        # Refusing the document is as good an answer as reading it; taking much is not.
        with contextlib.suppress(NewsUnavailable):
            articles, _ = RssFeeds([url]).fetch(url, None, NOW)
            assert all(len(article.title) <= 300 for article in articles)
        _, peak_bytes = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak_bytes < 200_000_000, "the parser's own limit on what entities may grow to"


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


# ------------------------------------------------------------------------------------------------------ hostile bytes
def layered_gzip(size: int, layers: int) -> bytes:
    body = b"\0" * size
    for _ in range(layers):
        body = gzip.compress(body)
    return body


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip, gzip", layered_gzip(300_000_000, 2)),
        ("gzip", layered_gzip(300_000_000, 1)),
        ("deflate", zlib.compress(b"\0" * 300_000_000)),
        ("br", b"\0" * 100),
    ],
)
def test_an_encoded_bomb_takes_no_memory(encoding: str, body: bytes) -> None:
    with serving(lambda request: Answer(200, body, {"Content-Encoding": encoding})) as (url, _):
        tracemalloc.start()
        try:
            with pytest.raises(NewsUnavailable, match=r"cannot be taken: it is (larger than|encoded as)"):
                RssFeeds([url]).fetch(url, None, NOW)
            _, peak_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak_bytes < 20_000_000


@pytest.mark.parametrize("encoding", ["gzip", "deflate", ""])
def test_one_encoding_is_decoded(encoding: str) -> None:
    body = feed(item("a"))
    packed = {"gzip": gzip.compress(body), "deflate": zlib.compress(body), "": body}[encoding]
    with serving(lambda request: Answer(200, packed, {"Content-Encoding": encoding})) as (url, _):
        articles, _ = RssFeeds([url]).fetch(url, None, NOW)
    assert [article.title for article in articles] == ["a"]


@pytest.mark.parametrize("where", ["headers", "body"])
def test_a_server_that_drips_is_given_up_as_a_whole(where: str) -> None:
    """Each byte resets a time-out of the socket; the feed as a whole has an end all the same."""
    given_up = threading.Event()

    def drip(connection: socket.socket) -> None:
        connection.recv(65_536)
        connection.sendall(b"HTTP/1.1 200 OK\r\n" + (b"Content-Length: 9999\r\n\r\n" if where == "body" else b"X: "))
        with contextlib.suppress(OSError):
            while not given_up.wait(0.05):
                connection.sendall(b"a")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=lambda: drip(listener.accept()[0]), daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/rss"
        # Were it the socket's time-out alone, the suite's own would end this test.
        with pytest.raises(NewsUnavailable, match="does not answer: ReadTimeout"):
            RssFeeds([url], timeout_s=120, within_s=1.0).fetch(url, None, NOW)
        given_up.set()
        thread.join(30)


HOSTILE = {
    "year 10000": item("hostile", published="9999-12-31T23:59:59-23:00"),
    "year 0": item("hostile", published="0000-01-01T00:00:00Z"),
    "surrogate": item("hostile &#xD800;"),
    "huge reference": item("hostile &#99999999999;"),
    "surrogate written out": item("hostile <![CDATA[&#xD800;&#55296;]]>"),
    "brackets": item("hostile " + "&lt;" * 300_000),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_entry_takes_nothing_from_the_others(name: str) -> None:
    body = feed(item("before", "https://n.example/1"), HOSTILE[name], item("after", "https://n.example/3"))
    with serving(lambda request: Answer(200, body)) as (url, _):
        articles, _ = RssFeeds([url]).fetch(url, None, NOW)
    titles = [article.title for article in articles]
    assert titles[0] == "before"
    assert titles[-1] == "after"
    for article in articles:
        assert article.published_at <= NOW
        f"{article.title}{article.summary}{article.link}".encode()


@given(st.binary(max_size=4_000), st.booleans())
def test_any_bytes_are_a_feed_or_a_refusal(body: bytes, framed: bool) -> None:
    """Whatever a server sends: articles that can be stored, or one kind of error."""
    sent = feed(item("x")).replace(b"x", body) if framed else body
    try:
        articles = news_feeds._parse("https://n.example/rss", sent, NOW)
    except NewsUnavailable:
        return
    for article in articles:
        assert len(article.title) <= 300
        assert len(article.summary) <= 2_000
        f"{article.title}{article.summary}{article.link}".encode()


@pytest.mark.parametrize(
    "target", ["http://localhost:{port}/", "http://0.0.0.0:{port}/", "http://169.254.169.254/latest"]
)
def test_no_redirect_leads_into_our_own_network(target: str) -> None:
    with serving(lambda request: Answer(200, feed(item("inside")))) as (inside, asked):
        port = inside.rpartition(":")[2]
        moved = Answer(302, headers={"Location": target.format(port=port)})
        with serving(lambda request: moved) as (url, _), pytest.raises(NewsUnavailable, match="does not answer"):
            RssFeeds([url]).fetch(url, None, NOW)
    assert asked == []


def test_a_public_name_that_leads_inside_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name server of somebody else's may answer with an address of ours at any time."""
    with serving(lambda request: Answer(200, feed(item("inside")))) as (inside, asked):
        port = int(inside.rpartition(":")[2])
        resolved = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]
        monkeypatch.setattr(bounded_http.socket, "getaddrinfo", lambda *args, **kwargs: resolved)
        url = f"http://news.example:{port}/rss"
        with pytest.raises(NewsUnavailable, match="does not answer: ConnectError"):
            RssFeeds([url]).fetch(url, None, NOW)
    assert asked == []


def test_no_redirect_leads_to_a_file(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(feed(item("secret")))
    moved = Answer(302, headers={"Location": f"file://{secret}"})
    with serving(lambda request: moved) as (url, _), pytest.raises(NewsUnavailable, match="UnsupportedProtocol"):
        RssFeeds([url]).fetch(url, None, NOW)
