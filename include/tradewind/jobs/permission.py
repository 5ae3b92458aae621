"""May an entry be sent now? Asked before a cycle decides, and again right before each bracket leaves."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from tradewind.core.ports import Ports
from tradewind.core.types import Instrument, Intent, Permission, TradingMode

WATCH: Final = "watch_risk"  # the name under which the watch's heartbeat is kept
MANAGER: Final = "manage_positions"
# `manage_positions` reconciles every minute; two missed runs mean that nobody compares.
MAX_RECONCILIATION_AGE_S: Final = 150.0
# Clocks of two machines differ by less; what is further in the future was written before a clock was set back.
CLOCKS_DIFFER_S: Final = 1.0


def permission_now(ports: Ports) -> Permission:
    """Every reason why no entry may be sent at this moment; none means allowed."""
    store, wall = ports.trading_store, ports.wall.now()
    latch = store.latch()
    reasons: list[str] = []
    details: dict[str, Any] = {"latch_sequence": latch.sequence}
    if latch.mode is not TradingMode.ACTIVE:
        reasons.append(f"the latch is {latch.mode.value}: {latch.reason}")
    if error := ports.params_error:
        reasons.append(error)
    watch_age_s = _age_s(store.heartbeats().get(WATCH), wall)
    details["watch_age_s"] = watch_age_s
    if watch_age_s is None:
        reasons.append("the risk watch is silent")
    elif watch_age_s < 0:
        reasons.append(f"the risk watch's last sign is {-watch_age_s:.0f} s in the future: the clock ran backwards")
    elif watch_age_s > ports.params.watch_silent_s:
        reasons.append(f"no risk watch for {watch_age_s:.0f} s")
    reasons += store.equity_record(ports.clock.now()).blind_spots()
    reasons += _reconciliation_reasons(ports, wall, details)
    return Permission(not reasons, tuple(reasons), latch.mode, ports.clock.now(), details)


def _reconciliation_reasons(ports: Ports, wall: datetime, details: dict[str, Any]) -> list[str]:
    last = ports.trading_store.last_reconciliation()
    if last is None:
        return ["exchange and ledger were never compared"]
    reasons = []
    age_s = _age_s(last.at, wall)
    details["reconciliation_age_s"] = age_s
    if age_s is not None and age_s < 0:
        reasons.append(f"the last reconciliation is {-age_s:.0f} s in the future: the clock ran backwards")
    elif age_s is None or age_s > MAX_RECONCILIATION_AGE_S:
        reasons.append(f"the last reconciliation is {age_s:.0f} s old: is manage_positions paused?")
    if not last.clean:
        reasons.append("reconciliation is not clean")
    offset_ms = last.report.get("clock_offset_ms")
    if offset_ms is not None and abs(offset_ms) > ports.exchange.recv_window_s * 1000:
        reasons.append(f"the clock is {offset_ms:.0f} ms off the exchange's")
    if last.report.get("key_can_withdraw"):
        reasons.append("the API key may withdraw: use one that may read and trade alone")
    return reasons


def entry_refusal(ports: Ports, intent: Intent, instrument: Instrument) -> str | None:
    """Why this intent may not be sent at this moment, or None."""
    if (own := own_contract(ports, instrument)) is not None:
        return own
    late_s = (ports.clock.now() - intent.expires_at).total_seconds()
    if late_s > 0:
        return f"expired {late_s:.0f} s ago"
    permission = permission_now(ports)
    return None if permission.allowed else "; ".join(permission.reasons)


def own_contract(ports: Ports, instrument: Instrument) -> str | None:
    """Why nothing is entered beside a contract that was held before the first start, or None.

    The exchange nets both to one: the entry would close the person's contract in part, and its stop would be refused.
    """
    held = (ports.trading_store.baseline() or {}).get(instrument.base, Decimal(0))
    if instrument.margin is None or held == 0:
        return None
    return (
        f"{held:+f} {instrument.base} were held here before the first start, and the exchange nets what is entered "
        f"with them: close them, then ./tradewind accept {instrument.base}"
    )


def _age_s(moment: datetime | None, now: datetime) -> float | None:
    """Seconds since a moment; below zero where it is further ahead than clocks differ. None without a moment."""
    if moment is None:
        return None
    age_s = (now - moment).total_seconds()
    return age_s if age_s < -CLOCKS_DIFFER_S else max(age_s, 0.0)
