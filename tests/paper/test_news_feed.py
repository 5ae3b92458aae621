"""The synthetic feed: deterministic, following the market's clock, labelled, and readable by the real reader."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
import uvicorn

from tests.support.paper_server import PaperServerProcess
from tradewind.adapters.news_feeds import RssFeeds
from tradewind.paper.news_feed import LABEL, feed_app, items_until

START = datetime(2026, 3, 1, 12, tzinfo=UTC)


def ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


@pytest.fixture
def served() -> Iterator[tuple[str, list[datetime]]]:
    """The feed's address, and the market's clock as a list of one moment."""
    clock = [START]
    server = uvicorn.Server(
        uvicorn.Config(feed_app(lambda: ms(clock[0]), seed=7), host="127.0.0.1", port=0, log_level="warning")
    )
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()), daemon=True)
    thread.start()
    while not server.started:
        thread.join(0.02)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}/rss", clock
    server.should_exit = True
    thread.join(10)


def test_history_does_not_change_as_time_moves_on() -> None:
    earlier = items_until(ms(START), 7)
    later = items_until(ms(START + timedelta(hours=3)), 7)
    still_there = [item for item in later if item.published_ms <= ms(START)]
    assert still_there
    assert still_there == earlier[: len(still_there)]
    assert items_until(ms(START), 8) != earlier


def test_nothing_is_published_ahead_of_the_clock() -> None:
    for minutes in range(0, 120, 7):
        now = ms(START + timedelta(minutes=minutes))
        assert all(item.published_ms <= now for item in items_until(now, 7))


def test_the_reader_reads_it_and_asks_conditionally(served: tuple[str, list[datetime]]) -> None:
    url, clock = served
    feeds = RssFeeds([url])
    articles, state = feeds.fetch(url, None, clock[0])
    assert len(articles) > 50
    assert all(article.summary == LABEL for article in articles)
    assert len({article.title for article in articles}) == len(articles)
    assert all(article.published_at <= clock[0] for article in articles)
    assert feeds.fetch(url, state, clock[0])[0] == []
    clock[0] += timedelta(hours=2)
    more, _ = feeds.fetch(url, state, clock[0])
    assert {a.article_id for a in more} - {a.article_id for a in articles}


def test_the_paper_exchange_serves_it_at_its_own_clock() -> None:
    with PaperServerProcess() as server:
        url = f"{server.url}/__feed/rss"
        now = datetime.fromtimestamp(server.admin.clock().market_ms / 1000, UTC)
        articles, _ = RssFeeds([url]).fetch(url, None, now + timedelta(minutes=1))
    assert len(articles) > 50
    assert max(article.published_at for article in articles) > now - timedelta(hours=3)
    assert any("Bitcoin" in article.title for article in articles)
    assert not any("Solana" in article.title for article in articles), "not listed on this market"
