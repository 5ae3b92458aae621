"""Every position brought up to date and under protection, one at a time, each under its own lock.

::

    orders observed ──► fills taken in ──► figures ──► over? ───────────────────────► cancel what still rests
                                             │          ├── CLOSING, −2R, time stop ─► market exit
                                             │          └── otherwise ──► bar rules ─► converge protection
                                             └── no price that can be believed ──────► what rests stays, in words

A market without rules, price or answer keeps no other position from being tended.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Final

import structlog

from tradewind.core.brackets import floor_to_step, is_tradable
from tradewind.core.orders import AT_EXCHANGE, LIVE, UNDECIDED, is_final
from tradewind.core.params import PositionRules
from tradewind.core.ports import Ports
from tradewind.core.positions import FAILED_STOP, stop_failed
from tradewind.core.protection import target_passed
from tradewind.core.timeframes import last_closed_open_ms, to_ms
from tradewind.core.types import (
    BookTop,
    Fill,
    Instrument,
    Order,
    OrderRole,
    Position,
    PositionStatus,
    Side,
)
from tradewind.errors import TradewindError
from tradewind.jobs.isolation import alone, each_symbol, said
from tradewind.jobs.markets import GIVE_UP, Markets, read_instruments, read_markets
from tradewind.jobs.protection import converge_protection, exit_position
from tradewind.jobs.rules import apply_bar_rules, rules_of
from tradewind.jobs.settling import OVER, Situation, ingest_fills, settle

log = structlog.get_logger(__name__)

BUSY: Final = "another task is at work on it"
# Sends are answered within this, or their task is dead or waiting.
_ANSWER_TIME: Final = timedelta(seconds=1)
# A decision waits so long for another task that is tending a position; it takes less.
_FOLLOW_S: Final = 3.0
_POLL_S: Final = 0.1
# The watch asks for the open orders of what is held this often. Each market weighs 6 of Binance's 6,000 a minute: four
# positions cost 6 % of them so, and 12 % at each look of two seconds.
_LOOK_AT_STOPS_EVERY: Final = timedelta(seconds=4)
# A human's trade leaves no order of ours behind: executions are looked for this far back.
_FOREIGN_WINDOW: Final = timedelta(days=1)


# ------------------------------------------------------------------------------------------------------- all positions
def tend_all(ports: Ports, *, apply_rules: bool = True, only: Collection[str] | None = None) -> list[str]:
    """Bring every position (of `only` these) up to date and under protection; returns what could not be done."""
    problems = _tend(ports, apply_rules=apply_rules, only=only)
    return [f"{position_id}: {words}" for position_id, words in problems.items()]


def _tend(ports: Ports, *, apply_rules: bool = True, only: Collection[str] | None = None) -> dict[str, str]:
    """`tend_all`, its problems by position id."""
    store = ports.trading_store
    live = {position.position_id: position.symbol for position in store.live_positions()}
    orders = store.orders_in(sorted(LIVE))
    unfinished = {order.position_id: order.symbol for order in orders}
    wanted = {key: symbol for key, symbol in {**unfinished, **live}.items() if only is None or key in only}
    if not wanted:
        return {}
    at = ports.wall.now()
    markets = read_markets(ports, sorted(set(wanted.values())))
    _see(ports, orders, markets.orders, at)
    problems = {}
    for position_id, symbol in wanted.items():
        work = partial(tend_position, ports, position_id, symbol, markets, apply_rules=apply_rules)
        if words := alone(ports, position_id, symbol, work):
            problems[position_id] = words
    return problems


def follow_bar(ports: Ports) -> list[str]:
    """Apply the rules of the closed bar before anything is decided on it; returns what could not be done, in words.

    As in a replay: what leaves at this close has made room, and a stop that moves has freed its risk. Whom the minute's
    look has led there already is not looked at again; one that it is leading there now is waited for.
    """
    deadline = time.monotonic() + _FOLLOW_S
    problems: dict[str, str] = {}
    while behind := _behind(ports):
        problems = _tend(ports, only=behind)
        if BUSY not in problems.values() or time.monotonic() >= deadline:
            break
        time.sleep(_POLL_S)
    return [f"{position_id}: {words}" for position_id, words in problems.items()]


def _behind(ports: Ports) -> set[str]:
    """Held positions that no rule of the newest closed and stored bar has seen."""
    positions = [p for p in ports.trading_store.live_positions() if p.quantity > 0 and p.status is PositionStatus.OPEN]
    rules, now_ms = rules_of(ports, positions), to_ms(ports.clock.now())
    found = set()
    for timeframe in {own.decision_timeframe for own in rules.values()}:
        newest_ms = last_closed_open_ms(now_ms, timeframe)
        own = [p for p in positions if rules[p.position_id].decision_timeframe == timeframe]
        stored_ms = ports.market_store.last_open_ms(sorted({p.symbol for p in own}), timeframe)
        found |= {
            p.position_id
            for p in own
            if to_ms(p.managed_bar or p.bar) < newest_ms <= stored_ms.get(p.symbol, 0)
        }  # fmt: skip
    return found


def tend_position(ports: Ports, position_id: str, symbol: str, markets: Markets, *, apply_rules: bool = True) -> str:
    """One position under its lock; returns what could not be done, in words.

    Without a price its orders and fills are still taken in, and what rests stays. Raises UnknownSymbol or MissingData
    where its market has no rules or no price that can be believed.
    """
    instrument = markets.instrument(symbol)
    with ports.trading_store.position_lock(position_id) as held:
        if not held:
            return BUSY
        figures = settle(ports, position_id, instrument, markets.orders)
        position, is_over = figures.position, figures.position.status in OVER
        if (is_over and all(is_final(order.state) for order in figures.orders)) or (
            not is_over and position.quantity <= 0  # the entry may still fill
        ):
            return ""
        book = markets.book(symbol)
        situation = Situation(position, figures.orders, figures.lots, instrument, book)
        _tend_at(ports, situation, apply_rules=apply_rules)
    return ""


def _tend_at(ports: Ports, situation: Situation, *, apply_rules: bool) -> None:
    """What the figures and a believable price ask for."""
    position = situation.position
    if situation.is_over:
        converge_protection(ports, situation)
        return
    if position.status is PositionStatus.CLOSING:
        exit_position(ports, situation, position.exit_reason)
        return
    rules = rules_of(ports, [position])[position.position_id]
    leaves_at = situation.book.bid if position.side is Side.LONG else situation.book.ask
    if stop_failed(position, leaves_at, rules):
        _say_stop_failed(ports, situation, rules)
        exit_position(ports, situation, FAILED_STOP)
        return
    exit_reason = None
    if apply_rules:
        situation, exit_reason = apply_bar_rules(ports, situation, rules)
    if exit_reason is not None:
        exit_position(ports, situation, exit_reason)
    else:
        converge_protection(ports, situation)
    _say_too_small(ports, situation)


# ----------------------------------------------------------------------------------------------------------- the watch
def protect_naked(ports: Ports) -> list[str]:
    """Tend what is without protection now; returns what could not be done, in words.

    By the ledger: something is held without a stop at the exchange, a replacement was begun and not ended, an entry is
    filled and the position does not know yet, or an order is undecided for longer than an answer takes (its task seems
    to have died between two lines); or a target that does not rest was reached. By the exchange, every few seconds: a
    stop that is not among its open orders any more, because a maintenance, a fill of its target in part or a rule of
    the exchange's ended it. A position whose lock a task holds is left to that task.
    """
    store = ports.trading_store
    positions = {position.position_id: position for position in store.live_positions()}
    if not positions:
        return []
    live: dict[str, list[Order]] = {}
    for order in store.orders_in(sorted(LIVE)):
        live.setdefault(order.position_id, []).append(order)
    begun = store.unprotected_now()
    urgent = {key for key in positions if key in begun or _is_overdue(ports, live.get(key, []))}
    urgent |= {key for key, position in positions.items() if _is_behind(ports, position)}
    unseen, problems = _unseen_stops(ports, [order for key in positions for order in live.get(key, [])])
    bare = {key: quantity for key, p in positions.items() if (quantity := _bare(p, live.get(key, []))) > 0}
    instruments, _ = read_instruments(ports, sorted({position.symbol for position in positions.values()}))
    naked = urgent | unseen
    naked |= {key for key, quantity in bare.items() if _could_rest(positions[key], quantity, instruments)}
    watched = {
        key for key, p in positions.items() if p.symbol in instruments and not instruments[p.symbol].target_rests
    }
    if not naked and not watched:
        return problems
    symbols = sorted({positions[key].symbol for key in naked | watched})
    markets = read_markets(ports, symbols, with_orders=False)
    naked |= {key for key in watched if _is_at_target(positions[key], markets.books)}
    for position_id in sorted(naked):
        symbol = positions[position_id].symbol
        work = partial(tend_position, ports, position_id, symbol, markets, apply_rules=False)
        words = alone(ports, position_id, symbol, work)
        problems += [f"{position_id}: {words}"] if words not in ("", BUSY) else []
    return problems


def _unseen_stops(ports: Ports, orders: Sequence[Order]) -> tuple[set[str], list[str]]:
    """Positions with a stop that should rest and is not among the exchange's open orders; and what went wrong.

    Only markets with a stop that was not seen for a while are asked for.
    """
    at = ports.wall.now()
    stops = _resting_stops(orders)
    due = {stop.symbol for stop in stops if stop.seen_at is None or at - stop.seen_at >= _LOOK_AT_STOPS_EVERY}
    try:
        answers, troubles = each_symbol(ports.exchange.open_orders, sorted(due))
    except TradewindError as error:
        return set(), [f"the open orders were not told: {said(error)}"]
    listed = {order.client_order_id: order for answer in answers for order in answer}
    _see(ports, stops, listed, at)
    asked = due - set(troubles)
    unseen = {stop.position_id for stop in stops if stop.symbol in asked and stop.client_order_id not in listed}
    return unseen, [f"{symbol}: {words}" for symbol, words in troubles.items()]


def _see(ports: Ports, orders: Sequence[Order], listed: Collection[str], at: datetime) -> None:
    """Keep the moment at which stops were seen to rest."""
    ports.trading_store.mark_seen(
        [o.client_order_id for o in _resting_stops(orders) if o.client_order_id in listed], at
    )


def _resting_stops(orders: Sequence[Order]) -> list[Order]:
    return [order for order in orders if order.role is OrderRole.STOP and order.state in AT_EXCHANGE]


def _is_behind(ports: Ports, position: Position) -> bool:
    """Do the entries' orders say that more was filled than the position knows of?"""
    entries = [o for o in ports.trading_store.orders_of(position.position_id) if o.role is OrderRole.ENTRY]
    return sum((order.filled_quantity for order in entries), Decimal(0)) > position.entry_quantity


def _is_at_target(position: Position, books: Mapping[str, BookTop]) -> bool:
    """Has the price reached a target that no order at the exchange waits for?"""
    book = books.get(position.symbol)
    return book is not None and target_passed(position, position.target_price, book)


def _could_rest(position: Position, quantity: Decimal, instruments: Mapping[str, Instrument]) -> bool:
    """Is it more than dust, that no order could hold? What has no rules is somebody's problem, not dust."""
    instrument = instruments.get(position.symbol)
    if instrument is None:
        return True
    return is_tradable(floor_to_step(quantity, instrument.step_size), position.stop_price, instrument)


def _bare(position: Position, live: Sequence[Order]) -> Decimal:
    """What is held without a stop, by the ledger; one whose fate is undecided counts, until it is overdue."""
    stops = [order for order in live if order.role is OrderRole.STOP and order.state in AT_EXCHANGE | UNDECIDED]
    return position.quantity - sum((order.quantity - order.filled_quantity for order in stops), Decimal(0))


def _is_overdue(ports: Ports, live: Sequence[Order]) -> bool:
    """Is an order undecided for longer than an answer usually takes? A task that still waits for it holds the lock."""
    deadline = ports.wall.now() - _ANSWER_TIME
    return any(order.sent_at is not None and order.sent_at < deadline for order in live if order.state in UNDECIDED)


def is_too_small(position: Position, market: Instrument, book: BookTop) -> bool:
    """Is what is held too little for an order at today's price? It is no dust: it was one at the entry's price."""
    leaves_at = book.bid if position.side is Side.LONG else book.ask
    return not is_tradable(floor_to_step(position.quantity, market.step_size), leaves_at, market)


def _say_too_small(ports: Ports, situation: Situation) -> None:
    position, market = situation.position, situation.instrument
    if is_too_small(position, market, situation.book) and all(is_final(order.state) for order in situation.orders):
        ports.alerts.raise_alert(
            "warning",
            f"too-small-{position.position_id}",
            f"{position.symbol}: too little is held for an order at today's price",
            f"{position.quantity} at {situation.book.bid} is below the minimum of {market.min_notional_quote} "
            f"{market.quote}: it can be neither protected nor sold. {GIVE_UP.capitalize()}: {position.position_id}.",
        )


def _say_stop_failed(ports: Ports, situation: Situation, rules: PositionRules) -> None:
    position = situation.position
    ports.alerts.raise_alert(
        "critical",
        f"stop-failed-{position.position_id}",
        f"{position.symbol} is {rules.failed_stop_r:.0f} R under water: its stop did not work",
        f"Bid {situation.book.bid}, stop {position.stop_price}, entry {position.entry_price}. Left at market.",
    )


def is_anybody_at_work(ports: Ports) -> bool:
    """Does another task hold a position at this moment? What is half done there is no difference yet."""
    store = ports.trading_store
    ids = {position.position_id for position in store.live_positions()}
    ids |= {order.position_id for order in store.orders_in(sorted(LIVE))}
    for position_id in sorted(ids):
        with store.position_lock(position_id) as held:
            if not held:
                return True
    return False


# -------------------------------------------------------------------------------------------------------- the exchange
def instruments_of(ports: Ports) -> dict[str, Instrument]:
    """The rules of every market that is configured or that the ledger has something in, where the exchange lists it."""
    symbols = {position.symbol for position in ports.trading_store.live_positions()} | set(ports.symbols)
    return read_instruments(ports, sorted(symbols))[0]


def foreign_fills(ports: Ports) -> list[Fill]:
    """Executions of the last day in markets with a live position that no order of ours made.

    A market that does not answer has none: that it does not is a difference of its own.
    """
    since = ports.clock.now() - _FOREIGN_WINDOW
    symbols = sorted({position.symbol for position in ports.trading_store.live_positions()})
    listed = sorted(read_instruments(ports, symbols)[0])
    answers, _ = each_symbol(
        lambda asked: [fill for symbol in asked for fill in ingest_fills(ports, symbol, since=since)], listed
    )
    return [fill for answer in answers for fill in answer]
