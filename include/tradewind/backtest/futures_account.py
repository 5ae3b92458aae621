"""The simulated account on futures: the same rows and rules over `core.futures_engine`, with margin and both sides.

Stop and target hang together as one list here, where live has two reduce-only orders of which the minute run cancels
the one that is left: what is left could never trade.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Final, cast

from tradewind.core.brackets import MARGIN_STOP_TYPE, MARGIN_TARGET_TYPE, next_generation
from tradewind.core.futures_engine import REDUCE_ONLY, FuturesEngine
from tradewind.core.matching import Engine
from tradewind.core.matching_book import MatchingSettings
from tradewind.core.matching_types import NewOrder, OrderKind
from tradewind.core.matching_types import Order as EngineOrder
from tradewind.core.types import Instrument, Order, OrderRole, OrderState, PositionStatus

from .account import SimulatedAccount
from .booking import decimals_of, rules_of
from .holding import Holding
from .signals import moment

LIQUIDATED: Final = "liquidated"
_KINDS: Final = {MARGIN_STOP_TYPE: OrderKind.STOP_LOSS, MARGIN_TARGET_TYPE: OrderKind.TAKE_PROFIT}


class FuturesSimulatedAccount(SimulatedAccount):
    """One futures account on its own engine; every instrument needs margin rules."""

    _seen_order_id = 0

    def _make_engine(self, instruments: Mapping[str, Instrument], settings: MatchingSettings) -> Engine:
        brackets = {symbol: i.margin.brackets for symbol, i in instruments.items() if i.margin is not None}
        decimals = decimals_of(instruments.values())
        return FuturesEngine([rules_of(i, decimals) for i in instruments.values()], brackets, settings)

    @property
    def futures(self) -> FuturesEngine:
        return cast(FuturesEngine, self.engine)

    @property
    def free_quote(self) -> Decimal:
        return self.futures.amount(self.futures.available_atoms(self.account_id))

    def _prepare(self, symbol: str) -> None:
        margin = self.instruments[symbol].margin
        assert margin is not None
        if not self.futures.margins[self.account_id].position(symbol).lots:
            self.futures.set_leverage(self.account_id, symbol, margin.leverage)

    def _share(self, holding: Holding) -> Decimal:
        """How much of the position the account really holds."""
        symbol = holding.position.symbol
        lots = abs(self.futures.margins[self.account_id].position(symbol).lots)
        return min(holding.position.quantity, self.engine.rules[symbol].quantity(lots))

    def _request(self, order: Order, *, without_quantity: bool = False) -> NewOrder:
        if order.role is OrderRole.ENTRY:
            return super()._request(order)
        kind = _KINDS.get(order.order_type)
        plain = replace(order, order_type=kind.value if kind is not None else order.order_type)
        return replace(super()._request(plain), tags=((REDUCE_ONLY, 1),))

    def _settle(self) -> list[Holding]:
        for order in self._new_liquidations():
            self._adopt(order)
        return super()._settle()

    def _new_liquidations(self) -> list[EngineOrder]:
        """Orders that the engine made by itself since the last look."""
        found = []
        for order_id in reversed(self.engine.orders):
            if order_id <= self._seen_order_id:
                break
            order = self.engine.orders[order_id]
            if order.client_id not in self._holding_of:
                found.append(order)
        self._seen_order_id = next(reversed(self.engine.orders), 0)
        return found

    def _adopt(self, order: EngineOrder) -> None:
        """A liquidation is an exit of the symbol's position, in the lot that holds most."""
        holding = next(h for h in self.live() if h.position.symbol == order.symbol)
        lots = self.held_lots(holding)
        lot = max(lots, key=lambda number: lots[number], default=0)
        position, rules = holding.position, self.engine.rules[order.symbol]
        row = Order(
            client_order_id=order.client_id,
            account=self.account_id,
            position_id=position.position_id,
            symbol=order.symbol,
            role=OrderRole.EXIT,
            is_buy=order.side > 0,
            lot=lot,
            generation=next_generation(list(holding.orders.values()), lot),
            order_type="MARKET",
            quantity=rules.quantity(order.lots),
            price=None,
            stop_price=None,
            list_client_id=None,
            state=OrderState.WORKING,
            exchange_order_id=str(order.order_id),
            filled_quantity=Decimal(0),
            planned_at=moment(order.created_ms),
            sent_at=None,
            updated_at=moment(order.updated_ms),
            reason=LIQUIDATED,
        )
        self._remember(holding, (row,))
        holding.position = replace(position, status=PositionStatus.CLOSING, exit_reason=LIQUIDATED)
