"""News: what counts as one article, which symbols it is about, and how scores age into one number.

The aggregate is auxiliary: filters may veto an entry by it or ask for more; it never opens one.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from tradewind.core.types import Article, ScoredArticle, SentimentState

MARKET = "*"


@dataclass(frozen=True, slots=True)
class SentimentRules:
    """How articles turn into a score."""

    half_life_s: float = 6 * 3600.0  # an article's weight halves this often
    window_s: float = 48 * 3600.0  # older publications no longer count
    market_news_frac: float = 0.25  # weight of news that names no symbol, in each symbol's score
    neutral_weight: float = 1.0  # a neutral article of this weight always takes part, so that one headline never shouts
    min_weight: float = 0.1  # below it there is no news: neutral, status "none"
    max_feed_silence_s: float = 7200.0  # no feed answered for this long: neutral, status "stale"
    repeat_window_s: float = 7 * 86400.0  # the same title or link within it is the same article


# Names that a text may use for an asset. Names match in any case, tickers only in capitals.
_NAMES: dict[str, tuple[str, ...]] = {
    "AAVE": ("aave",),
    "ADA": ("cardano",),
    "AVAX": ("avalanche",),
    "BCH": ("bitcoin cash",),
    "BNB": ("binance coin", "bnb chain"),
    "BTC": ("bitcoin",),
    "DOGE": ("dogecoin",),
    "DOT": ("polkadot",),
    "ETH": ("ethereum", "ether"),
    "LINK": ("chainlink",),
    "LTC": ("litecoin",),
    "NEAR": ("near protocol",),
    "SOL": ("solana",),
    "SUI": ("sui network",),
    "TON": ("toncoin",),
    "TRX": ("tron",),
    "UNI": ("uniswap",),
    "XLM": ("stellar lumens",),
    "XRP": ("ripple",),
}
_TRACKING_PARAMETERS = re.compile(r"^(utm_.*|fbclid|gclid|mc_cid|mc_eid|ref|source)$")
_NO_WORD = re.compile(r"[^\w]+")


# ----------------------------------------------------------------------------------------------------------- identity
def title_key(title: str) -> str:
    """A title without case, accents of form, punctuation and spacing: equal keys are the same headline."""
    return _NO_WORD.sub(" ", unicodedata.normalize("NFKC", title).casefold()).strip()


def link_key(link: str) -> str:
    """A link without scheme, `www.`, tracking parameters, fragment and final slash; "" for no web address."""
    try:
        parts = urlsplit(link.strip())
        host = (parts.hostname or "").removeprefix("www.")
    except ValueError:
        return ""
    if parts.scheme not in ("http", "https") or not host:
        return ""
    query = [(name, value) for name, value in parse_qsl(parts.query) if not _TRACKING_PARAMETERS.match(name)]
    return urlunsplit(("", host, parts.path.rstrip("/"), urlencode(sorted(query)), "")).removeprefix("//")


def article_id(title: str, link: str) -> str:
    """SHA-256 over the normalised title and link: fetching an article again gives the same id."""
    return hashlib.sha256(f"{title_key(title)}\n{link_key(link)}".encode()).hexdigest()


def drop_repeats(candidates: Iterable[Article], known: Iterable[Article]) -> list[Article]:
    """The candidates that repeat neither a known article nor an earlier candidate, by title or by link."""
    titles, links = set(), set()
    for article in known:
        titles.add(title_key(article.title))
        links.add(link_key(article.link))
    fresh = []
    for article in candidates:
        title, link = title_key(article.title), link_key(article.link)
        if not title or title in titles or (link and link in links):
            continue
        titles.add(title)
        links.add(link)
        fresh.append(article)
    return fresh


# ------------------------------------------------------------------------------------------------------------ symbols
def find_symbols(text: str, symbols: Sequence[str]) -> tuple[str, ...]:
    """Those of `symbols` (`BASE/QUOTE`) that a text names, in their given order.

    A full name counts in any case, a ticker only in capitals or after `$`; a text written all in capitals therefore
    needs the `$` or the name. "Bitcoin Cash" is not Bitcoin.
    """
    shouted = text.isupper()
    lowered = text.casefold()
    found = []
    for symbol in symbols:
        base = symbol.partition("/")[0]
        ticker = rf"\${base}\b" if shouted else rf"(?<![A-Za-z0-9])\$?{base}\b"
        if re.search(ticker, text) or any(_names(lowered, name) for name in _NAMES.get(base, ())):
            found.append(symbol)
    return tuple(found)


def _names(lowered: str, name: str) -> bool:
    longer = [other for names in _NAMES.values() for other in names if other.startswith(f"{name} ")]
    for other in longer:
        lowered = lowered.replace(other, " ")
    return re.search(rf"\b{re.escape(name)}\b", lowered) is not None


# ---------------------------------------------------------------------------------------------------------- aggregate
def aggregate_sentiment(
    symbols: Sequence[str],
    scored: Sequence[ScoredArticle],
    as_of: datetime,
    *,
    feeds_answered_at: datetime | None,
    rules: SentimentRules,
) -> list[SentimentState]:
    """The decayed score of each symbol, and of the market (`'*'`) last, from what was known at `as_of`.

    `score = Σ w·s / (neutral_weight + Σ w)` with `w = 2^(-age / half_life)`, age since publication, times
    `market_news_frac` for news that names no symbol. Articles scored after `as_of` or published before the window are
    left out, so that a replay gives what a live run would have given.

    Parameters
    ----------
    symbols : those that are traded.
    scored : articles with the scores of one scorer.
    as_of : the moment of the aggregate; aware, UTC.
    feeds_answered_at : when any feed last answered; None or too long ago makes every state "stale" and neutral.
    rules : the weights.
    """
    silent = feeds_answered_at is None or as_of - feeds_answered_at > timedelta(seconds=rules.max_feed_silence_s)
    oldest = as_of - timedelta(seconds=rules.window_s)
    known = [item for item in scored if item.score.scored_at <= as_of and item.article.published_at > oldest]
    return [_aggregate(symbol, known, as_of, silent, rules) for symbol in (*symbols, MARKET)]


def _aggregate(
    symbol: str, known: Sequence[ScoredArticle], as_of: datetime, silent: bool, rules: SentimentRules
) -> SentimentState:
    if silent:
        return SentimentState(symbol, as_of, 0.0, 0.0, "stale", "")
    total = weighted = 0.0
    scorer = ""
    for item in known:
        relevance = _relevance(symbol, item.article, rules)
        if relevance == 0.0:
            continue
        age_s = max(0.0, (as_of - item.article.published_at).total_seconds())
        weight = relevance * 2.0 ** (-age_s / rules.half_life_s)
        total += weight
        weighted += weight * item.score.score
        scorer = item.score.scorer
    if total < rules.min_weight:
        return SentimentState(symbol, as_of, 0.0, total, "none", "")
    return SentimentState(symbol, as_of, weighted / (rules.neutral_weight + total), total, "ok", scorer)


def _relevance(symbol: str, article: Article, rules: SentimentRules) -> float:
    if symbol == MARKET or symbol in article.symbols:
        return 1.0
    return 0.0 if article.symbols else rules.market_news_frac


def known_until(closed_at: datetime) -> datetime:
    """The newest `as_of` that a decision on a bar closed then may use: before the close, never at it or after.

    What is aggregated while a cycle reads may be stored just before it looks or just after, and nobody could tell a
    replay which. What was aggregated before the close is stored by the time that bar is collected.
    """
    return closed_at - timedelta(microseconds=1)


def known_at(symbol: str, newest: SentimentState | None, now: datetime, max_age: timedelta) -> SentimentState:
    """What `now` may use of the newest aggregate stored by then: neutral, and saying so, when none or too old."""
    if newest is None:
        return SentimentState(symbol, now, 0.0, 0.0, "none", "")
    if newest.status == "ok" and now - newest.as_of > max_age:
        return replace(newest, score=0.0, weight=0.0, status="stale")
    return newest
