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

from tradewind.adapters.bounded_http import BoundedTransport
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
_log = logging.getLogger(__name__)

_MAX_BYTES = 2_000_000
_MAX_ITEMS = 100
_MAX_TITLE = 300
_MAX_SUMMARY = 2_000
_MAX_LINK = 1_000
_MAX_VALIDATOR = 500
_DEADLINE_S = 20.0
_HEADERS = {"User-Agent": "tradewind", "Accept": "application/rss+xml, application/atom+xml, application/xml"}
# What is cut from an entry before any pattern runs over it: markup may be longer than its text, but not this much.
_MAX_MARKUP = 20_000
# Without "<" inside the brackets, so that a text of nothing but "<" is passed over once.
_TAG = re.compile(r"<[^<>]*>")
_CHARACTER = re.compile(rb"&#(?:x([0-9a-f]{1,40})|([0-9]{1,40}));", re.IGNORECASE)
_SPACE = re.compile(r"\s+")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f]")


class RssFeeds:
    """`ports.NewsFeeds` over a list of addresses, each of which is its feed's name.

    Parameters
    ----------
    urls : `http://`, `https://` or `file://` addresses.
    timeout_s : for connecting and for each wait on the socket.
    within_s : for a whole feed, from the first connection to the last byte, redirects included.
    """

    def __init__(self, urls: Sequence[str], *, timeout_s: float = 10.0, within_s: float = _DEADLINE_S) -> None:
        self._urls = tuple(urls)
        self._timeout_s = timeout_s
        self._within_s = within_s

    @property
    def names(self) -> tuple[str, ...]:
        return self._urls

    def fetch(self, name: str, state: FeedState | None, now: datetime) -> tuple[list[Article], FeedState]:
        """The feed's articles, newest 100 at most, and what to remember; no articles when it answers "not modified".

        A publication time that is missing or lies after `now` becomes `now`: a feed's clock cannot reach ahead of
        ours. An entry that cannot be read is left out. Raises NewsUnavailable when the feed does not answer in time,
        answers with an error, is larger than 2 MB (on the way or unpacked), leads into a private network, or is no
        feed.
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
        where = _without_query(url)
        until = time.monotonic() + self._within_s
        transport = BoundedTransport(max_bytes=_MAX_BYTES, until=lambda: until, named_host=urlsplit(url).hostname or "")
        try:
            with httpx.Client(
                transport=transport, timeout=self._timeout_s, follow_redirects=True, max_redirects=3, headers=_HEADERS
            ) as client:
                response = client.get(url, headers=headers)
        except httpx.DecodingError as error:
            raise NewsUnavailable(f"feed {where} cannot be taken: {error}") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise NewsUnavailable(f"feed {where} does not answer: {type(error).__name__}") from error
        if response.status_code == httpx.codes.NOT_MODIFIED:
            return None
        if response.status_code != httpx.codes.OK:
            raise NewsUnavailable(f"feed {where} answered {response.status_code}")
        return response.content, FeedState(
            url, _validator(response.headers.get("ETag")), _validator(response.headers.get("Last-Modified"))
        )


def _parse(name: str, body: bytes, now: datetime) -> list[Article]:
    where = _without_query(name)
    try:
        # resolve_relative_uris and sanitize_html only matter for what is rendered as HTML; here everything becomes
        # text.
        parsed = feedparser.parse(
            _CHARACTER.sub(_valid_character, body), resolve_relative_uris=False, sanitize_html=False
        )
    except Exception as error:
        raise NewsUnavailable(f"feed {where} cannot be parsed: {type(error).__name__}") from error
    if not parsed.get("version"):
        raise NewsUnavailable(f"feed {where} answered with something that is no feed")
    articles = []
    for entry in parsed.entries[:_MAX_ITEMS]:
        try:
            article = _article(name, entry, now)
        except Exception as error:  # noqa: BLE001  (one entry is not the feed)
            _log.warning("an entry of feed %s was left out: %s", where, type(error).__name__)
            continue
        if article.title:
            articles.append(article)
    return articles


def _valid_character(found: re.Match[bytes]) -> bytes:
    """A numeric character reference as it stands, or one to the replacement character where it names none."""
    hexadecimal, decimal = found.groups()
    point = int(hexadecimal, 16) if hexadecimal else int(decimal)
    is_valid = point <= 0x10FFFF and not 0xD800 <= point <= 0xDFFF
    return found[0] if is_valid else b"&#xFFFD;"


def _article(name: str, entry: Any, now: datetime) -> Article:
    title = _text(entry.get("title", ""), _MAX_TITLE)
    link = _encodable(_UNPRINTABLE.sub("", str(entry.get("link", ""))[:_MAX_MARKUP]))[:_MAX_LINK]
    return Article(
        article_id=article_id(title, link),
        feed=name,
        title=title,
        summary=_text(entry.get("summary", ""), _MAX_SUMMARY),
        link=link,
        symbols=(),
        published_at=min(_published_at(entry) or now, now),
        seen_at=now,
    )


def _published_at(entry: Any) -> datetime | None:
    """When the entry says it was published, UTC; None where it does not, or names a moment that no calendar has."""
    try:
        told = entry.get("published_parsed") or entry.get("updated_parsed")
        return datetime.fromtimestamp(calendar.timegm(told), UTC) if told else None
    except (ValueError, OverflowError, OSError):
        return None


def _text(markup: object, limit: int) -> str:
    """Markup as one line of plain text, in time proportional to its length."""
    plain = html.unescape(_TAG.sub(" ", str(markup)[:_MAX_MARKUP]))
    return _encodable(_SPACE.sub(" ", _UNPRINTABLE.sub(" ", plain))).strip()[:limit]


def _encodable(text: str) -> str:
    """Without lone surrogates, which neither a database nor a hash can take."""
    return text.encode("utf-8", "replace").decode()


def _validator(value: str | None) -> str | None:
    return value if value and len(value) <= _MAX_VALIDATOR else None


def _without_query(url: str) -> str:
    """Some feeds carry a subscriber's key in the query, which no log may show."""
    return url.partition("?")[0]
