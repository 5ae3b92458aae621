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
from datetime import timedelta
from decimal import Decimal
from typing import Any, Final

from tradewind.core.orders import LIVE, is_ours
from tradewind.core.ports import Ports
from tradewind.core.risk import Breach, breached
from tradewind.core.timeframes import from_ms, to_ms
from tradewind.core.types import Latch, OrderRole, TradingMode
from tradewind.errors import BadInput, LedgerMismatch, NotFlatYet, StopError, TradewindError, TradingHalted
from tradewind.jobs.equity import day_start, mark_equity
from tradewind.jobs.leaving import cancel_resting
from tradewind.jobs.permission import WATCH
from tradewind.jobs.protection import exit_position
from tradewind.jobs.reconciling import compare, record
from tradewind.jobs.settling import price_of, refresh
from tradewind.jobs.tending import instruments_of, protect_naked, tend_all

BREAKER: Final = "circuit_breaker"
# An opening reading taken this soon after midnight is the day's own; later, the last one before midnight is nearer.
_OPENING: Final = timedelta(minutes=2)
RESUME_REQUEST_MAX_AGE: Final = timedelta(minutes=10)
_FLATTEN_ROUNDS: Final = 3
_MARK_EVERY_MS: Final = 60_000


# --------------------------------------------------------------------------------------------------------------- watch
def open_day(ports: Ports) -> dict[str, Any]:
    """Keep the opening equity of the UTC day, once: now, else the last reading before midnight, else the first one."""
    store, now = ports.trading_store, ports.clock.now()
    kept = store.day_open_equity(now)
    if kept is not None:
        return {"day": day_start(now).date().isoformat(), "equity_quote": str(kept), "from": "kept"}
    midnight = day_start(now)
    earlier = store.last_equity_before(midnight)
    if now - midnight <= _OPENING or earlier is None:
        source, equity = "marked now", mark_equity(ports)
    else:
        source, equity = "the last reading before midnight", earlier
    store.record_equity("day_open", midnight, equity, source=source)
    opened = store.day_open_equity(now)
    return {"day": midnight.date().isoformat(), "equity_quote": str(opened), "from": source}


def watch_risk_once(ports: Ports, heartbeat: str = WATCH) -> dict[str, Any]:
    """One reading: mark equity, test for a breach, latch it; the watch also protects what a killed task left bare.

    Returns `breached`, true only where this call latched; then also `reason` and `latch_sequence`.

    Raises RetryError when equity cannot be marked: the heartbeat then stays away, and entries are blocked.
    """
    store = ports.trading_store
    latch = store.latch()
    equity = mark_equity(ports)
    _keep_mark(ports, equity)
    store.beat(heartbeat, ports.wall.now())
    reading: dict[str, Any] = {"breached": False, "mode": latch.mode.value, "equity_quote": str(equity)}
    if latch.mode is TradingMode.HALTED:
        if heartbeat == WATCH and _breaker_is_silent(ports, latch):
            reading["flattened"] = carry_on_flatten(ports)
        elif heartbeat == WATCH:
            protect_naked(ports)
        return reading
    breach = _confirmed_breach(ports, equity)
    if breach is None:
        if heartbeat == WATCH and (problems := protect_naked(ports)):
            reading["problems"] = problems
        return reading
    latch = store.set_latch(TradingMode.HALTED, breach.reason, ports.wall.now(), actor=heartbeat)
    ports.metrics.count("tradewind.breaker.latched", kind=breach.kind.value)
    ports.alerts.raise_alert("critical", "breaker", "Circuit breaker: trading is halted", breach.reason)
    return reading | {
        "breached": True,
        "reason": breach.reason,
        "mode": latch.mode.value,
        "latch_sequence": latch.sequence,
    }


def _keep_mark(ports: Ports, equity: Decimal) -> None:
    """Keep one reading a minute, and every new peak."""
    store, now = ports.trading_store, ports.clock.now()
    peak = store.peak_equity()
    is_peak = peak is None or equity > peak
    now_ms = to_ms(now)
    store.record_equity("mark", now if is_peak else from_ms(now_ms - now_ms % _MARK_EVERY_MS), equity)
    ports.metrics.gauge("tradewind.equity_quote", float(equity))


def _test(ports: Ports, equity: Decimal) -> Breach | None:
    store, now = ports.trading_store, ports.clock.now()
    day_open = store.day_open_equity(now)
    if day_open is None:
        day_open = Decimal(open_day(ports)["equity_quote"])
    return breached(equity, day_open, store.peak_equity(), ports.params)


def _confirmed_breach(ports: Ports, equity: Decimal) -> Breach | None:
    """The breach, if there is one and, where it needs that, a second fresh mark agrees."""
    breach = _test(ports, equity)
    if breach is None or not breach.needs_confirmation:
        return breach
    time.sleep(ports.params.breach_confirm_s / 2)
    return _test(ports, mark_equity(ports))


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
    """Cancel working entries, then leave one position after the other; returns what went wrong, in words."""
    problems = tend_all(ports, apply_rules=False)
    store = ports.trading_store
    for position in store.live_positions():
        try:
            with store.position_lock(position.position_id) as held:
                if not held:
                    problems.append(f"{position.position_id}: another task is at work on it")
                    continue
                entries = [
                    order
                    for order in store.orders_of(position.position_id)
                    if order.role is OrderRole.ENTRY and order.state in LIVE
                ]
                if entries and not cancel_resting(ports, entries):
                    problems.append(f"{position.position_id}: its entry could not be cancelled yet")
                instrument = ports.exchange.instruments([position.symbol]).get(position.symbol)
                if instrument is None:
                    problems.append(f"{position.position_id}: the exchange does not list {position.symbol}")
                    continue
                book = price_of(ports, position.symbol)
                situation = refresh(ports, position.position_id, instrument, book)
                if situation.position.quantity > 0:
                    exit_position(ports, situation, BREAKER)
        except TradewindError as error:
            problems.append(f"{position.position_id}: {type(error).__name__}: {error}")
    return problems


def whats_left(ports: Ports) -> list[str]:
    """What keeps the account from being flat: positions above dust, orders of ours that work or may work."""
    store = ports.trading_store
    left = [f"{p.symbol}: {p.quantity} held ({p.status.value})" for p in store.live_positions()]
    left += [
        f"{order.symbol}: {order.client_order_id} is {order.state.value}" for order in store.orders_in(sorted(LIVE))
    ]
    open_orders = ports.exchange.open_orders(sorted(instruments_of(ports)))
    known = {order.client_order_id for order in store.orders_in(sorted(LIVE))}
    left += [
        f"{order.symbol}: {order.client_order_id} rests at the exchange"
        for order in open_orders
        if is_ours(order.client_order_id) and order.client_order_id not in known
    ]
    return left


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


def resume(ports: Ports, actor: str, reason: str = "resumed", source: str = "command") -> dict[str, Any]:
    """Open the latch after checking; today's losses and the peak count anew from here.

    Raises TradingHalted, with every reason, unless exchange and ledger agree and, after a breaker, the account is flat.
    """
    store = ports.trading_store
    latch = store.latch()
    if latch.mode is TradingMode.ACTIVE:
        return {"mode": latch.mode.value, "reason": "was not halted"}
    refusals = _resume_refusals(ports, latch)
    if refusals:
        store.audit(actor, "resume", "refused", {"refusals": refusals}, source=source)
        raise TradingHalted(f"resume is refused: {'; '.join(refusals)}")
    equity = mark_equity(ports)
    store.record_resume(ports.clock.now(), equity, resumed_by=actor, reason=reason)
    words = f"{reason} (was: {latch.reason})"
    opened = store.open_latch(words, ports.wall.now(), actor=actor, sequence=latch.sequence)
    store.audit(actor, "resume", "opened", {"was": latch.reason, "equity_quote": equity}, source=source)
    ports.alerts.raise_alert("warning", f"resume-{opened.sequence}", "Trading is resumed", f"{actor}: {reason}")
    return {"mode": opened.mode.value, "equity_quote": str(equity), "sequence": opened.sequence}


def resume_requested(ports: Ports, request: str) -> dict[str, Any]:
    """Resume because the status page asked for it, in the audit row of this request; each is good once, for minutes.

    Raises StopError without such a row: nobody opens the latch by starting a run by hand.
    """
    asked = ports.trading_store.take_request("resume", request, RESUME_REQUEST_MAX_AGE)
    if asked is None:
        raise StopError("no resume was asked for: press Resume on the status page, or run ./tradewind resume")
    return resume(ports, asked["actor"], source=asked["source"])


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
