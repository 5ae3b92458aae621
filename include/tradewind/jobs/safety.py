"""The stop: watch, latch, flatten, resume.

::

    ACTIVE ──halt──► REDUCE_ONLY ──breach, flatten──► HALTED ──► cancel entries ─► leave position by position ─► verify
       │                  │                              ▲  │                                                     │
       └──────────────────┴───────breach, flatten────────┘  └──────── again, until verified flat ◄────────────────┘

    resume (a person's, audited): HALTED only when flat and reconciled; REDUCE_ONLY when reconciled ──► ACTIVE

The latch is written before anything else happens, and only `resume` opens it. What the account held before us is never
sold. All of this works without Airflow.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any, Final

from tradewind.core.orders import LIVE, is_ours
from tradewind.core.ports import Ports
from tradewind.core.risk import Breach
from tradewind.core.types import Latch, MarketStatus, OrderRole, Position, TradingMode
from tradewind.errors import (
    BadInput,
    LedgerMismatch,
    NotFlatYet,
    RetryError,
    StopError,
    TradewindError,
    TradingHalted,
)
from tradewind.jobs.equity import Mark, mark
from tradewind.jobs.isolation import alone
from tradewind.jobs.leaving import cancel_resting
from tradewind.jobs.markets import Markets, read_markets
from tradewind.jobs.permission import WATCH
from tradewind.jobs.protection import exit_position
from tradewind.jobs.readings import breach_of, keep_mark, open_day
from tradewind.jobs.reconciling import compare, record
from tradewind.jobs.settling import refresh
from tradewind.jobs.tending import BUSY, instruments_of, is_too_small, protect_naked, tend_all

BREAKER: Final = "circuit_breaker"
_FLATTEN_ROUNDS: Final = 3


# --------------------------------------------------------------------------------------------------------------- watch
def watch_risk_once(ports: Ports, heartbeat: str = WATCH) -> dict[str, Any]:
    """One reading: the watch protects what a killed task left bare; then equity is marked, a breach tested and latched.

    Returns `breached`, true only where this call latched; then also `reason` and `latch_sequence`. Trouble with the
    protection is alerted and named in `problems`; it keeps nothing from being marked, nor does marking keep anything
    from being protected.

    Raises RetryError when equity cannot be marked: the heartbeat then stays away, and entries are blocked.
    """
    latch = ports.trading_store.latch()
    reading: dict[str, Any] = {"breached": False, "mode": latch.mode.value}
    if heartbeat == WATCH:
        reading |= _protect(ports, latch)
    try:
        marked = mark(ports)
        keep_mark(ports, marked)
        if marked.record.opening is None:
            open_day(ports, marked)
            marked = mark(ports)
        ports.trading_store.beat(heartbeat, ports.wall.now())
        reading |= {"equity_quote": str(marked.equity_quote), "unpriced": sorted(marked.priced.unpriced)}
        breach = None if latch.mode is TradingMode.HALTED else _confirmed_breach(ports, marked)
    except RetryError:
        raise
    except Exception as error:
        _say_failed(ports, "mark", "The risk watch cannot mark equity: the breaker is blind", error)
        raise
    return reading if breach is None else reading | _latch(ports, breach, heartbeat)


def _protect(ports: Ports, latch: Latch) -> dict[str, Any]:
    """Carry on a flatten that nothing carries on, or protect what is bare; what fails is said, and ends nothing."""
    try:
        if latch.mode is TradingMode.HALTED and _breaker_is_silent(ports, latch):
            return {"flattened": carry_on_flatten(ports)}
        problems = protect_naked(ports)
    except Exception as error:  # noqa: BLE001 - the breach test comes after it, whatever it was
        if not isinstance(error, RetryError):
            _say_failed(ports, "protect", "The risk watch cannot protect positions", error)
        problems = [f"{type(error).__name__}: {error}"]
    return {"problems": problems} if problems else {}


def _say_failed(ports: Ports, what: str, title: str, error: Exception) -> None:
    ports.alerts.raise_alert("critical", f"watch-{what}", title, f"{type(error).__name__}: {error}"[:2000])


def _latch(ports: Ports, breach: Breach, actor: str) -> dict[str, Any]:
    latch = ports.trading_store.set_latch(TradingMode.HALTED, breach.reason, ports.wall.now(), actor=actor)
    ports.metrics.count("tradewind.breaker.latched", kind=breach.kind.value)
    ports.alerts.raise_alert("critical", "breaker", "Circuit breaker: trading is halted", breach.reason)
    return {
        "breached": True,
        "reason": breach.reason,
        "mode": latch.mode.value,
        "latch_sequence": latch.sequence,
    }


def _confirmed_breach(ports: Ports, marked: Mark) -> Breach | None:
    """The breach, if there is one and a second fresh mark agrees."""
    if breach_of(ports, marked) is None:
        return None
    time.sleep(ports.params.breach_confirm_s / 2)
    return breach_of(ports, mark(ports))


def _breaker_is_silent(ports: Ports, latch: Latch) -> bool:
    """Is nobody flattening, longer after the latch than the breaker needs to start?"""
    work = ports.trading_store.flattening(latch.sequence)
    if work is not None and work.verified_flat_at is not None:
        return False
    last = latch.since if work is None else work.last_attempt_at
    return (ports.wall.now() - last).total_seconds() > ports.params.breaker_silent_s


# ------------------------------------------------------------------------------------------------------------- flatten
def trip_circuit_breaker(ports: Ports, reason: str = "tripped by hand", actor: str = BREAKER) -> dict[str, Any]:
    """Latch (if nobody has), leave every position, verify flat. Raises NotFlatYet until that is true."""
    store = ports.trading_store
    latch = store.set_latch(TradingMode.HALTED, reason, ports.wall.now(), actor=actor)
    store.start_flattening(latch.sequence, ports.wall.now())
    problems: list[str] = []
    left: list[str] = []
    for number in range(_FLATTEN_ROUNDS):
        if number:
            time.sleep(0.5 * number)
        problems = _flatten_once(ports)
        left = whats_left(ports)
        if not left:
            break
    report = {"left": left, "problems": problems, "reason": latch.reason}
    work = store.record_flattening(latch.sequence, ports.wall.now(), report, flat=not left)
    if left:
        ports.alerts.raise_alert(
            "critical",
            f"flatten-{latch.sequence}",
            f"Not flat after attempt {work.attempts}: {len(left)} left",
            "\n".join([*left, *problems])[:2000],
        )
        raise NotFlatYet(f"not flat yet: {'; '.join([*left, *problems])[:1000]}")
    seconds = ((work.verified_flat_at or work.last_attempt_at) - work.started_at).total_seconds()
    ports.metrics.timing_ms("tradewind.breaker.flatten", seconds * 1000)
    ports.alerts.raise_alert(
        "critical",
        f"flat-{latch.sequence}",
        "The account is flat",
        f"{latch.reason}. Verified flat after {work.attempts} attempts, {seconds:.1f} s. Open with ./tradewind resume.",
    )
    return {"flat": True, "latch_sequence": latch.sequence, "seconds": seconds, "reason": latch.reason}


def _flatten_once(ports: Ports) -> list[str]:
    """Cancel working entries, then leave one position after the other; returns what went wrong, in words.

    One that cannot be left keeps what rests, and keeps none of the others.
    """
    problems = tend_all(ports, apply_rules=False)
    for position in ports.trading_store.live_positions():
        words = alone(ports, position.position_id, position.symbol, partial(_leave, ports, position))
        problems += [f"{position.position_id}: {words}"] if words else []
    return list(dict.fromkeys(problems))


def _leave(ports: Ports, position: Position) -> str:
    """Cancel the entry and sell what is held; returns what could not be done, in words."""
    store = ports.trading_store
    with store.position_lock(position.position_id) as held:
        if not held:
            return BUSY
        markets = read_markets(ports, [position.symbol], with_orders=False)
        instrument = markets.instrument(position.symbol)
        entries = [
            order
            for order in store.orders_of(position.position_id)
            if order.role is OrderRole.ENTRY and order.state in LIVE
        ]
        is_cancelled = not entries or cancel_resting(ports, entries)
        situation = refresh(ports, position.position_id, instrument, markets.book(position.symbol))
        if situation.position.quantity > 0:
            exit_position(ports, situation, BREAKER)
    return "" if is_cancelled else "its entry could not be cancelled yet"


def whats_left(ports: Ports) -> list[str]:
    """What keeps the account from being flat, and what can be done about it: positions above dust, orders of ours that
    work or may work."""
    store = ports.trading_store
    positions, live = store.live_positions(), store.orders_in(sorted(LIVE))
    markets = read_markets(ports, sorted({*ports.symbols, *(position.symbol for position in positions)}))
    left = [f"{p.symbol}: {p.quantity} held ({p.status.value}){_why_held(ports, p, markets)}" for p in positions]
    left += [f"{order.symbol}: {order.client_order_id} is {order.state.value}" for order in live]
    known = {order.client_order_id for order in live}
    left += [
        f"{order.symbol}: {order.client_order_id} rests at the exchange"
        for order in markets.orders.values()
        if is_ours(order.client_order_id) and order.client_order_id not in known
    ]
    return left


def _why_held(ports: Ports, position: Position, markets: Markets) -> str:
    """Why a position cannot be sold now, and what to do about it; "" where it can, or where the exchange is silent."""
    market, book = markets.instruments.get(position.symbol), markets.books.get(position.symbol)
    try:
        status = ports.exchange.market_status(position.symbol)
    except TradewindError:
        return ""
    if market is None or status is MarketStatus.DELISTED:
        why = "the exchange does not list it any more"
    elif status is not MarketStatus.TRADING:
        why = f"its market is {status.value}: wait for it to trade again"
    elif book is None:
        why = "it has no price that can be believed: wait for one"
    elif is_too_small(position, market, book):
        why = "too little for an order at today's price and by today's rules: wait for better ones"
    else:
        return ""
    return f"; {why}, or ./tradewind write-off {position.position_id} --reason TEXT"


def carry_on_flatten(ports: Ports) -> bool | None:
    """Go on with a flatten that was begun or that nobody began; None when there is none, False while not flat."""
    latch = ports.trading_store.latch()
    if latch.mode is not TradingMode.HALTED:
        return None
    work = ports.trading_store.flattening(latch.sequence)
    if work is not None and work.verified_flat_at is not None and not ports.trading_store.live_positions():
        return True
    try:
        trip_circuit_breaker(ports, latch.reason)
    except NotFlatYet:
        return False
    return True


# ------------------------------------------------------------------------------------------------------------- a person
def halt(ports: Ports, reason: str, actor: str, source: str = "command") -> dict[str, Any]:
    """No more entries; positions stay protected and managed. A HALTED latch stays HALTED."""
    if not reason.strip():
        raise BadInput('a halt needs a reason, such as ./tradewind halt "exchange maintenance"')
    store = ports.trading_store
    latch = store.set_latch(TradingMode.REDUCE_ONLY, reason, ports.wall.now(), actor=actor)
    store.audit(actor, "halt", latch.mode.value, {"reason": reason}, source=source)
    ports.alerts.raise_alert(
        "warning", f"halt-{latch.sequence}", f"Trading is {latch.mode.value}", f"{actor}: {reason}"
    )
    return {"mode": latch.mode.value, "reason": latch.reason, "sequence": latch.sequence}


def flatten(ports: Ports, actor: str, source: str = "command") -> dict[str, Any]:
    """Halt, leave everything that is ours at market, verify flat. Raises NotFlatYet while something is left."""
    store = ports.trading_store
    latch = store.set_latch(TradingMode.HALTED, f"flatten by {actor}", ports.wall.now(), actor=actor)
    store.audit(actor, "flatten", "latched", {"sequence": latch.sequence}, source=source)
    try:
        done = trip_circuit_breaker(ports, latch.reason, actor)
    except NotFlatYet as error:
        store.audit(actor, "flatten", "not flat yet", {"error": str(error)[:500]}, source=source)
        raise
    store.audit(actor, "flatten", "flat", {"sequence": latch.sequence}, source=source)
    return done


def resume(
    ports: Ports, actor: str, reason: str = "resumed", source: str = "command", request: str | None = None
) -> dict[str, Any]:
    """Open the latch after checking; today's losses and the peak count anew from here.

    `request` names the signed request that a task acts on. Raises TradingHalted, with every reason, unless exchange and
    ledger agree and, after a breaker, the account is flat.
    """
    store = ports.trading_store
    latch = store.latch()
    if latch.mode is TradingMode.ACTIVE:
        return {"mode": latch.mode.value, "reason": "was not halted"}
    refusals = _resume_refusals(ports, latch)
    if refusals:
        store.audit(actor, "resume", "refused", {"refusals": refusals}, source=source)
        raise TradingHalted(f"resume is refused: {'; '.join(refusals)}")
    reading = mark(ports).reading
    equity = reading.equity_quote
    try:
        opened = store.open_latch(
            reason, ports.wall.now(), actor=actor, source=source, sequence=latch.sequence, equity=reading,
            request=request,
        )  # fmt: skip
    except TradingHalted as error:
        store.audit(actor, "resume", "refused", {"refusals": [str(error)]}, source=source)
        raise
    ports.alerts.raise_alert("warning", f"resume-{opened.sequence}", "Trading is resumed", f"{actor}: {reason}")
    return {"mode": opened.mode.value, "equity_quote": str(equity), "sequence": opened.sequence}


def resume_requested(ports: Ports, request: str) -> dict[str, Any]:
    """Resume because the status page asked for it: the request in the audit bears the control token's signature.

    It is good for minutes, and for the latch that was looked at. Raises StopError without such a request: no run that
    was started by hand, and no row that another process made, opens the latch.
    """
    asked = ports.trading_store.signed_request("resume", request)
    if asked is None:
        raise StopError("no resume was asked for: press Resume on the status page, or run ./tradewind resume")
    return resume(ports, asked["actor"], source=asked["source"], request=request)


def _resume_refusals(ports: Ports, latch: Latch) -> list[str]:
    try:
        problems = tend_all(ports)
        report = compare(ports, instruments_of(ports))
    except LedgerMismatch as error:
        return [str(error)]
    refusals = list(problems)
    if not record(ports, report, problems):
        refusals += [f"{d.kind.value} {d.symbol or d.subject}: {d.words}" for d in report.differences]
    if latch.mode is TradingMode.HALTED:
        refusals += whats_left(ports)
    return refusals
