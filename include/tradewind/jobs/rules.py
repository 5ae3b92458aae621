"""The rules of a position: those it was opened with, whatever the parameters say today, applied to every closed bar."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tradewind.core.brackets import decimal_of
from tradewind.core.codec import decode
from tradewind.core.params import POSITION_RULES, PositionRules
from tradewind.core.ports import Ports
from tradewind.core.positions import Costs, ExitNow, MoveStop, bars_held, manage_on_close
from tradewind.core.timeframes import from_ms, last_closed_open_ms, timeframe_ms, to_ms
from tradewind.core.types import Position
from tradewind.jobs.settling import Situation


def rules_of(ports: Ports, positions: Sequence[Position]) -> dict[str, PositionRules]:
    """The rules that each of these follows, by position id.

    A position of before rules were kept follows its strategy version's, and the present ones where no such version is
    remembered. So does one whose stored rules cannot be read, with an alert: it must not go untended.
    """
    pinned = ports.trading_store.position_rules([position.position_id for position in positions])
    found: dict[str, PositionRules] = {}
    for position in positions:
        stored = pinned.get(position.position_id)
        try:
            if stored is not None:
                found[position.position_id] = decode(PositionRules, stored)
                continue
        except (TypeError, ValueError) as error:
            ports.alerts.raise_alert(
                "critical",
                f"rules-{position.position_id}",
                f"{position.symbol}: the rules of a position cannot be read",
                f"{position.position_id} follows those of {position.strategy_version} or the present ones: {error}",
            )
        found[position.position_id] = version_rules(ports, position.strategy_version)
    return found


def version_rules(ports: Ports, strategy_version: str) -> PositionRules:
    """The rules of a strategy version; the present ones where it is not remembered."""
    present = ports.params
    if strategy_version == present.strategy_version:
        return present.position_rules
    remembered = ports.trading_store.strategy_params(strategy_version)
    return present.position_rules if remembered is None else _rules_in(remembered, present.position_rules)


def _rules_in(params: Mapping[str, Any], present: PositionRules) -> PositionRules:
    """The rules among parameters that another version of the code may have stored."""
    try:
        return decode(PositionRules, {name: params[name] for name in POSITION_RULES})
    except (KeyError, TypeError, ValueError):
        return present


def apply_bar_rules(ports: Ports, situation: Situation, rules: PositionRules) -> tuple[Situation, str | None]:
    """Apply the position rule to every closed bar not yet looked at; returns the situation and a reason to leave.

    The wanted stop is saved here; `converge_protection` makes it rest.
    """
    position, timeframe = situation.position, rules.decision_timeframe
    step_ms = timeframe_ms(timeframe)
    newest_ms = last_closed_open_ms(to_ms(ports.clock.now()), timeframe)
    looked_at_ms = to_ms(position.managed_bar if position.managed_bar is not None else position.bar)
    count = (newest_ms - looked_at_ms) // step_ms
    if count <= 0:
        return situation, None
    bars = ports.market_store.read_last_bars([position.symbol], timeframe, newest_ms + step_ms, int(count))
    costs = Costs.of(rules, float(situation.instrument.taker_fee_frac))
    reason: str | None = None
    series = bars[position.symbol]
    for open_ms, close in zip(series.open_time_ms.tolist(), series.close.tolist(), strict=True):
        if open_ms <= looked_at_ms or reason is not None:
            continue
        held = bars_held(position, open_ms, step_ms)
        tick = situation.instrument.tick_size
        action = manage_on_close(position, decimal_of(close), held, rules, costs, tick)
        position = replace(position, best_close=action.best_close, managed_bar=from_ms(open_ms))
        if isinstance(action, MoveStop):
            position = replace(position, stop_price=action.price)
        elif isinstance(action, ExitNow):
            reason = action.reason
    if position != situation.position:
        moved = position.stop_price != situation.position.stop_price
        ports.trading_store.save_position(
            position,
            "stop_moved" if moved else "managed",
            ports.clock.now(),
            bar=position.managed_bar,
            stop_price=position.stop_price,
            best_close=position.best_close,
        )
    return replace(situation, position=position), reason
