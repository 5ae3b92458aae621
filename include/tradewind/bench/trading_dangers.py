"""The dangerous half of the trading bench: stops replaced over a slow line, and market crashes with positions open."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

import httpx

from tradewind.bench.rows import BenchOptions, Row, percentile
from tradewind.bench.trading_stack import ANSWER_S, BAR, TradingStack, start_anew, wait_until
from tradewind.core.brackets import floor_to_step
from tradewind.core.orders import intent_id
from tradewind.core.types import BracketLot, Decision, Intent, Outcome, Side, TradingMode
from tradewind.errors import StackFailed
from tradewind.jobs import positions, trading
from tradewind.jobs.equity import mark_equity
from tradewind.jobs.permission import permission_now
from tradewind.jobs.tending import tend_all
from tradewind.wiring import Wiring

BENCH: Final = "trading"
DELAY_EACH_WAY_S: Final = 0.15
_CRASH_FRAC: Final = 0.06
_POSITIONS: Final = 5


# --------------------------------------------------------------------------------------------------------- replacements
def _enter(system: TradingStack, symbol: str, notional: Decimal, stop_frac: Decimal) -> str:
    """An entry at the market that the bench decides itself, sent by the job that sends every entry."""
    ports = system.wiring
    bar = system.now() - BAR
    book = ports.exchange.book_tops([symbol])[symbol]
    instrument = ports.exchange.instruments([symbol])[symbol]
    tick = instrument.tick_size
    limit = floor_to_step(book.ask * Decimal("1.002"), tick)
    stop = floor_to_step(book.ask * (1 - stop_frac), tick)
    target = floor_to_step(book.ask * (1 + stop_frac), tick)
    quantity = floor_to_step(notional / limit, instrument.step_size)
    version = ports.params.strategy_version
    # Within the bar: not the cycle's own name for it, and no closed bar that the minute's run would still judge it by.
    moment = bar + timedelta(milliseconds=1 + time.monotonic_ns() // 1_000_000 % 800_000)
    identity = intent_id(ports.account, version, symbol, moment)
    intent = Intent(
        intent_id=identity,
        account=ports.account,
        strategy_version=version,
        symbol=symbol,
        side=Side.LONG,
        bar=moment,
        entry_limit_price=limit,
        stop_price=stop,
        lots=(BracketLot(0, quantity, target),),
        atr_quote=float(book.ask - stop) / 2.5,
        risk_quote=quantity * (limit - stop),
        notional_quote=quantity * limit,
        expected_r=0.5,
        expires_at=ports.clock.now() + timedelta(minutes=3),
    )
    ports.trading_store.insert_decisions(
        [Decision(ports.account, version, symbol, moment, Outcome.INTENT, "", (), None, None, None, intent)]
    )
    trading.place_brackets(ports, identity)
    return identity


def replacement_rows(system: TradingStack, count: int) -> list[Row]:
    """One position's stop moved up `count` times over a slow line, each by the job of the minute's run."""
    ports = system.wiring
    wait_until(lambda: ports.trading_store.latch().mode is TradingMode.ACTIVE, 10, "the latch is closed")
    positions.manage_positions(ports)
    _await_permission(system)
    position_id = _enter(system, ports.symbols[0], Decimal(5000), Decimal("0.2"))
    rule = system.admin.add_fault("delay", path="/api/v3/*", seconds=2 * DELAY_EACH_WAY_S)
    spans: list[float] = []
    try:
        for _ in range(count):
            spans.append(_replace_stop(ports, position_id))
    finally:
        system.admin.clear_faults(rule["id"])
    start_anew(system)
    what = f"unprotected while a stop is replaced, {DELAY_EACH_WAY_S * 1000:.0f} ms each way, {len(spans)} times"
    return [
        Row(BENCH, f"{what}, p95", percentile(spans, 0.95), "s", 1.0, spread=(min(spans), max(spans))),
        Row(BENCH, f"{what}, longest", max(spans), "s", 2.0),
    ]


def _replace_stop(ports: Wiring, position_id: str) -> float:
    """Want the stop a little higher and see it rest there; returns the seconds without one.

    The stack's own runs are at work as well: whoever finds the wanted stop first replaces it. Raises StackFailed when
    the position is gone or nobody did.
    """
    store = ports.trading_store
    before = len(_ended(ports, position_id))
    wait_until(lambda: _want_higher_stop(ports, position_id), 10, f"{position_id} stayed locked")
    deadline_s = time.monotonic() + 20
    while len(_ended(ports, position_id)) == before and time.monotonic() < deadline_s:
        tend_all(ports, apply_rules=False)
    position = store.position(position_id)
    ended = _ended(ports, position_id)[before:]
    if position is None or position.quantity <= 0 or not ended:
        raise StackFailed(f"the stop of {position_id} was not replaced: {position}")
    return max(ended)


def _ended(ports: Wiring, position_id: str) -> list[float]:
    return [s.seconds for s in ports.trading_store.unprotected_spans(position_id) if s.seconds is not None]


def _want_higher_stop(ports: Wiring, position_id: str) -> bool:
    """What the rule of a closed bar leaves behind: a wanted stop that does not rest yet."""
    store = ports.trading_store
    with store.position_lock(position_id) as held:
        position = store.position(position_id)
        if not held or position is None:
            return False
        tick = ports.exchange.instruments([position.symbol])[position.symbol].tick_size
        moved = floor_to_step(position.stop_price * Decimal("1.003"), tick)
        store.save_position(replace(position, stop_price=moved), "stop_moved", ports.clock.now())
    return True


# ------------------------------------------------------------------------------------------------------------- breaches
def _hold_five(system: TradingStack) -> list[str]:
    """Five positions with most of the capital in them, their stops far below the crash."""
    positions.manage_positions(system.wiring)
    _await_permission(system)
    # Of what is left: each crash before this one has cost something.
    share = mark_equity(system.wiring) * Decimal("0.17")
    return [_enter(system, symbol, share, Decimal("0.3")) for symbol in system.wiring.symbols[:_POSITIONS]]


def _await_permission(system: TradingStack) -> None:
    try:
        wait_until(lambda: permission_now(system.wiring).allowed, 60, "entries are not allowed", 0.5)
    except StackFailed as error:
        raise StackFailed(f"{error}: {'; '.join(permission_now(system.wiring).reasons)}") from None


def _breach(system: TradingStack) -> tuple[float, float]:
    """Crash the market with five positions open: seconds to the latch, and to the account verified flat."""
    store = system.wiring.trading_store
    _hold_five(system)
    standing = [position for position in store.live_positions() if position.quantity > 0]
    if len(standing) < _POSITIONS:
        raise StackFailed(f"{len(standing)} of {_POSITIONS} positions stood before a crash")
    system.admin.shock(-_CRASH_FRAC)
    started_s = time.monotonic()
    wait_until(lambda: store.latch().mode is TradingMode.HALTED, 120, "the latch was not written")
    latched_s = time.monotonic() - started_s
    sequence = store.latch().sequence

    def verified() -> bool:
        work = store.flattening(sequence)
        return work is not None and work.verified_flat_at is not None

    wait_until(verified, 120, "the account was not verified flat")
    return latched_s, time.monotonic() - started_s


def breach_rows(system: TradingStack, count: int, options: BenchOptions) -> list[Row]:
    latched, flat = [], []
    for number in range(count):
        to_latch_s, to_flat_s = _breach(system)
        latched.append(to_latch_s)
        flat.append(to_flat_s)
        options.say(f"breach {number + 1}: latched after {to_latch_s:.1f} s, flat after {to_flat_s:.1f} s")
        _after_breach(system)
    return [
        _p95(f"breach to latch written, p95 of {count}", latched, 4.0),
        _p95(f"breach to verified flat, 5 positions, p95 of {count}", flat, 15.0),
    ]


def blind_breach_rows(system: TradingStack) -> list[Row]:
    _hold_five(system)
    system.kill("triggerer")
    system.admin.shock(-_CRASH_FRAC)
    store = system.wiring.trading_store
    took_s = wait_until(lambda: store.latch().mode is TradingMode.HALTED, 150, "the latch was not written")
    start_anew(system)
    return [Row(BENCH, "breach to latch written, triggerer killed", took_s, "s", 75.0)]


def outage_rows(system: TradingStack) -> list[Row]:
    """How soon the status app names a service that was killed, and how soon all is well again."""
    url = f"http://127.0.0.1:{system.settings.status_port}/api/ready"

    def failed() -> set[str]:
        answer = httpx.get(url, timeout=ANSWER_S, trust_env=False).json()
        return set(answer["failed"])

    rows = []
    for service, part in (("triggerer", "airflow"), ("postgres", "postgresql"), ("exchange", "exchange")):
        wait_until(lambda: not failed(), 300, "the stack is not ready", 0.5)
        system.kill(service)
        named_s = wait_until(lambda wanted={part, "processes"}: wanted & failed(), 120, f"{service} was not named", 0.1)  # type: ignore[misc]
        ready_s = named_s + wait_until(lambda: not failed(), 300, f"{service} did not come back", 0.5)
        rows.append(Row(BENCH, f"{service} killed to named by the status app", named_s, "s", 15.0))
        rows.append(Row(BENCH, f"{service} killed to ready again", ready_s, "s", 60.0))
    return rows


def _after_breach(system: TradingStack) -> None:
    """Resume, the crash undone, so that the next one falls from the same height; the watch needs a moment to return."""
    system.admin.shock(1 / (1 - _CRASH_FRAC) - 1)
    start_anew(system)
    wait_until(lambda: _watches(system), 60, "the watch did not return", 0.5)


def _watches(system: TradingStack) -> bool:
    beats: Mapping[str, datetime] = system.wiring.trading_store.heartbeats()
    beat = beats.get("watch_risk")
    return beat is not None and (datetime.now(beat.tzinfo) - beat).total_seconds() < 3


def _p95(what: str, values: list[float], bound_s: float) -> Row:
    return Row(BENCH, what, percentile(values, 0.95), "s", bound_s, spread=(min(values), max(values)))
