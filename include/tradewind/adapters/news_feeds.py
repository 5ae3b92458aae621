"""RSS and Atom feeds over HTTP: conditional requests, time-outs, size caps, and text instead of markup."""

from __future__ import annotations

import calendar
import html
import logging
import re
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import feedparser
import httpx

from tradewind.core.sentiment import article_id
from tradewind.core.types import Article, FeedState
from tradewind.errors import NewsUnavailable

# httpx writes whole addresses at INFO, keys in them included.
logging.getLogger("httpx").setLevel(logging.WARNING)

# Read when no feed is configured and the market is a real one.
PUBLIC_FEEDS = (
    "https://www.coindesk.com/arc/outboundfeeds/rss/",
    "https://cointelegraph.com/rss",
    "https://decrypt.co/feed",
)
_MAX_BYTES = 2_000_000
_MAX_ITEMS = 100
_MAX_TITLE = 300
_MAX_SUMMARY = 2_000
_MAX_LINK = 1_000
_MAX_VALIDATOR = 500
_DEADLINE_S = 20.0
_TAG = re.compile(r"<[^>]*>")
_SPACE = re.compile(r"\s+")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f]")


class RssFeeds:
    """`ports.NewsFeeds` over a list of addresses, each of which is its feed's name.

    Parameters
    ----------
    urls : `http://`, `https://` or `file://` addresses.
    timeout_s : for connecting and for each wait on the socket; a whole feed has 20 s.
    """

    def __init__(self, urls: Sequence[str], *, timeout_s: float = 10.0) -> None:
        self._urls = tuple(urls)
        self._client = httpx.Client(
            timeout=timeout_s,
            follow_redirects=True,
            max_redirects=3,
            headers={"User-Agent": "tradewind", "Accept": "application/rss+xml, application/atom+xml, application/xml"},
        )

    @property
    def names(self) -> tuple[str, ...]:
        return self._urls

    def fetch(self, name: str, state: FeedState | None, now: datetime) -> tuple[list[Article], FeedState]:
        """The feed's articles, newest 100 at most, and what to remember; no articles when it answers "not modified".

        A publication time that is missing or lies after `now` becomes `now`: a feed's clock cannot reach ahead of
        ours. Raises NewsUnavailable when it does not answer in time, answers with an error, is larger than 2 MB, or is
        no feed.
        """
        parts = urlsplit(name)
        if parts.scheme == "file":
            body, validators = self._read(Path(unquote(parts.path))), FeedState(name)
        else:
            answer = self._get(name, state)
            if answer is None:
                return [], FeedState(name, state.etag if state else None, state.last_modified if state else None, now)
            body, validators = answer
        articles = _parse(name, body, now)
        return articles, FeedState(name, validators.etag, validators.last_modified, now)

    def _read(self, path: Path) -> bytes:
        try:
            with path.open("rb") as file:
                body = file.read(_MAX_BYTES + 1)
        except OSError as error:
            raise NewsUnavailable(f"feed file {path} cannot be read: {error.strerror}") from error
        if len(body) > _MAX_BYTES:
            raise NewsUnavailable(f"feed file {path} is larger than {_MAX_BYTES} bytes")
        return body

    def _get(self, url: str, state: FeedState | None) -> tuple[bytes, FeedState] | None:
        """The body with its validators; None for 304."""
        headers = {}
        if state and state.etag:
            headers["If-None-Match"] = state.etag
        if state and state.last_modified:
            headers["If-Modified-Since"] = state.last_modified
        deadline = time.monotonic() + _DEADLINE_S
        where = _without_query(url)
        try:
            with self._client.stream("GET", url, headers=headers) as response:
                if response.status_code == 304:
                    return None
                if response.status_code != 200:
                    raise NewsUnavailable(f"feed {where} answered {response.status_code}")
                body = bytearray()
                for chunk in response.iter_bytes():
                    body += chunk
                    if len(body) > _MAX_BYTES:
                        raise NewsUnavailable(f"feed {where} is larger than {_MAX_BYTES} bytes")
                    if time.monotonic() > deadline:
                        raise NewsUnavailable(f"feed {where} took longer than {_DEADLINE_S:.0f} s")
                return bytes(body), FeedState(
                    url, _validator(response.headers.get("ETag")), _validator(response.headers.get("Last-Modified"))
                )
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise NewsUnavailable(f"feed {where} does not answer: {type(error).__name__}") from error


def _parse(name: str, body: bytes, now: datetime) -> list[Article]:
    # resolve_relative_uris and sanitize_html only matter for what is rendered as HTML; here everything becomes text.
    parsed = feedparser.parse(body, resolve_relative_uris=False, sanitize_html=False)
    if not parsed.get("version"):
        raise NewsUnavailable(f"feed {_without_query(name)} answered with something that is no feed")
    articles = [_article(name, entry, now) for entry in parsed.entries[:_MAX_ITEMS]]
    return [article for article in articles if article.title]


def _article(name: str, entry: Any, now: datetime) -> Article:
    title = _text(entry.get("title", ""), _MAX_TITLE)
    link = _UNPRINTABLE.sub("", str(entry.get("link", "")))[:_MAX_LINK]
    parsed_time = entry.get("published_parsed") or entry.get("updated_parsed")
    published = datetime.fromtimestamp(calendar.timegm(parsed_time), UTC) if parsed_time else now
    return Article(
        article_id=article_id(title, link),
        feed=name,
        title=title,
        summary=_text(entry.get("summary", ""), _MAX_SUMMARY),
        link=link,
        symbols=(),
        published_at=min(published, now),
        seen_at=now,
    )


def _text(markup: object, limit: int) -> str:
    """Markup as one line of plain text."""
    plain = html.unescape(_TAG.sub(" ", str(markup)))
    return _SPACE.sub(" ", _UNPRINTABLE.sub(" ", plain)).strip()[:limit]


def _validator(value: str | None) -> str | None:
    return value if value and len(value) <= _MAX_VALIDATOR else None


def _without_query(url: str) -> str:
    """Some feeds carry a subscriber's key in the query, which no log may show."""
    return url.partition("?")[0]
