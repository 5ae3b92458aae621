"""When a contingent order triggers: at its stop price, or at a distance that trails the price.

A trailing order first waits until the price has reached its stop price (at once when it has none); from then on it
follows the most favourable price and triggers when the price has come back by `trailing_bps` from there.
"""

from __future__ import annotations

from tradewind.core.matching_types import NEVER_MS, Order, OrderSide

_BPS = 10_000


def waits_for_fall(order: Order) -> bool:
    """The order triggers when the price falls (a selling stop, a buying take-profit), else when it rises."""
    return (order.side is OrderSide.SELL) == order.kind.is_stop


def trigger_ticks(order: Order, position: int) -> tuple[int, bool]:
    """(price at which something happens to a waiting order, whether it happens on a falling price).

    For a trailing order that has not started, that is its stop price, approached from `position`.
    """
    if not order.trailing_bps:
        return order.stop_ticks, waits_for_fall(order)
    if order.trailing_ms == NEVER_MS:
        return order.stop_ticks, position >= order.stop_ticks
    return _trailed(order, position), waits_for_fall(order)


def start_trailing(order: Order, position: int, now_ms: int) -> bool:
    """Start following the price from `position`; False when it follows already."""
    if order.trailing_ms != NEVER_MS:
        return False
    order.trailing_ms = now_ms
    order.trailing_extreme_ticks = position
    return True


def advance_trailing(order: Order, position: int) -> bool:
    """Let a started order follow the price to `position`; True when its extreme moved."""
    if order.trailing_ms == NEVER_MS:
        return False
    extreme = order.trailing_extreme_ticks
    moved = max(extreme, position) if waits_for_fall(order) else min(extreme, position)
    order.trailing_extreme_ticks = moved
    return moved != extreme


def _trailed(order: Order, position: int) -> int:
    """The trigger price; it rounds towards the price, so that the distance is never more than what was asked for."""
    if waits_for_fall(order):
        extreme = max(order.trailing_extreme_ticks, position)
        return -(-extreme * (_BPS - order.trailing_bps) // _BPS)
    extreme = min(order.trailing_extreme_ticks, position)
    return extreme * (_BPS + order.trailing_bps) // _BPS
