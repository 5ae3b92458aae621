"""bitget's plan orders: how one that waits, was triggered or is over is found again, and what it has sold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from tradewind.adapters.ccxt_attached import CcxtAttachedTrading
from tradewind.adapters.ccxt_orders import state_of
from tradewind.core.orders import is_ours
from tradewind.core.timeframes import from_ms
from tradewind.core.types import ExchangeOrder, OrderState

PAGE: Final = 100
REACH_MS: Final = 89 * 86_400_000  # one question reaches 90 days
AHEAD_MS: Final = 60_000
_STATES: Final[Mapping[str, OrderState]] = {
    "init": OrderState.WORKING,
    "new": OrderState.WORKING,
    "live": OrderState.WORKING,
    "partially_filled": OrderState.PARTIAL,
    "filled": OrderState.FILLED,
    "cancelled": OrderState.CANCELLED,
    "canceled": OrderState.CANCELLED,
}
_PLAN_STATES: Final[Mapping[str, OrderState]] = {
    "not_trigger": OrderState.WORKING,
    "live": OrderState.WORKING,
    "cancelled": OrderState.CANCELLED,
    "canceled": OrderState.CANCELLED,
    "cancel": OrderState.CANCELLED,
    "fail_trigger": OrderState.EXPIRED,
    "fail_execute": OrderState.EXPIRED,
}
_TRIGGERED: Final = frozenset({"executing", "executed", "triggered"})
_NOT_PLACED: Final = frozenset({"fail", "cancelled"})


class CcxtBitgetPlans(CcxtAttachedTrading):
    """The half of bitget's spot side that reads single orders and plan orders."""

    no_such_order = frozenset({43001, 43025, 40109, 40768})
    duplicate = frozenset({40786, 43118})

    def _row(self, **name: str) -> Mapping[str, Any] | None:
        told = (self._ask("private_spot_get_v2_spot_trade_orderinfo", name) or {}).get("data") or ()
        return told[0] if told else None

    def _plans(self, symbol: str, since_ms: int) -> Iterator[Mapping[str, Any]]:
        """The plan orders of one market: those that wait, read first, then those that are over, newest first."""
        fixed: dict[str, Any] = {"symbol": self._client.market_id(symbol), "limit": PAGE}
        yield from self._plan_pages("private_spot_get_v2_spot_trade_current_plan_order", fixed)
        now_ms = self._client.exchange.milliseconds()
        window = {"startTime": max(since_ms, now_ms - REACH_MS), "endTime": now_ms + AHEAD_MS}
        yield from self._plan_pages("private_spot_get_v2_spot_trade_history_plan_order", fixed | window)

    def _plan_pages(self, method: str, wanted: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        page = dict(wanted)
        while True:
            told = self._client.read(method, page)["data"] or {}
            rows = told.get("orderList") or ()
            yield from rows
            if not rows or not (str(told.get("nextFlag")).lower() == "true" or len(rows) >= PAGE):
                return
            page["idLessThan"] = rows[-1]["orderId"]

    def _placed_by(self, plan_id: str) -> Sequence[Mapping[str, Any]]:
        """What a triggered plan order has placed; ccxt has no name for this question."""
        exchange = self._client.exchange
        wanted = {"planOrderId": plan_id}
        path = "v2/spot/trade/plan-sub-order"
        answer = self._client.call("plan_sub_order", lambda: exchange.request(path, ["private", "spot"], "GET", wanted))
        return answer.get("data") or ()

    def _stop(self, row: Mapping[str, Any], symbol: str) -> ExchangeOrder:
        """A plan order; once it has triggered, the order placed for it says how it stands."""
        status, filled, at_ms = str(row["status"]), Decimal(0), int(row.get("uTime") or row.get("cTime") or 0)
        state = _PLAN_STATES.get(status)
        if state is None:
            is_triggered = status in _TRIGGERED
            state = OrderState.WORKING if is_triggered else state_of(_PLAN_STATES, status)
            for part in self._placed_by(str(row["orderId"])) if is_triggered else ():
                placed = self._row(orderId=str(part["orderId"])) if part.get("orderId") else None
                if placed is not None:
                    order = order_of(placed, symbol)
                    state, filled = order.state, order.filled_quantity
                elif str(part.get("status")) in _NOT_PLACED:
                    state = OrderState.EXPIRED
        return ExchangeOrder(
            client_order_id=str(row.get("clientOid") or row["orderId"]),
            exchange_order_id=str(row["orderId"]),
            list_client_id=None,
            symbol=symbol,
            is_buy=row["side"] == "buy",
            order_type=str(row["orderType"]).upper(),
            state=state,
            quantity=Decimal(row["size"]),
            filled_quantity=filled,
            price=None,
            stop_price=Decimal(row["triggerPrice"]),
            at=from_ms(at_ms),
        )

    def _stop_behind(self, symbol: str, order_id: str) -> tuple[str | None, bool]:
        """Our id of the triggered stop that has placed this order; and whether a triggered one has placed none yet."""
        is_pending = False
        for plan in self._plans(symbol, 0):
            named = str(plan.get("clientOid") or "")
            if is_ours(named) and str(plan["status"]) in _TRIGGERED:
                parts = self._placed_by(str(plan["orderId"]))
                if order_id in [str(part.get("orderId")) for part in parts]:
                    return named, False
                is_pending |= not any(part.get("orderId") or str(part.get("status")) in _NOT_PLACED for part in parts)
        return None, is_pending


def order_of(row: Mapping[str, Any], symbol: str) -> ExchangeOrder:
    """An ordinary order."""
    price, trigger = Decimal(row.get("price") or 0), Decimal(row.get("triggerPrice") or 0)
    return ExchangeOrder(
        client_order_id=str(row.get("clientOid") or row["orderId"]),
        exchange_order_id=str(row["orderId"]),
        list_client_id=None,
        symbol=symbol,
        is_buy=row["side"] == "buy",
        order_type=str(row["orderType"]).upper(),
        state=state_of(_STATES, row["status"]),
        quantity=Decimal(row["size"]),
        filled_quantity=Decimal(row.get("baseVolume") or 0),
        price=price or None,
        stop_price=trigger or None,
        at=from_ms(int(row.get("uTime") or row.get("cTime") or 0)),
    )
