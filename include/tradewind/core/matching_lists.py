"""What a request must look like: which fields go with which order type, and how the legs of a list must stand."""

from __future__ import annotations

from dataclasses import dataclass

from tradewind.core.matching_types import (
    ListKind,
    NewOrder,
    OrderKind,
    OrderSide,
    Refusal,
    RejectReason,
    TimeInForce,
)

_PAIR_KINDS = (ListKind.OCO, ListKind.OTOCO, ListKind.OPOCO)


@dataclass(frozen=True, slots=True)
class NewOrderList:
    """A list as a client asks for it. `orders`: the working order first (if any), then above, then below."""

    kind: ListKind
    symbol: str
    client_id: str
    orders: tuple[NewOrder, ...]


def check_composition(new: NewOrder) -> None:
    """Raise Refusal(BAD_COMPOSITION) when a field is missing or does not belong to the order type."""
    kind = new.kind
    bad = (
        kind.has_price != (new.price_ticks > 0)
        or (kind.is_contingent and not (new.stop_ticks or new.trailing_bps))
        or (not kind.is_contingent and bool(new.stop_ticks or new.trailing_bps))
        or (bool(new.quote_atoms) and (kind is not OrderKind.MARKET or new.lots > 0))
        or (bool(new.iceberg_lots) and (not kind.has_price or new.time_in_force is not TimeInForce.GTC))
        or new.iceberg_lots > new.lots > 0
    )
    if bad:
        raise Refusal(RejectReason.BAD_COMPOSITION)


def check_leg_relation(new: NewOrderList, last_ticks: int) -> None:
    """Raise Refusal unless the legs of a pair stand on their sides of the price.

    For a pair that works at once the last price must lie between the legs; for a pending pair only their order counts,
    because the price that matters is the one at which the working order fills. OPO legs sell what the working leg
    bought.
    """
    if new.kind.has_working_leg:
        working = new.orders[0]
        if working.kind not in (OrderKind.LIMIT, OrderKind.LIMIT_MAKER):
            raise Refusal(RejectReason.BAD_COMPOSITION)
        if new.kind.is_sized_from_proceeds and (
            working.side is not OrderSide.BUY or any(leg.side is not OrderSide.SELL for leg in new.orders[1:])
        ):
            raise Refusal(RejectReason.BAD_COMPOSITION)
    legs = new.orders[1:] if new.kind.has_working_leg else new.orders
    if new.kind not in _PAIR_KINDS or len(legs) != 2:
        return
    above, below = legs
    target, stop = (above, below) if above.side is OrderSide.SELL else (below, above)
    if (
        above.side is not below.side
        or not stop.kind.is_stop
        or target.kind not in (OrderKind.LIMIT_MAKER, OrderKind.TAKE_PROFIT, OrderKind.TAKE_PROFIT_LIMIT)
    ):
        raise Refusal(RejectReason.BAD_COMPOSITION)
    above_ticks, below_ticks = _reference_ticks(above), _reference_ticks(below)
    if above_ticks and below_ticks and above_ticks <= below_ticks:
        raise Refusal(RejectReason.BAD_PRICE_RELATION)
    if new.kind is ListKind.OCO and (
        (above_ticks and above_ticks <= last_ticks) or (below_ticks and below_ticks >= last_ticks)
    ):
        raise Refusal(RejectReason.BAD_PRICE_RELATION)


def _reference_ticks(leg: NewOrder) -> int:
    """The price by which a leg stands above or below the market; 0 for a leg that only trails."""
    return leg.stop_ticks if leg.kind.is_contingent else leg.price_ticks
