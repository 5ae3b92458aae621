"""The private side of a Binance spot exchange, through ccxt's implicit methods: brackets, protection, exits, fills.

The implicit methods send what they are given: no client order id is invented, no parameter is added but the signature.
Nothing here resends. A send ends in one of three ways, and the caller acts on which: the exchange's reports; a refusal
(OrderRejected and its like), after which nothing exists; OutcomeUnknown, after which the ids must be asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from tradewind.adapters.ccxt_client import CcxtClient
from tradewind.adapters.ccxt_delistings import Delistings
from tradewind.adapters.ccxt_exchange import ask_listed
from tradewind.adapters.ccxt_instruments import ending
from tradewind.adapters.ccxt_orders import STATUSES, exchange_order, order_fields, reports_of
from tradewind.adapters.ccxt_trading_base import NO_SUCH_ORDER, CcxtTradingBase
from tradewind.core.ports import BracketLegs
from tradewind.core.timeframes import from_ms, to_ms
from tradewind.core.types import Balance, BracketSupport, ExchangeOrder, Fill, Instrument, Order, Payment
from tradewind.errors import NotSupported, OrderRejected

DUPLICATE: Final = (-2010, "duplicate")
_PAGE: Final = 1000
# One request for all symbols weighs as much as this many for one.
_ALL_SYMBOLS_AT_ONCE: Final = 13


class CcxtTrading(CcxtTradingBase[CcxtClient]):
    """Satisfies `core.ports.TradingExchange` for Binance spot and whatever speaks its dialect."""

    # Of a list that is unknown Binance spot says -2018, which means too little money on its futures.
    no_such_order = NO_SUCH_ORDER | {-2018}

    statuses = STATUSES

    def __init__(self, client: CcxtClient, account: str) -> None:
        super().__init__(client, account)
        self._delistings = Delistings(client)

    def instruments(self, symbols: Sequence[str]) -> dict[str, Instrument]:
        """The rules of each market that the exchange lists, with its announced end."""
        found = super().instruments(symbols)
        for market, symbol in self._client.listed(list(found)).items():
            end = self._delistings.end_of(market)
            if end is not None:
                found[symbol] = ending(found[symbol], end)
        return found

    def _told_status(self, market: str) -> str | None:
        told = self._client.read("public_get_exchangeinfo", {"symbol": market, "showPermissionSets": "false"})
        return next((str(row["status"]) for row in told["symbols"] if row["symbol"] == market), None)

    # ---------------------------------------------------------------------------------------------------------- sends
    def send_bracket(self, legs: BracketLegs, instrument: Instrument) -> list[ExchangeOrder]:
        """Entry, stop and target as one list: OPOCO, or OTOCO where the legs must be sized up front.

        Raises NotSupported where the exchange has no native bracket: the caller then sends the entry alone and protects
        its fill.
        """
        entry, stop, target = legs.entry, legs.stop, legs.target
        if instrument.bracket not in (BracketSupport.OPOCO, BracketSupport.OTOCO):
            raise NotSupported(f"{entry.symbol} has no native bracket here ({instrument.bracket.value})")
        if not entry.is_buy:
            raise NotSupported(f"{entry.symbol}: a spot market cannot be sold short")
        params = {
            "symbol": self._client.market_id(entry.symbol),
            "listClientOrderId": legs.list_client_id,
            "newOrderRespType": "FULL",
            "workingType": entry.order_type,
            "workingSide": "BUY",
            "workingClientOrderId": entry.client_order_id,
            "workingPrice": _text(entry.price),
            "workingQuantity": _text(entry.quantity),
            # Filled whole or not at all: the legs are placed only once the working leg is wholly filled.
            "workingTimeInForce": "FOK",
            "pendingSide": "SELL",
            "pendingAboveType": target.order_type,
            "pendingAboveClientOrderId": target.client_order_id,
            "pendingAbovePrice": _text(target.price),
            "pendingBelowType": stop.order_type,
            "pendingBelowClientOrderId": stop.client_order_id,
            "pendingBelowStopPrice": _text(stop.stop_price),
        }
        method = "private_post_orderlist_opoco"
        if instrument.bracket is BracketSupport.OTOCO:
            method = "private_post_orderlist_otoco"
            params["pendingQuantity"] = _text(min(stop.quantity, target.quantity))
        return self._send_list(method, params, [entry, stop, target])

    def send_protection(self, stop: Order, target: Order, instrument: Instrument) -> list[ExchangeOrder]:
        """A new OCO of stop and target. Raises OrderRejected when the price is already through one of them."""
        above, below = (target, stop) if not stop.is_buy else (stop, target)
        assert stop.list_client_id is not None  # core.brackets.plan_protection always names the list
        params = {
            "symbol": self._client.market_id(stop.symbol),
            "listClientOrderId": stop.list_client_id,
            "newOrderRespType": "FULL",
            "side": "BUY" if stop.is_buy else "SELL",
            "quantity": _text(stop.quantity),
            "aboveType": above.order_type,
            "aboveClientOrderId": above.client_order_id,
            **_leg_prices("above", above),
            "belowType": below.order_type,
            "belowClientOrderId": below.client_order_id,
            **_leg_prices("below", below),
        }
        return self._send_list("private_post_orderlist_oco", params, [stop, target])

    def send_order(self, order: Order, instrument: Instrument) -> ExchangeOrder:
        """One order on its own; a LIMIT goes out as FOK, since the only lone limit is an entry."""
        params = {
            "symbol": self._client.market_id(order.symbol),
            "newOrderRespType": "FULL",
            "newClientOrderId": order.client_order_id,
            **order_fields(order),
        }
        try:
            answer = self._client.send("private_post_order", params, client_order_id=order.client_order_id)
        except OrderRejected as error:
            if not _is_duplicate(error):
                raise
            return self._must_find(order.symbol, order.client_order_id)
        return self._remember(exchange_order(answer, order.symbol))

    def _send_list(self, method: str, params: Mapping[str, Any], orders: Sequence[Order]) -> list[ExchangeOrder]:
        symbol, list_id = orders[0].symbol, str(params["listClientOrderId"])
        try:
            answer = self._client.send(method, params, client_order_id=orders[0].client_order_id)
        except OrderRejected as error:
            if not _is_duplicate(error):
                raise
            # It is there already: somebody sent this very list before. Say what became of it.
            return [self._must_find(symbol, order.client_order_id) for order in orders]
        return [self._remember(report) for report in reports_of(answer, symbol, list_id)]

    # -------------------------------------------------------------------------------------------------------- cancels
    def cancel_list(self, symbol: str, list_client_id: str, known: Sequence[Order] = ()) -> list[ExchangeOrder]:
        """Cancel a list; one that is over already is reported as it ended. Empty when the exchange never knew it."""
        params = {"symbol": self._client.market_id(symbol), "listClientOrderId": list_client_id}
        try:
            answer = self._client.send("private_delete_orderlist", params, client_order_id=list_client_id)
        except OrderRejected as error:
            if error.code not in self.no_such_order:
                raise
            return self._find_list(symbol, list_client_id)
        return [self._remember(report) for report in reports_of(answer, symbol, list_client_id)]

    def cancel_order(self, symbol: str, client_order_id: str) -> ExchangeOrder:
        """Cancel one order; one that is over already is reported as it ended.

        Raises OrderRejected when the exchange never knew it.
        """
        params = {"symbol": self._client.market_id(symbol), "origClientOrderId": client_order_id}
        try:
            answer = self._client.send("private_delete_order", params, client_order_id=client_order_id)
        except OrderRejected as error:
            if error.code not in self.no_such_order:
                raise
            found = self.find_order(symbol, client_order_id)
            if found is None:
                raise
            return found
        if "orderReports" in answer:  # a leg of a list: all of the list was cancelled
            reports = [self._remember(report) for report in reports_of(answer, symbol, None)]
            return next(report for report in reports if report.client_order_id == client_order_id)
        return self._remember(exchange_order(answer, symbol))

    # -------------------------------------------------------------------------------------------------------- queries
    def find_order(self, symbol: str, client_order_id: str, known: Order | None = None) -> ExchangeOrder | None:
        """The order of that id, or None when the exchange answers that it does not know it."""
        params = {"symbol": self._client.market_id(symbol), "origClientOrderId": client_order_id}
        answer = self._ask("private_get_order", params)
        return None if answer is None else self._remember(exchange_order(answer, symbol))

    def _find_list(self, symbol: str, list_client_id: str) -> list[ExchangeOrder]:
        answer = self._ask("private_get_orderlist", {"origClientOrderId": list_client_id})
        return [self._must_find(symbol, str(leg["clientOrderId"])) for leg in (answer or {"orders": ()})["orders"]]

    def open_orders(self, symbols: Sequence[str]) -> list[ExchangeOrder]:
        """Everything that works or waits at the exchange in these markets, ours or not."""
        markets = self._client.listed(symbols)

        def ask(names: list[str]) -> list[Any]:
            if len(names) >= _ALL_SYMBOLS_AT_ONCE:
                everything: list[Any] = self._client.read("private_get_openorders")
                return everything
            return [row for name in names for row in self._client.read("private_get_openorders", {"symbol": name})]

        answers = ask_listed(self._client, symbols, ask)
        return [
            self._remember(exchange_order(answer, markets[answer["symbol"]]))
            for answer in answers
            if answer["symbol"] in markets
        ]

    def fills_since(self, symbol: str, since: datetime) -> list[Fill]:
        """Every execution of the account in one market at or after `since`, oldest first, with its client order id."""
        market = self._client.market_id(symbol)
        trades: list[Any] = self._client.read(
            "private_get_mytrades", {"symbol": market, "startTime": to_ms(since), "limit": _PAGE}
        )
        page = trades
        while len(page) == _PAGE:
            after = {"symbol": market, "fromId": int(page[-1]["id"]) + 1, "limit": _PAGE}
            page = self._client.read("private_get_mytrades", after)
            trades = [*trades, *page]
        return [
            Fill(
                account=self._account,
                symbol=symbol,
                trade_id=str(trade["id"]),
                client_order_id=self._client_order_id(symbol, str(trade["orderId"])),
                is_buy=_is_true(trade["isBuyer"]),
                quantity=Decimal(trade["qty"]),
                price=Decimal(trade["price"]),
                fee=Decimal(trade["commission"]),
                fee_asset=self._client.asset(trade["commissionAsset"], free_of_charge=symbol.split("/")[1]),
                is_maker=_is_true(trade["isMaker"]),
                at=from_ms(int(trade["time"])),
            )
            for trade in trades
        ]

    def _client_order_id(self, symbol: str, exchange_order_id: str) -> str:
        """Trades name only the exchange's id; the order behind it names ours. Asked once a process."""
        known = self._client_ids.get((symbol, exchange_order_id))
        if known is not None:
            return known
        params = {"symbol": self._client.market_id(symbol), "orderId": exchange_order_id}
        return self._remember(exchange_order(self._client.read("private_get_order", params), symbol)).client_order_id

    def payments_since(self, since: datetime) -> list[Payment]:
        """None: on spot nothing but trades and transfers moves a balance."""
        return []

    def balances(self) -> dict[str, Balance]:
        """What the account holds, by asset; assets without a holding are absent."""
        answer = self._client.read("private_get_account", {"omitZeroBalances": "true"})
        found = [
            Balance(self._client.asset(row["asset"]), Decimal(row["free"]), Decimal(row["locked"]))
            for row in answer["balances"]
        ]
        return {balance.asset: balance for balance in found if balance.total != 0}


def _text(value: Decimal | None) -> str:
    """A Decimal as the exchange wants it: never with an exponent."""
    assert value is not None  # core.brackets fills in what each order type needs
    return format(value, "f")


def _leg_prices(place: str, order: Order) -> dict[str, str]:
    if order.stop_price is not None:
        return {f"{place}StopPrice": _text(order.stop_price)}
    return {f"{place}Price": _text(order.price)}


def _is_duplicate(error: OrderRejected) -> bool:
    code, word = DUPLICATE
    return error.code == code and word in str(error).lower()


def _is_true(value: Any) -> bool:
    return value is True or value == "true"
