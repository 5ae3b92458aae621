"""The private side of Binance's USDⓈ-M futures, through ccxt's implicit methods: entries, protection, exits.

Nothing here resends, as on spot. An entry is a FOK limit under isolated margin and the leverage of its instrument;
whatever leaves a position is reduce-only. Stop and target are two conditional orders of the algo service, which do not
know of each other: the jobs cancel the one that is left.

How the account is told to the ledger is `ccxt_futures_reads`' business.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Final

from tradewind.adapters.ccxt_futures_reads import CcxtFuturesReads, is_algo_id, order_of
from tradewind.adapters.ccxt_trading_base import NO_SUCH_ORDER
from tradewind.core.ports import BracketLegs
from tradewind.core.types import ExchangeOrder, Instrument, Order, OrderRole, OrderState
from tradewind.errors import NotSupported, OrderRejected, ReconcileError, TradewindError

DUPLICATE: Final = -4116
ALREADY_ISOLATED: Final = -4046


class CcxtFuturesTrading(CcxtFuturesReads):
    """Satisfies `core.ports.TradingExchange` for Binance USDⓈ-M futures and whatever speaks its dialect."""

    # ---------------------------------------------------------------------------------------------------------- sends
    def send_bracket(self, legs: BracketLegs, instrument: Instrument) -> list[ExchangeOrder]:
        """Raises NotSupported: there are no lists here, the caller sends the entry and protects its fill."""
        raise NotSupported(f"{legs.entry.symbol} has no native bracket on futures")

    def send_protection(self, stop: Order, target: Order, instrument: Instrument) -> list[ExchangeOrder]:
        """Stop, then target. A refused stop raises, and nothing rests; a refused target is reported as REJECTED.

        Raises OutcomeUnknown when it is not known of one of them: both ids must then be asked for.
        """
        placed = self._send_algo(stop)
        try:
            return [placed, self._send_algo(target)]
        except ReconcileError:
            raise
        except TradewindError:
            # The stop rests already: an exception would say that neither does.
            refused = ExchangeOrder(
                target.client_order_id, "", None, target.symbol, target.is_buy, target.order_type,
                OrderState.REJECTED, target.quantity, Decimal(0), None, target.stop_price, placed.at,
            )  # fmt: skip
            return [placed, refused]

    def send_order(self, order: Order, instrument: Instrument) -> ExchangeOrder:
        """An entry as FOK limit, or a reduce-only market order."""
        if order.role is OrderRole.ENTRY:
            self._prepare(order.symbol, instrument)
        params = {
            "symbol": self._client.market_id(order.symbol),
            "side": "BUY" if order.is_buy else "SELL",
            "type": order.order_type,
            "quantity": format(order.quantity, "f"),
            "newClientOrderId": order.client_order_id,
            "newOrderRespType": "RESULT",
        }
        if order.price is not None:
            params |= {"price": format(order.price, "f"), "timeInForce": "FOK"}
        if order.role is not OrderRole.ENTRY:
            params["reduceOnly"] = "true"
        try:
            answer = self._client.send("fapiprivate_post_order", params, client_order_id=order.client_order_id)
        except OrderRejected as error:
            if error.code != DUPLICATE:
                raise
            return self._must_find(order.symbol, order.client_order_id)
        return self._remember(order_of(answer, order.symbol))

    def _send_algo(self, order: Order) -> ExchangeOrder:
        assert order.stop_price is not None  # core.brackets gives both legs their trigger price
        params = {
            "algoType": "CONDITIONAL",
            "symbol": self._client.market_id(order.symbol),
            "side": "BUY" if order.is_buy else "SELL",
            "type": order.order_type,
            "quantity": format(order.quantity, "f"),
            "triggerPrice": format(order.stop_price, "f"),
            "workingType": "CONTRACT_PRICE",
            "reduceOnly": "true",
            "clientAlgoId": order.client_order_id,
        }
        try:
            answer = self._client.send("fapiprivate_post_algoorder", params, client_order_id=order.client_order_id)
        except OrderRejected as error:
            if error.code != DUPLICATE:
                raise
            return self._must_find(order.symbol, order.client_order_id)
        return self._algo(answer, order.symbol)

    def _prepare(self, symbol: str, instrument: Instrument) -> None:
        """Isolated margin and the instrument's leverage, looked at before every entry: both decide what may be lost.

        Raises StopError or RetryError when they are not to be had: nothing was sent then.
        """
        if instrument.margin is None:
            raise NotSupported(f"{symbol} comes without margin rules: it is no future")
        market = self._client.market_id(symbol)
        (config,) = self._client.read("fapiprivate_get_symbolconfig", {"symbol": market})
        if str(config["marginType"]).upper() != "ISOLATED":
            try:
                self._client.read("fapiprivate_post_margintype", {"symbol": market, "marginType": "ISOLATED"})
            except OrderRejected as error:
                if error.code != ALREADY_ISOLATED:
                    raise
        if int(config["leverage"]) != instrument.margin.leverage:
            wanted = {"symbol": market, "leverage": instrument.margin.leverage}
            self._client.read("fapiprivate_post_leverage", wanted)

    # -------------------------------------------------------------------------------------------------------- cancels
    def cancel_list(self, symbol: str, list_client_id: str, known: Sequence[Order] = ()) -> list[ExchangeOrder]:
        """Raises NotSupported: orders are cancelled one by one here."""
        raise NotSupported(f"{symbol} has no order lists on futures")

    def cancel_order(self, symbol: str, client_order_id: str) -> ExchangeOrder:
        """Cancel one order; one that is over already is reported as it ended.

        Raises OrderRejected when the exchange never knew it.
        """
        market = self._client.market_id(symbol)
        if is_algo_id(client_order_id):
            method, params = "fapiprivate_delete_algoorder", {"clientAlgoId": client_order_id}
        else:
            method, params = "fapiprivate_delete_order", {"symbol": market, "origClientOrderId": client_order_id}
        try:
            self._client.send(method, params, client_order_id=client_order_id)
        except OrderRejected as error:
            if error.code not in NO_SUCH_ORDER:
                raise
            found = self.find_order(symbol, client_order_id)
            if found is None:
                raise
            return found
        return self._must_find(symbol, client_order_id)
