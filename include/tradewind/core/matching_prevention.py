"""Self-trade prevention: an order never trades with one of its own account where its mode forbids that.

The taker's mode decides. EXPIRE_TAKER, EXPIRE_MAKER and EXPIRE_BOTH end the orders they name; DECREMENT takes the
smaller quantity off both, which ends the smaller order.
"""

from __future__ import annotations

from collections.abc import Iterable

from tradewind.core.matching_types import Order

NO_PREVENTION = "NONE"
_KEPT_SIDE = {"EXPIRE_TAKER": "maker", "EXPIRE_MAKER": "taker"}


def prevention_mode(order: Order, default: str = NO_PREVENTION) -> str:
    return str(dict(order.tags).get("selfTradePreventionMode", default))


def own_order_ahead(
    taker: Order, resting: Iterable[Order], limit_ticks: int, fills: list[tuple[int, int]]
) -> Order | None:
    """The account's own best resting order that the taker would trade with before, or after, its `fills`.

    `limit_ticks` of 0 means any price; `fills` are what the others in the book have for it, best first.
    """
    unfilled = sum(lots for _, lots in fills) < taker.remaining_lots
    worst = fills[-1][0] if fills else None
    ahead = [
        other
        for other in resting
        if other.side is not taker.side
        and other.kind.has_price
        and not (other.is_dormant or other.awaits_trigger)
        and (not limit_ticks or (limit_ticks - other.price_ticks) * taker.side >= 0)
        and (unfilled or (worst is not None and (worst - other.price_ticks) * taker.side > 0))
    ]
    return min(ahead, key=lambda other: (other.price_ticks * taker.side, other.order_id), default=None)


def prevented_lots(mode: str, taker: Order, maker: Order) -> tuple[int, int]:
    """(taker's, maker's) quantity that expires; 0 for the order that is left alone."""
    if mode == "DECREMENT":
        smaller = min(taker.remaining_lots, maker.remaining_lots)
        return smaller, smaller
    kept = _KEPT_SIDE.get(mode)
    return (0 if kept == "taker" else taker.remaining_lots), (0 if kept == "maker" else maker.remaining_lots)
