"""bybit's spot side (unified account) through ccxt's implicit methods: entries with stop and target attached.

The attached pair is bybit's own: it takes no id of ours and does not name its entry, so it is known by its market, its
side and its prices; therefore an entry is one lot there. What replaces it is a stop alone, under our id, which holds
the coins (`tpslOrder`): a second order for the same coins would be refused, so the target is watched by the jobs.

Made from the public documentation; no real account was traded on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from tradewind.adapters.ccxt_attached import STOP, TARGET, CcxtAttachedTrading, Request, leg_of, leg_report, own_part
from tradewind.adapters.ccxt_orders import state_of
from tradewind.core.orders import is_ours
from tradewind.core.ports import BracketLegs
from tradewind.core.timeframes import from_ms, to_ms
from tradewind.core.types import Balance, ExchangeOrder, Fill, Instrument, MarketStatus, Order, OrderState
from tradewind.errors import NotSupported, OrderRejected

_ORDERS_PAGE: Final = 50
_FILLS_PAGE: Final = 100
_WEEK_MS: Final = 7 * 86_400_000
_AHEAD_MS: Final = 60_000
_STATES: Final[Mapping[str, OrderState]] = {
    "New": OrderState.WORKING,
    "Untriggered": OrderState.WORKING,
    "Triggered": OrderState.WORKING,
    "PartiallyFilled": OrderState.PARTIAL,
    "Filled": OrderState.FILLED,
    "Cancelled": OrderState.CANCELLED,
    "PartiallyFilledCanceled": OrderState.CANCELLED,
    "Deactivated": OrderState.CANCELLED,
    "Rejected": OrderState.REJECTED,
}
_PRICES: Final = {STOP: "stopLoss", TARGET: "takeProfit"}


class CcxtBybitTrading(CcxtAttachedTrading):
    """Satisfies `core.ports.TradingExchange` for bybit spot."""

    no_such_order = frozenset({170213, 110001, 170142, 170143})
    duplicate = frozenset({170141, 110072})
    statuses = {"Trading": MarketStatus.TRADING}  # noqa: RUF012

    def _told_status(self, market: str) -> str | None:
        """bybit lists the spot markets that trade and no others: one that is halted is absent as a delisted one is."""
        told = self._client.read("public_get_v5_market_instruments_info", {"category": "spot"})["result"]["list"]
        return next((str(row["status"]) for row in told if row["symbol"] == market), None)

    def instruments(self, symbols: Sequence[str]) -> dict[str, Instrument]:
        """The rules of each market that the exchange lists."""
        found = super().instruments(symbols)
        return {symbol: replace(instrument, target_rests=False) for symbol, instrument in found.items()}

    # ---------------------------------------------------------------------------------------------------------- sends
    def _entry_request(self, legs: BracketLegs) -> Request:
        method, params = self._order_request(legs.entry)
        assert legs.stop.stop_price is not None  # core.brackets gives both legs their prices
        assert legs.target.price is not None
        return method, {
            **params,
            "stopLoss": format(legs.stop.stop_price, "f"),
            "slOrderType": "Market",
            "takeProfit": format(legs.target.price, "f"),
            "tpOrderType": "Market",
        }

    def _order_request(self, order: Order) -> Request:
        params = {
            "category": "spot",
            "symbol": self._client.market_id(order.symbol),
            "side": "Buy" if order.is_buy else "Sell",
            "orderType": "Market" if order.price is None else "Limit",
            "qty": format(order.quantity, "f"),
            "orderLinkId": order.client_order_id,
        }
        if order.price is not None:
            params |= {"price": format(order.price, "f"), "timeInForce": "FOK"}
        else:
            params["marketUnit"] = "baseCoin"
        if order.stop_price is not None:
            params |= {"orderFilter": "tpslOrder", "triggerPrice": format(order.stop_price, "f")}
        return "private_post_v5_order_create", params

    def send_protection(self, stop: Order, target: Order, instrument: Instrument) -> list[ExchangeOrder]:
        """Raises NotSupported: the coins of a stop cannot be offered a second time."""
        raise NotSupported(f"{stop.symbol}: bybit holds a stop alone, the target is watched")

    # -------------------------------------------------------------------------------------------------------- cancels
    def cancel_list(self, symbol: str, list_client_id: str, known: Sequence[Order] = ()) -> list[ExchangeOrder]:
        """Cancel the attached pair of these legs; one that is over already is reported as it ended."""
        reports = []
        for leg in known:
            found = self.find_order(symbol, leg.client_order_id, leg)
            if found is not None and found.state in (OrderState.WORKING, OrderState.PARTIAL):
                name = {"orderId": found.exchange_order_id.rpartition(":")[0], "orderFilter": "tpslOrder"}
                self._cancel(symbol, leg.client_order_id, name)
                seen = replace(leg, exchange_order_id=found.exchange_order_id)
                found = self.find_order(symbol, leg.client_order_id, seen) or found
            if found is not None:
                reports.append(found)
        return reports

    def cancel_order(self, symbol: str, client_order_id: str) -> ExchangeOrder:
        """Cancel one order; one that is over already is reported as it ended. Raises OrderRejected for an unknown."""
        name = {"orderLinkId": client_order_id}
        if leg_of(client_order_id) is not None:
            name["orderFilter"] = "tpslOrder"
        self._cancel(symbol, client_order_id, name)
        found = self.find_order(symbol, client_order_id)
        if found is None:
            raise OrderRejected(f"bybit knows no order {client_order_id} in {symbol}", 170213)
        return found

    def _cancel(self, symbol: str, client_order_id: str, name: Mapping[str, str]) -> None:
        params = {"category": "spot", "symbol": self._client.market_id(symbol), **name}
        try:
            self._client.send("private_post_v5_order_cancel", params, client_order_id=client_order_id)
        except OrderRejected as error:
            if error.code not in self.no_such_order:
                raise

    # -------------------------------------------------------------------------------------------------------- queries
    def find_order(self, symbol: str, client_order_id: str, known: Order | None = None) -> ExchangeOrder | None:
        """The order of that id, or None when the exchange answers that it does not know it."""
        if known is None or known.list_client_id is None or leg_of(client_order_id) is None:
            row = self._row(orderLinkId=client_order_id)
            return None if row is None else self._remember(_order(row, symbol))
        if seen := own_part(known):
            row = self._row(orderId=seen)
        else:
            rows = self._open({"symbol": self._client.market_id(symbol)})
            row = next((row for row in rows if _is_leg(row, known)), None)
        return None if row is None else _leg(row, symbol, client_order_id)

    def _row(self, **name: str) -> Mapping[str, Any] | None:
        """One order by its id: among the open and newest ones, else in the history."""
        for method in ("private_get_v5_order_realtime", "private_get_v5_order_history"):
            rows = (self._ask(method, {"category": "spot", **name}) or {}).get("result", {}).get("list") or ()
            if rows:
                found: Mapping[str, Any] = rows[0]
                return found
        return None

    def _open(self, where: Mapping[str, Any]) -> list[Any]:
        wanted: dict[str, Any] = {"category": "spot", "openOnly": 0, "limit": _ORDERS_PAGE, **where}
        return self._pages("private_get_v5_order_realtime", wanted)

    def _pages(self, method: str, wanted: dict[str, Any]) -> list[Any]:
        rows: list[Any] = []
        while True:
            result = self._client.read(method, wanted)["result"]
            rows += result.get("list") or ()
            if not (cursor := result.get("nextPageCursor")) or len(result["list"]) < wanted["limit"]:
                return rows
            wanted["cursor"] = cursor

    def open_orders(self, symbols: Sequence[str]) -> list[ExchangeOrder]:
        """Everything that works or waits at the exchange in these markets, ours or not."""
        markets = self._client.listed(symbols)
        found: list[ExchangeOrder] = []
        for row in self._open({}):
            symbol = markets.get(row["symbol"])
            if symbol is None:
                continue
            if is_ours(str(row.get("orderLinkId") or "")):
                found.append(self._remember(_order(row, symbol)))
                continue
            legs = self._legs_known(symbol, str(row["orderId"])).values()
            found += [_leg(row, symbol, client_id) for client_id in legs] or [_order(row, symbol)]
        return found

    def fills_since(self, symbol: str, since: datetime) -> list[Fill]:
        """Every execution of the account in one market at or after `since`, oldest first, with its client order id."""
        fixed = {"category": "spot", "symbol": self._client.market_id(symbol), "limit": _FILLS_PAGE}
        # One question reaches a week; the exchange's clock may be ahead of ours.
        end_ms = self._client.exchange.milliseconds() + _AHEAD_MS
        rows: list[Any] = []
        for start_ms in range(to_ms(since), end_ms, _WEEK_MS):
            window = {"startTime": start_ms, "endTime": min(start_ms + _WEEK_MS - 1, end_ms)}
            rows += self._pages("private_get_v5_execution_list", {**fixed, **window})
        return [
            Fill(
                account=self._account,
                symbol=symbol,
                trade_id=str(row["execId"]),
                client_order_id=self._client_order_id(symbol, row),
                is_buy=row["side"] == "Buy",
                quantity=Decimal(row["execQty"]),
                price=Decimal(row["execPrice"]),
                fee=Decimal(row.get("execFee") or 0),
                fee_asset=self._client.asset(row["feeCurrency"], free_of_charge=symbol.split("/")[1]),
                is_maker=str(row["isMaker"]).lower() == "true",
                at=from_ms(int(row["execTime"])),
            )
            for row in sorted(rows, key=lambda row: int(row["execTime"]))
            if row["execType"] == "Trade"
        ]

    def _client_order_id(self, symbol: str, row: Mapping[str, Any]) -> str:
        """An execution of an attached pair goes by the leg that triggered."""
        named, order_id = str(row.get("orderLinkId") or ""), str(row["orderId"])
        if is_ours(named):
            return named
        if (symbol, order_id) not in self._client_ids:
            legs = self._legs_known(symbol, order_id)
            order = self._row(orderId=order_id) if len(legs) > 1 else None
            leg = _triggered(order) if order is not None else next(iter(legs), STOP)
            self._client_ids[symbol, order_id] = legs.get(leg) or named or order_id
        return self._client_ids[symbol, order_id]

    def balances(self) -> dict[str, Balance]:
        """What the account holds, by asset; assets without a holding are absent."""
        answer = self._client.read("private_get_v5_account_wallet_balance", {"accountType": "UNIFIED"})
        (account,) = answer["result"]["list"]
        found = {}
        for row in account["coin"]:
            total, locked = Decimal(row["walletBalance"] or 0), Decimal(row.get("locked") or 0)
            if total:
                asset = self._client.asset(row["coin"])
                found[asset] = Balance(asset, total - locked, locked)
        return found


def _is_leg(row: Mapping[str, Any], leg: Order) -> bool:
    """Is this open order bybit's own sale at the price of this leg?"""
    level = leg.stop_price if leg_of(leg.client_order_id) == STOP else leg.price
    prices = [row.get(_PRICES[leg_of(leg.client_order_id) or STOP]), row.get("triggerPrice")]
    return not row.get("orderLinkId") and row["side"] == "Sell" and level in [Decimal(p) for p in prices if p]


def _triggered(row: Mapping[str, Any]) -> str:
    """Which leg of a pair was executed: as told, else by the price it was executed at."""
    told = str(row.get("ocoTriggerBy") or "")
    if "Tp" in told or "Sl" in told:
        return TARGET if "Tp" in told else STOP
    middle = (Decimal(row.get("takeProfit") or 0) + Decimal(row.get("stopLoss") or 0)) / 2
    return TARGET if Decimal(row.get("avgPrice") or 0) > middle else STOP


def _leg(row: Mapping[str, Any], symbol: str, client_order_id: str) -> ExchangeOrder:
    """What an attached order says of one of our legs: the one that did not trigger went with the other."""
    leg, order = leg_of(client_order_id) or STOP, _order(row, symbol)
    is_pair = bool(row.get("takeProfit")) and bool(row.get("stopLoss"))
    state, filled = order.state, order.filled_quantity
    if is_pair and filled > 0 and _triggered(row) != leg:
        state, filled = OrderState.CANCELLED, Decimal(0)
    return leg_report(
        client_id=client_order_id, leg=leg, exchange_id=str(row["orderId"]), symbol=symbol, state=state,
        row_quantity=row["qty"], filled=filled, price=row.get(_PRICES[leg]) or row.get("triggerPrice"), at=order.at,
    )  # fmt: skip


def _order(row: Mapping[str, Any], symbol: str) -> ExchangeOrder:
    """An order under its own id."""
    price, trigger = Decimal(row.get("price") or 0), Decimal(row.get("triggerPrice") or 0)
    return ExchangeOrder(
        client_order_id=str(row.get("orderLinkId") or row["orderId"]),
        exchange_order_id=str(row["orderId"]),
        list_client_id=None,
        symbol=symbol,
        is_buy=row["side"] == "Buy",
        order_type=str(row["orderType"]).upper(),
        state=state_of(_STATES, row["orderStatus"]),
        quantity=Decimal(row["qty"]),
        filled_quantity=Decimal(row.get("cumExecQty") or 0),
        price=price or None,
        stop_price=trigger or None,
        at=from_ms(int(row.get("updatedTime") or row.get("createdTime") or 0)),
    )
