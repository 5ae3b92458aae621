"""Making a resting order smaller where it stands: same id, same place, less money reserved."""

from __future__ import annotations

from dataclasses import replace

from tradewind.core.matching_execution import Execution
from tradewind.core.matching_types import (
    NO_LIST,
    Amendment,
    NewOrder,
    Order,
    OrderStatus,
    Refusal,
    RejectReason,
)


class Amending(Execution):
    """Orders can be reduced; anything else is cancelling and placing anew."""

    def amend(self, account_id: str, order_id: int, lots: int, client_id: str, now_ms: int) -> Order:
        """Reduce an open order to `lots` in all, what is filled included; it goes by `client_id` from now on.

        The legs of a pair have one quantity, since only one of them can ever trade: both are reduced.

        Raises
        ------
        Refusal
            If the order is not open, nothing would change, the quantity would grow or fall to what is filled already, a
            filter fails, or another open order has the client id. Then nothing has changed.
        """
        order = self.orders.get(order_id)
        if order is None or order.account_id != account_id or not order.is_open:
            raise Refusal(RejectReason.UNKNOWN_ORDER)
        quote = self._quote(order.symbol)
        if lots == order.lots:
            raise Refusal(RejectReason.AMEND_NO_CHANGE)
        if lots > order.lots or order.lots == 0:
            raise Refusal(RejectReason.AMEND_INCREASE)
        if lots <= order.filled_lots:
            raise Refusal(RejectReason.FILTER_LOT_SIZE)
        if client_id != order.client_id:
            self._check_client_ids(account_id, [client_id])
        changed = self._tied_to(order)
        for each in changed:
            self.check_rules(_as_request(each, lots), quote.average_ticks)
        for each in changed:
            own_id = client_id if each is order else each.client_id
            number = each.order_id * 1000 + len(each.amendments) + 1
            step = Amendment(number, each.client_id, own_id, each.lots, lots, now_ms)
            each.amendments = (*each.amendments, step)
            each.lots = lots
            each.iceberg_lots = min(each.iceberg_lots, lots)
            if self._by_client_id.get((account_id, each.client_id)) == each.order_id:
                del self._by_client_id[(account_id, each.client_id)]
            each.client_id = own_id
            self._by_client_id[(account_id, own_id)] = each.order_id
            if each.status is not OrderStatus.PENDING_NEW:
                self._relock(each)
            self._touch(each, now_ms)
        return order

    def _tied_to(self, order: Order) -> list[Order]:
        """The order, and the other leg when it is one of a pair."""
        if order.list_id == NO_LIST:
            return [order]
        pair = self.lists[order.list_id].pending_ids
        if order.order_id not in pair:
            return [order]
        return [order, *(self.orders[i] for i in pair if i != order.order_id and self.orders[i].is_open)]


def _as_request(order: Order, lots: int) -> NewOrder:
    request = NewOrder(order.symbol, order.side, order.kind, order.client_id, lots, order.price_ticks, order.stop_ticks)
    return replace(request, trailing_bps=order.trailing_bps, iceberg_lots=min(order.iceberg_lots, lots))
