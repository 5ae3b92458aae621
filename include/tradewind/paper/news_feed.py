"""A synthetic news feed for the paper market: RSS over HTTP, deterministic, and labelled synthetic in every item.

Its items follow the market's clock: at any moment it holds what was "published" in the 48 hours before, so that a
stepped market has news of its own day. The headlines are drawn from the seed alone and know nothing of the prices:
there is nothing in them to be learnt.

Mounted by the paper exchange under `/__feed`; alone: `python -m tradewind.paper.news_feed --port 8110`.
"""

from __future__ import annotations

import argparse
import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from email.utils import formatdate
from xml.sax.saxutils import escape

import numpy as np
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

LABEL = "Synthetic item of the paper market, no real news."
DEFAULT_SYMBOLS = ("BTC/USDT", "ETH/USDT", "SOL/USDT", "BNB/USDT", "XRP/USDT")
_SLOT_MS = 20 * 60_000
_WINDOW_SLOTS = 48 * 3
_ITEM_PROBABILITY = 0.7
_MARKET_NEWS_PROBABILITY = 0.2
_NAMES = {"BTC": "Bitcoin", "ETH": "Ethereum", "SOL": "Solana", "BNB": "BNB", "XRP": "XRP"}
_HEADLINES = (
    "{asset} gains as desks report steady accumulation",
    "{asset} rallies after a network upgrade goes live",
    "Funds record inflows into {asset} products for a third day",
    "Payment firm integrates {asset}, citing adoption by merchants",
    "{asset} surges past its weekly range on heavy volume",
    "{asset} slides as traders take profit",
    "Analyst warns of weakness in {asset} before options expire",
    "{asset} drops on reports of a regulatory probe",
    "Bridge exploit drains {asset} pool, team pauses contracts",
    "{asset} plunges through support, liquidations follow",
    "{asset} trades flat while volume stays thin",
    "Developers of {asset} publish a roadmap for the next quarter",
    "Conference on {asset} draws a full house",
)
_MARKET_ASSET = "Crypto market"


@dataclass(frozen=True, slots=True)
class Item:
    """One headline at its moment of publication, epoch milliseconds."""

    number: int
    published_ms: int
    title: str


def items_until(now_ms: int, seed: int, symbols: Sequence[str] = DEFAULT_SYMBOLS) -> list[Item]:
    """The items of the 48 hours up to `now_ms`, newest first. The same moment, seed and symbols give the same items."""
    last = now_ms // _SLOT_MS
    drawn = (_item(slot, seed, symbols) for slot in range(last, last - _WINDOW_SLOTS, -1))
    return [item for item in drawn if item is not None and item.published_ms <= now_ms]


def _item(slot: int, seed: int, symbols: Sequence[str]) -> Item | None:
    """What one 20-minute slot holds, drawn from the slot's own generator: history never changes as time moves on."""
    rng = np.random.default_rng((seed, 0x4E4557, slot))
    if rng.random() >= _ITEM_PROBABILITY:
        return None
    base = symbols[int(rng.integers(len(symbols)))].partition("/")[0]
    asset = _MARKET_ASSET if rng.random() < _MARKET_NEWS_PROBABILITY else _NAMES.get(base, base)
    headline = _HEADLINES[int(rng.integers(len(_HEADLINES)))].format(asset=asset)
    published_ms = slot * _SLOT_MS + int(rng.integers(_SLOT_MS))
    return Item(slot, published_ms, f"{headline} (bulletin {slot})")


def seed_of(identity: str) -> int:
    """A seed for the news of one market: the same market always has the same news."""
    return int.from_bytes(hashlib.sha256(identity.encode()).digest()[:4], "big")


def rss(items: Sequence[Item], base_url: str) -> bytes:
    """The items as an RSS 2.0 document."""
    entries = "".join(
        f"<item><title>{escape(item.title)}</title>"
        f"<link>{escape(base_url)}/items/{item.number}</link>"
        f'<guid isPermaLink="false">tradewind-synthetic-{item.number}</guid>'
        f"<pubDate>{formatdate(item.published_ms / 1000, usegmt=True)}</pubDate>"
        f"<description>{escape(LABEL)}</description></item>"
        for item in items
    )
    return (
        '<?xml version="1.0" encoding="UTF-8"?><rss version="2.0"><channel>'
        f"<title>Tradewind paper market: synthetic news</title><link>{escape(base_url)}</link>"
        f"<description>{escape(LABEL)}</description>{entries}</channel></rss>"
    ).encode()


def feed_app(now_ms: Callable[[], int], seed: int, symbols: Sequence[str] = DEFAULT_SYMBOLS) -> Starlette:
    """The feed as an ASGI app with one route, `/rss`; answers 304 to a request that has the newest item already."""

    async def serve(request: Request) -> Response:
        items = items_until(now_ms(), seed, symbols)
        newest = items[0].number if items else 0
        etag = f'"{hashlib.sha256(f"{seed}:{newest}:{len(items)}".encode()).hexdigest()[:16]}"'
        headers = {"ETag": etag, "Cache-Control": "no-cache"}
        if request.headers.get("if-none-match") == etag:
            return Response(status_code=304, headers=headers)
        base_url = str(request.url).partition("?")[0].removesuffix("/rss")
        return Response(rss(items, base_url), media_type="application/rss+xml", headers=headers)

    return Starlette(routes=[Route("/rss", serve)])


def main() -> None:
    """Serve the feed alone, on the wall clock."""
    parser = argparse.ArgumentParser(prog="python -m tradewind.paper.news_feed", description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=8110)
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    app = feed_app(lambda: time.time_ns() // 1_000_000, arguments.seed)
    uvicorn.run(app, host="127.0.0.1", port=arguments.port, log_level="warning")


if __name__ == "__main__":
    main()
