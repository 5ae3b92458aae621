"""How the market jobs ask an exchange: validated, closed bars only, with patience, each symbol on its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from typing import TypeVar

import structlog

from tradewind.core.candles import check, closed_only
from tradewind.core.ports import Listing, Ports
from tradewind.core.timeframes import closed_until_ms, floor_ms, from_ms, timeframe_ms, to_ms
from tradewind.core.types import Bars
from tradewind.errors import RateLimited, RetryError, TradewindError

log = structlog.get_logger(__name__)
T = TypeVar("T")
R = TypeVar("R")

WORKERS = 4
_ATTEMPTS = 5
_LONGEST_WAIT_S = 60.0
_TOGETHER_S = 0.2


def market_symbols(ports: Ports) -> tuple[str, ...]:
    """What decisions are made of: the symbols that are traded, and the market leader, traded or not."""
    return tuple(dict.fromkeys((*ports.symbols, ports.params.leader_symbol)))


def collected_symbols(ports: Ports) -> tuple[str, ...]:
    """What is collected, loaded and repaired: the market's symbols, and those of open positions until they close."""
    held = {position.symbol for position in ports.trading_store.live_positions()}
    return tuple(dict.fromkeys((*market_symbols(ports), *sorted(held))))


def fetch_closed(
    ports: Ports, symbol: str, timeframe: str, start_ms: int, end_ms: int, *, bulk: bool = False
) -> tuple[Bars, int]:
    """The valid closed bars of [start, end), and how many rows were refused; each refused row is logged with its place.

    Raises what the exchange adapter raises.
    """
    answer = ports.market_data.candles(symbol, timeframe, start_ms, end_ms, bulk=bulk)
    now_ms = to_ms(ports.clock.now())
    return keep_valid(ports, closed_only(answer, closed_until_ms(now_ms, timeframe)))


def keep_valid(ports: Ports, bars: Bars) -> tuple[Bars, int]:
    """The rows that may be stored, and how many may not."""
    checked = check(bars)
    for refused in checked.refused:
        log.warning(
            "candle refused",
            symbol=bars.symbol,
            timeframe=bars.timeframe,
            row=refused.row,
            open_time=from_ms(refused.open_time_ms).isoformat() if 0 <= refused.open_time_ms < 1 << 43 else None,
            reason=refused.reason,
        )
    if checked.refused:
        ports.metrics.count(
            "tradewind.candles.refused", len(checked.refused), symbol=bars.symbol, timeframe=bars.timeframe
        )
    return checked.bars, len(checked.refused)


def in_parallel(function: Callable[[T], R], items: Iterable[T], workers: int = WORKERS) -> list[R]:
    """The function's result for each item, in order. Threads, since the work is waiting for answers."""
    work = list(items)
    if len(work) <= 1:
        return [function(item) for item in work]
    with ThreadPoolExecutor(min(workers, len(work)), thread_name_prefix="fetch") as threads:
        return list(threads.map(function, work))


def as_answered(function: Callable[[T], R], items: Iterable[T], workers: int) -> Iterator[list[R]]:
    """The function's results, those together that are there within a moment, so that a slow one holds up no other."""
    work = list(items)
    if not work:
        return
    with ThreadPoolExecutor(min(workers, len(work)), thread_name_prefix="fetch") as threads:
        pending = {threads.submit(function, item) for item in work}
        while pending:
            done, pending = wait(pending, timeout=_TOGETHER_S)
            if done:
                yield [future.result() for future in done]


def with_patience(function: Callable[[], T], *, what: str) -> T:
    """Call until it answers: growing pauses after a RetryError, or the pause that the exchange asks for.

    Raises the last RetryError when patience ends, and every other error at once.
    """
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return function()
        except RetryError as error:
            if attempt == _ATTEMPTS:
                raise
            pause_s = error.retry_after_s if isinstance(error, RateLimited) else 0.5 * 2**attempt
            log.info("will ask again", what=what, pause_s=round(min(pause_s, _LONGEST_WAIT_S), 1), reason=str(error))
            time.sleep(min(pause_s, _LONGEST_WAIT_S))
    raise AssertionError("unreachable: the last attempt returns or raises")


# ------------------------------------------------------------------------------------------------------------ listings
def find_listings(ports: Ports, symbols: Sequence[str]) -> dict[str, Listing]:
    """When each symbol began and ceased to trade, asked once and then remembered.

    A symbol that the exchange no longer knows ceased with its last stored bar. A symbol about which nothing can be
    found out just now is absent, so that nothing is cut off by a guess.
    """
    known = ports.market_store.listings(symbols)
    instruments = ports.market_data.instruments(symbols)
    found: list[Listing] = []
    for symbol in symbols:
        listing = known.get(symbol)
        if symbol not in instruments:
            if listing is None or listing.delisted_at is None:
                found += _vanished(ports, symbol, listing)
            continue
        rules = instruments[symbol]
        if listing is None:
            first_ms = None if rules.listed_at else _first_open_ms(ports, symbol)
            since = rules.listed_at or (None if first_ms is None else from_ms(first_ms))
            if since is not None:
                found.append(Listing(symbol, since, rules.delisted_at))
        elif listing.delisted_at is not None and rules.active and rules.delisted_at is None:
            found.append(Listing(symbol, listing.listed_at, None))  # it trades again
    if found:
        ports.market_store.save_listings(found)
    return known | {listing.symbol: listing for listing in found}


def clip_to_listing(listing: Listing | None, timeframe: str, start_ms: int, end_ms: int) -> tuple[int, int]:
    """The part of a range in which the symbol was traded; start >= end when it was not."""
    if listing is None:
        return start_ms, end_ms
    if listing.listed_at is not None:
        start_ms = max(start_ms, floor_ms(to_ms(listing.listed_at), timeframe))
    if listing.delisted_at is not None:
        end_ms = min(end_ms, to_ms(listing.delisted_at))
    return start_ms, end_ms


def _first_open_ms(ports: Ports, symbol: str) -> int | None:
    """The first bar's open time, of 15m bars where there are any, else of 1h bars."""
    for timeframe in ("15m", "1h"):
        try:
            first_ms = with_patience(
                partial(ports.market_data.first_open_ms, symbol, timeframe), what=f"listing of {symbol}"
            )
        except TradewindError as error:
            log.warning("listing time unknown", symbol=symbol, timeframe=timeframe, reason=str(error))
            continue
        if first_ms is not None:
            return first_ms
    return None


def _vanished(ports: Ports, symbol: str, listing: Listing | None) -> list[Listing]:
    newest = ports.market_store.last_open_ms([symbol], "15m").get(symbol)
    if newest is None:
        return []
    log.warning("the exchange no longer lists a symbol", symbol=symbol)
    since = listing.listed_at if listing else None
    return [Listing(symbol, since, from_ms(newest + timeframe_ms("15m")))]
