"""Random commands for a matching engine, and the same commands as requests of the exchange's dialect."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass
from typing import Any

from tradewind.core.matching_lists import NewOrderList
from tradewind.core.matching_rules import SymbolRules, amount
from tradewind.core.matching_types import ListKind, NewOrder, OrderKind, OrderSide, TimeInForce

SOAK = os.environ.get("SOAK") == "1"
"""`SOAK=1` runs the random tests at their full length: 100,000 events, 20 kills."""

LIST_PATHS = {kind: f"/api/v3/orderList/{kind.value.lower()}" for kind in ListKind}


@dataclass
class Commands:
    """Draws orders and lists near a price; `most_lots` bounds their size by symbol."""

    rng: random.Random
    most_lots: dict[str, int]
    names: int = 0

    def near(self, price: int) -> int:
        return max(1, int(price * self.rng.uniform(0.97, 1.03)))

    def name(self) -> str:
        """Mostly a new client id, now and then one that was used before."""
        self.names += 1
        return f"n{self.names if self.rng.random() > 0.02 else self.rng.randrange(self.names)}"

    def order(
        self,
        symbol: str,
        price: int,
        kind: OrderKind | None = None,
        side: OrderSide | None = None,
        lots: int | None = None,
    ) -> NewOrder:
        rng = self.rng
        kind = kind or rng.choice(list(OrderKind))
        side = side or rng.choice(list(OrderSide))
        by_money = kind is OrderKind.MARKET and lots is None and rng.random() < 0.3
        trailing = kind.is_contingent and rng.random() < 0.2
        drawn = rng.randrange(1, self.most_lots[symbol]) if lots is None else lots
        return NewOrder(
            symbol,
            side,
            kind,
            self.name(),
            0 if by_money else drawn,
            self.near(price) if kind.has_price else 0,
            self.near(price) if kind.is_contingent and not (trailing and rng.random() < 0.5) else 0,
            rng.randrange(10, 300) if trailing else 0,
            rng.randrange(1, 3000 * 10**8) if by_money else 0,
            0,
            rng.choice(list(TimeInForce)) if kind.has_time_in_force else TimeInForce.GTC,
        )

    def order_list(self, symbol: str, price: int) -> NewOrderList:
        rng = self.rng
        kind = rng.choice(list(ListKind))
        side = rng.choice(list(OrderSide))
        target = OrderKind.LIMIT_MAKER if rng.random() < 0.7 else OrderKind.TAKE_PROFIT
        stop = OrderKind.STOP_LOSS if rng.random() < 0.7 else OrderKind.STOP_LOSS_LIMIT
        leg_side = OrderSide(-side) if kind.has_working_leg else side
        above, below = (target, stop) if leg_side is OrderSide.SELL else (stop, target)
        lots = 0 if kind.is_sized_from_proceeds else rng.randrange(1, self.most_lots[symbol])
        legs: tuple[NewOrder, ...]
        if kind in (ListKind.OTO, ListKind.OPO):
            legs = (self.order(symbol, price, None, leg_side, lots),)
        else:
            legs = (
                self.order(symbol, price, above, leg_side, lots),
                self.order(symbol, price, below, leg_side, lots),
            )
        working = (self.order(symbol, price, OrderKind.LIMIT, side),) if kind.has_working_leg else ()
        self.names += 1
        return NewOrderList(kind, symbol, f"l{self.names}", (*working, *legs))


def order_parameters(new: NewOrder, rules: SymbolRules) -> dict[str, Any]:
    """A single order as `POST /api/v3/order` takes it."""
    sent = {"symbol": new.symbol, "side": new.side.name, "newClientOrderId": new.client_id, **_leg(new, rules, "")}
    if new.quote_atoms:
        sent["quoteOrderQty"] = str(amount(new.quote_atoms))
    else:
        sent["quantity"] = str(rules.quantity(new.lots))
    return sent


def list_parameters(new: NewOrderList, rules: SymbolRules) -> dict[str, Any]:
    """An order list as its endpoint in `LIST_PATHS` takes it."""
    sent: dict[str, Any] = {"symbol": new.symbol, "listClientOrderId": new.client_id}
    legs = list(new.orders)
    prefix = ""
    if new.kind.has_working_leg:
        working = legs.pop(0)
        sent |= _leg(working, rules, "working")
        sent |= {"workingSide": working.side.name, "workingQuantity": str(rules.quantity(working.lots))}
        sent |= {"workingClientOrderId": working.client_id, "pendingSide": legs[0].side.name}
        prefix = "pending"
        if legs[0].lots:
            sent["pendingQuantity"] = str(rules.quantity(legs[0].lots))
    else:
        sent |= {"side": legs[0].side.name, "quantity": str(rules.quantity(legs[0].lots))}
    for leg, place in zip(legs, ("Above", "Below") if len(legs) == 2 else ("",), strict=True):
        name = prefix + place if prefix else place.lower()
        sent |= {**_leg(leg, rules, name), f"{name}ClientOrderId": leg.client_id}
    return sent


def _leg(new: NewOrder, rules: SymbolRules, prefix: str) -> dict[str, Any]:
    def name(field: str) -> str:
        return prefix + field if prefix else field[0].lower() + field[1:]

    sent: dict[str, Any] = {name("Type"): new.kind.value}
    if new.price_ticks:
        sent[name("Price")] = str(rules.price(new.price_ticks))
    if new.stop_ticks:
        sent[name("StopPrice")] = str(rules.price(new.stop_ticks))
    if new.trailing_bps:
        sent[name("TrailingDelta")] = new.trailing_bps
    if new.kind.has_time_in_force:
        sent[name("TimeInForce")] = new.time_in_force.value
    return sent
