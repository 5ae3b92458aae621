"""From request parameters to the engine's orders: which parameters an order type needs, and which it refuses."""

from __future__ import annotations

import secrets
import string
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from tradewind.core.matching_lists import NewOrderList
from tradewind.core.matching_rules import SymbolRules, atoms
from tradewind.core.matching_types import ListKind, NewOrder, OrderKind, OrderSide, TimeInForce
from tradewind.paper import params as p
from tradewind.paper.dialect import ORDER_TYPES, ApiError, missing, not_required, one_of

_ALPHABET = string.ascii_letters + string.digits
ORDER_TYPE = p.one(ORDER_TYPES, -1116, "Invalid orderType.")


def make_client_id() -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(22))


def leg_parameters(prefix: str, *, own_type: bool = True, client_id: str = "ClientOrderId") -> dict[str, p.Parser]:
    """The parameters that describe one leg of a list, e.g. `aboveType`, `aboveStopPrice`."""
    found: dict[str, p.Parser] = {
        f"{prefix}{client_id}": p.client_id,
        f"{prefix}Price": p.decimal,
        f"{prefix}StopPrice": p.decimal,
        f"{prefix}TrailingDelta": p.number,
        f"{prefix}IcebergQty": p.decimal,
        f"{prefix}TimeInForce": p.time_in_force,
        f"{prefix}StrategyId": p.number,
        f"{prefix}StrategyType": p.strategy_type,
    }
    if own_type:
        found[f"{prefix}Type"] = ORDER_TYPE
    return found


def read_leg(
    q: Mapping[str, Any],
    rules: SymbolRules,
    prefix: str,
    side: OrderSide,
    quantity: Decimal | None,
    *,
    sized_later: bool = False,
    kind: OrderKind | None = None,
) -> NewOrder:
    """One order from its parameters; `prefix` is '' for a single order (`price`) or a leg's (`abovePrice`).

    Raises ApiError for a parameter that the type needs and lacks (-1102) or does not take (-1106), Refusal for a price
    or quantity off its grid.
    """

    def name(field: str) -> str:
        return prefix + field if prefix else field[0].lower() + field[1:]

    kind = kind or OrderKind(q[name("Type")])
    price, stop, tif = q.get(name("Price")), q.get(name("StopPrice")), q.get(name("TimeInForce"))
    delta, iceberg = q.get(name("TrailingDelta")), q.get(name("IcebergQty"))
    quote_quantity = q.get("quoteOrderQty") if not prefix else None

    if kind.has_time_in_force and tif is None:
        raise missing(name("TimeInForce"))
    if kind.has_price and price is None:
        raise missing(name("Price"))
    if kind.is_contingent and stop is None and delta is None:
        raise one_of(name("StopPrice"), name("TrailingDelta"))
    if kind is OrderKind.MARKET and not prefix:
        if quantity is None and quote_quantity is None:
            raise one_of("quantity", "quoteOrderQty")
        if quantity is not None and quote_quantity is not None:
            raise not_required("quoteOrderQty")
    elif quantity is None and not sized_later:
        raise missing("quantity")
    for given, field, taken in (
        (tif, "TimeInForce", kind.has_time_in_force),
        (price, "Price", kind.has_price),
        (stop, "StopPrice", kind.is_contingent),
        (delta, "TrailingDelta", kind.is_contingent),
        (iceberg, "IcebergQty", kind.has_price),
    ):
        if given is not None and not taken:
            raise not_required(name(field))
    if quote_quantity is not None and kind is not OrderKind.MARKET:
        raise not_required("quoteOrderQty")
    for value, field in (
        (price, "price"),
        (stop, "stop price"),
        (quantity, "quantity"),
        (quote_quantity, "quote order qty"),
    ):
        if value is not None and value == 0:
            raise ApiError(-1013, f"Invalid {field}.")

    time_in_force = TimeInForce(tif) if tif else TimeInForce.GTC
    if iceberg is not None and time_in_force is not TimeInForce.GTC:
        raise ApiError(-1014, "Unsupported order combination.")
    tags: list[tuple[str, str | int]] = [("selfTradePreventionMode", q.get("selfTradePreventionMode", "NONE"))]
    tags += [
        (t, q[name(t[0].upper() + t[1:])]) for t in ("strategyId", "strategyType") if name(t[0].upper() + t[1:]) in q
    ]
    client_id = q.get(name("ClientOrderId") if prefix else "newClientOrderId")
    return NewOrder(
        rules.symbol,
        side,
        kind,
        client_id or make_client_id(),
        0 if quantity is None else rules.lots(quantity, market=False),
        0 if price is None else rules.ticks(price),
        0 if stop is None else rules.ticks(stop),
        int(delta or 0),
        0 if quote_quantity is None else atoms(quote_quantity),
        0 if iceberg is None else rules.lots(iceberg),
        time_in_force,
        tuple(tags),
    )


def read_pair(
    q: Mapping[str, Any],
    rules: SymbolRules,
    above: str,
    below: str,
    side: OrderSide,
    quantity: Decimal | None,
    *,
    sized_later: bool = False,
) -> tuple[NewOrder, NewOrder]:
    """The two legs of an OCO pair, refused in Binance's words when they cannot form one."""
    legs = tuple(read_leg(q, rules, prefix, side, quantity, sized_later=sized_later) for prefix in (above, below))
    upper, lower = legs
    limits = (OrderKind.LIMIT_MAKER, OrderKind.LIMIT)
    profits = (OrderKind.TAKE_PROFIT, OrderKind.TAKE_PROFIT_LIMIT)
    for leg in legs:
        if leg.kind in (OrderKind.MARKET, OrderKind.LIMIT):
            raise ApiError(-1158, "Order type not supported in OCO.")
    if upper.kind in limits and lower.kind in limits:
        raise ApiError(-1168, "At least one OCO order must be contingent.")
    if side is OrderSide.SELL:
        if lower.kind in limits:
            raise ApiError(-1166, "A limit order in a sell OCO must be above.")
        if upper.kind.is_stop:
            raise ApiError(-1197, "A stop loss order in a sell OCO must be below.")
        if lower.kind in profits:
            raise ApiError(-1199, "A take profit order in a sell OCO must be above.")
    else:
        if upper.kind in limits:
            raise ApiError(-1165, "A limit order in a buy OCO must be below.")
        if lower.kind.is_stop:
            raise ApiError(-1196, "A stop loss order in a buy OCO must be above.")
        if upper.kind in profits:
            raise ApiError(-1198, "A take profit order in a buy OCO must be below.")
    return upper, lower


def read_working(q: Mapping[str, Any], rules: SymbolRules) -> NewOrder:
    """The working order of an OTO-like list."""
    if q["workingType"] not in (OrderKind.LIMIT, OrderKind.LIMIT_MAKER):
        raise ApiError(-1116, "Invalid orderType.")
    return read_leg(q, rules, "working", OrderSide[q["workingSide"]], q["workingQuantity"])


def make_list(q: Mapping[str, Any], kind: ListKind, rules: SymbolRules, orders: tuple[NewOrder, ...]) -> NewOrderList:
    return NewOrderList(kind, rules.symbol, q.get("listClientOrderId") or make_client_id(), orders)
