"""What a USDⓈ-M futures account says of itself through ccxt's implicit methods: orders, fills, payments, holdings.

What the account holds is told as if its contracts had been bought with borrowed money: the quantity of each position as
a holding of its base asset (negative for a short), the wallet less what the positions cost as the quote holding. So one
ledger of fills explains both markets, to the last digit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from tradewind.adapters.ccxt_futures_client import CcxtFuturesClient
from tradewind.adapters.ccxt_orders import STATES, STATUSES, state_of
from tradewind.adapters.ccxt_trading_base import CcxtTradingBase
from tradewind.core.orders import is_final, is_ours
from tradewind.core.timeframes import from_ms, to_ms
from tradewind.core.types import Balance, ExchangeOrder, Fill, Order, OrderState, Payment
from tradewind.errors import TradewindError

_ALGO_LETTERS: Final = ("tws", "twt")  # how the ids of our stops and targets begin
_ALGO_STATES: Final[Mapping[str, OrderState]] = {
    "NEW": OrderState.WORKING,
    "CANCELED": OrderState.CANCELLED,
    "REJECTED": OrderState.EXPIRED,  # it waited, and could not be placed when it triggered
    "EXPIRED": OrderState.EXPIRED,
}
_TRIGGERED: Final = frozenset({"TRIGGERING", "TRIGGERED", "FINISHED"})
# What counts as a result beside the trades. Realised results and commissions are in the fills; everything else that
# moves money, kinds that are new included, is a transfer: a difference for a person to accept.
_RESULTS: Final = frozenset(
    {
        "FUNDING_FEE", "INSURANCE_CLEAR", "REFERRAL_KICKBACK", "COMMISSION_REBATE", "API_REBATE", "FEE_RETURN",
        "POSITION_LIMIT_INCREASE_FEE", "DELIVERED_SETTELMENT", "BFUSD_REWARD",
    }
)  # fmt: skip
# A conditional order that has triggered is placed within moments; one that is not by then protects nothing.
_TRIGGER_TAKES_MS: Final = 5_000
_PAGE: Final = 1000


class CcxtFuturesReads(CcxtTradingBase[CcxtFuturesClient]):
    """The reading half of `core.ports.TradingExchange` on futures."""

    statuses = STATUSES

    def _told_status(self, market: str) -> str | None:
        """This exchange answers for all of its contracts at once."""
        told = self._client.read("fapipublic_get_exchangeinfo")
        return next((str(row["status"]) for row in told["symbols"] if row["symbol"] == market), None)

    # --------------------------------------------------------------------------------------------------------- orders
    def find_order(self, symbol: str, client_order_id: str, known: Order | None = None) -> ExchangeOrder | None:
        """The order of that id, or None when the exchange answers that it does not know it."""
        market = self._client.market_id(symbol)
        if is_algo_id(client_order_id):
            answer = self._ask("fapiprivate_get_algoorder", {"clientAlgoId": client_order_id})
            if answer is None:
                return None
            report = self._algo(answer, symbol)
            if report.state is not OrderState.EXPIRED or str(answer["algoStatus"]) not in _TRIGGERED:
                return report
            return self._put_away(report)
        answer = self._ask("fapiprivate_get_order", {"symbol": market, "origClientOrderId": client_order_id})
        return None if answer is None else self._remember(order_of(answer, symbol))

    def _put_away(self, hung: ExchangeOrder) -> ExchangeOrder:
        """Cancel a conditional order that hangs, so that it cannot come to life beside what takes its place.

        Mostly the exchange refuses (-2011). If it was placed after all meanwhile, that is what is reported.
        """
        name = {"clientAlgoId": hung.client_order_id}
        with suppress(TradewindError):
            self._client.send("fapiprivate_delete_algoorder", name, client_order_id=hung.client_order_id)
        answer = self._ask("fapiprivate_get_algoorder", name)
        return hung if answer is None else self._algo(answer, hung.symbol)

    def _algo(self, answer: Mapping[str, Any], symbol: str) -> ExchangeOrder:
        """A conditional order; once it has triggered, the order placed for it says how it stands.

        One that has triggered and was not placed within seconds is EXPIRED: it may hang so for a day.
        """
        status, client_id = str(answer["algoStatus"]), str(answer["clientAlgoId"])
        actual_id = str(answer.get("actualOrderId") or "")
        state, filled = _ALGO_STATES.get(status), Decimal(0)
        if state is None:
            placed = self._placed_for(client_id, actual_id, symbol) if actual_id else None
            if status not in _TRIGGERED:
                state = state_of(_ALGO_STATES, status)
            elif placed is not None:
                state, filled = placed.state, placed.filled_quantity
            else:
                since_ms = int(answer.get("triggerTime") or answer.get("updateTime") or 0)
                hangs = self._client.exchange.milliseconds() - since_ms > _TRIGGER_TAKES_MS
                state = OrderState.EXPIRED if hangs else OrderState.WORKING
        return ExchangeOrder(
            client_order_id=client_id,
            exchange_order_id=str(answer["algoId"]),
            list_client_id=None,
            symbol=symbol,
            is_buy=answer["side"] == "BUY",
            order_type=str(answer["orderType"]),
            state=state,
            quantity=Decimal(answer.get("quantity") or 0),
            filled_quantity=filled,
            price=None,
            stop_price=Decimal(answer["triggerPrice"]),
            at=from_ms(int(answer.get("updateTime") or answer.get("createTime") or 0)),
        )

    def _placed_for(self, client_id: str, actual_id: str, symbol: str) -> ExchangeOrder | None:
        """The order that was placed for a conditional one; None while the exchange does not know it."""
        self._client_ids[symbol, actual_id] = client_id
        params = {"symbol": self._client.market_id(symbol), "orderId": actual_id}
        answer = self._ask("fapiprivate_get_order", params)
        return None if answer is None else order_of(answer, symbol)

    def open_orders(self, symbols: Sequence[str]) -> list[ExchangeOrder]:
        """Everything that works or waits at the exchange in these markets, ours or not."""
        markets = self._client.listed(symbols)
        placed = self._client.read("fapiprivate_get_openorders")
        waiting = self._client.read("fapiprivate_get_openalgoorders")
        found = [
            self._remember(order_of(answer, markets[answer["symbol"]]))
            for answer in placed
            if answer["symbol"] in markets
        ]
        found += [self._algo(answer, markets[answer["symbol"]]) for answer in waiting if answer["symbol"] in markets]
        return [report for report in found if not is_final(report.state)]

    def fills_since(self, symbol: str, since: datetime) -> list[Fill]:
        """Every execution of the account in one market at or after `since`, oldest first, with its client order id.

        A question by time reaches a week; what follows the first execution found is asked for by its number, and
        without any in that week the newest week is asked for.
        """
        market = self._client.market_id(symbol)
        window = {"symbol": market, "startTime": to_ms(since), "limit": _PAGE}
        trades: list[Any] = self._client.read("fapiprivate_get_usertrades", window)
        if not trades:
            newest = self._client.read("fapiprivate_get_usertrades", {"symbol": market, "limit": _PAGE})
            trades = [trade for trade in newest if int(trade["time"]) >= to_ms(since)]
        while trades:
            after = {"symbol": market, "fromId": int(trades[-1]["id"]) + 1, "limit": _PAGE}
            page = self._client.read("fapiprivate_get_usertrades", after)
            trades = [*trades, *page]
            if len(page) < _PAGE:
                break
        return [
            Fill(
                account=self._account,
                symbol=symbol,
                trade_id=str(trade["id"]),
                client_order_id=self._client_order_id(symbol, str(trade["orderId"])),
                is_buy=trade["side"] == "BUY",
                quantity=Decimal(trade["qty"]),
                price=Decimal(trade["price"]),
                fee=Decimal(trade["commission"]),
                fee_asset=self._client.asset(trade["commissionAsset"], free_of_charge=symbol.split("/")[1]),
                is_maker=trade["maker"] is True or trade["maker"] == "true",
                at=from_ms(int(trade["time"])),
            )
            for trade in trades
        ]

    def _client_order_id(self, symbol: str, exchange_order_id: str) -> str:
        """Trades name only the exchange's id. An order placed for a conditional one goes by that one's id."""
        known = self._client_ids.get((symbol, exchange_order_id))
        if known is not None:
            return known
        market = self._client.market_id(symbol)
        answer = self._client.read("fapiprivate_get_order", {"symbol": market, "orderId": exchange_order_id})
        client_id = str(answer["clientOrderId"])
        if not is_ours(client_id):
            for algo in self._client.read("fapiprivate_get_allalgoorders", {"symbol": market, "limit": _PAGE}):
                if str(algo.get("actualOrderId") or "") == exchange_order_id:
                    client_id = str(algo["clientAlgoId"])
        self._client_ids[symbol, exchange_order_id] = client_id
        return client_id

    def payments_since(self, since: datetime) -> list[Payment]:
        """Funding and what else counts as a result beside the trades, at or after `since`.

        What concerns no market of ours (a rebate, a contract that is gone) has no symbol.
        """
        symbols = {str(market["id"]): market["symbol"].split(":")[0] for market in self._known_markets()}
        rows: list[Any] = []
        number = 1
        while True:
            wanted = {"startTime": to_ms(since), "limit": _PAGE, "page": number}
            page = self._client.read("fapiprivate_get_income", wanted)
            rows += page
            if len(page) < _PAGE:
                break
            number += 1
        return [
            Payment(
                account=self._account,
                payment_id=f"{row['incomeType']}:{row['symbol']}:{row['tranId']}",
                symbol=symbols.get(str(row["symbol"]), ""),
                kind=str(row["incomeType"]).lower(),
                asset=self._client.asset(row["asset"]),
                amount=Decimal(row["income"]),
                at=from_ms(int(row["time"])),
            )
            for row in rows
            if row["incomeType"] in _RESULTS
        ]

    def _known_markets(self) -> Sequence[Mapping[str, Any]]:
        self._client.load_markets()
        return list(self._client.exchange.markets.values())

    def balances(self) -> dict[str, Balance]:
        """Positions as holdings of their base asset, the wallet less their cost as the quote; see the module's text.

        `free` of the quote is what new entries may use. One answer holds all of it, so nothing moves in between. Cost
        is the signed notional less the unrealised result: what was paid for the position.
        """
        answer = self._client.read("fapiprivatev3_get_account")
        markets = {str(market["id"]): market for market in self._known_markets()}
        # An empty wallet is not listed at all.
        wallet: Mapping[str, Any] = next((w for w in answer["assets"] if w["asset"] == self._quote_asset), {})
        total, found = Decimal(wallet.get("walletBalance") or 0), {}
        for row in answer["positions"]:
            quantity = Decimal(row["positionAmt"])
            if quantity == 0 or row["symbol"] not in markets:
                continue
            total -= Decimal(row["notional"]) - Decimal(row["unrealizedProfit"])
            base = str(markets[row["symbol"]]["base"])
            found[base] = Balance(base, quantity, Decimal(0))
        free = Decimal(wallet.get("availableBalance") or 0)
        found[self._quote_asset] = Balance(self._quote_asset, free, total - free)
        return found

    @property
    def _quote_asset(self) -> str:
        return self._client.config.symbols[0].split(":")[1] if self._client.config.symbols else "USDT"


def order_of(answer: Mapping[str, Any], symbol: str) -> ExchangeOrder:
    """One order of the matching engine."""
    price, stop = Decimal(answer.get("price") or 0), Decimal(answer.get("stopPrice") or 0)
    return ExchangeOrder(
        client_order_id=str(answer["clientOrderId"]),
        exchange_order_id=str(answer["orderId"]),
        list_client_id=None,
        symbol=symbol,
        is_buy=answer["side"] == "BUY",
        order_type=str(answer["type"]),
        state=state_of(STATES, answer["status"]),
        quantity=Decimal(answer["origQty"]),
        filled_quantity=Decimal(answer["executedQty"]),
        price=price or None,
        stop_price=stop or None,
        at=from_ms(int(answer.get("updateTime") or answer.get("time") or 0)),
    )


def is_algo_id(client_order_id: str) -> bool:
    """Our stops and targets are orders of the algo service; everybody else's ids are asked of the matching engine."""
    return client_order_id.startswith(_ALGO_LETTERS)
