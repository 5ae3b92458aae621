"""bitget's spot side (classic account) through ccxt's implicit methods: the entry alone, then a stop as a plan order.

What bitget itself attaches to an entry takes no id of ours, does not name its entry and is placed without an answer of
its own: a lost or missing leg could be neither looked up nor told from another's. So nothing is attached: the entry
fills whole or not at all, the stop follows under our id within the deadline of an emulated bracket, and the target is
watched by the jobs.

A plan order is not asked for by its id: it is looked for in the list of those that wait, then in that of those that are
over, and is absent when both were read to their end without it. One that was seen before and is in neither is moving
between them, never absent. When triggered it places an order of its own, which tells what was sold. By the
documentation it holds no coins before: a person who moves them away disarms it. It names no direction either: placed
under a price that has fallen through it already, it could wait for a rise; so the price is read again after each one.
An id may be used again there once its order has filled, one more reason why no order is sent twice.

Made from the public documentation; no real account was traded on.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from tradewind.adapters.ccxt_attached import STOP, Request, leg_of
from tradewind.adapters.ccxt_bitget_plans import AHEAD_MS, PAGE, REACH_MS, CcxtBitgetPlans, order_of
from tradewind.core.orders import is_final, is_ours
from tradewind.core.ports import BracketLegs
from tradewind.core.timeframes import from_ms, to_ms
from tradewind.core.types import (
    Balance,
    BracketSupport,
    ExchangeOrder,
    Fill,
    Instrument,
    MarketStatus,
    Order,
    OrderState,
)
from tradewind.errors import ExchangeUnreachable, NotSupported, OrderRejected, OutcomeUnknown, RetryError, StopError

_BEFORE_MS: Final = 3_600_000
# How long a sale may lack the plan order behind it: any sale, and one while a stop of ours has been triggered.
_LINKED_MS: Final = 5_000
_PENDING_MS: Final = 60_000
_LOOKS: Final = 8
_PAUSE_S: Final = 0.15


class CcxtBitgetTrading(CcxtBitgetPlans):
    """Satisfies `core.ports.TradingExchange` for bitget spot."""

    statuses = {"online": MarketStatus.TRADING}  # noqa: RUF012

    def _told_status(self, market: str) -> str | None:
        told = self._client.read("public_spot_get_v2_spot_public_symbols")["data"]
        return next((str(row["status"]) for row in told if row["symbol"] == market), None)

    @property
    def recv_window_s(self) -> float:
        """The longest time for which bitget takes what was signed."""
        return 60.0

    def instruments(self, symbols: Sequence[str]) -> dict[str, Instrument]:
        """The rules of each market that the exchange lists."""
        found = super().instruments(symbols)
        changed = {"bracket": BracketSupport.EMULATED, "target_rests": False}
        return {symbol: replace(instrument, **changed) for symbol, instrument in found.items()}  # type: ignore[arg-type]

    # ---------------------------------------------------------------------------------------------------------- sends
    def _entry_request(self, legs: BracketLegs) -> Request:
        raise NotSupported(f"{legs.entry.symbol}: on bitget an entry is sent alone, its stop follows the fill")

    def _order_request(self, order: Order) -> Request:
        params = {
            "symbol": self._client.market_id(order.symbol),
            "side": "buy" if order.is_buy else "sell",
            "orderType": "market" if order.price is None else "limit",
            "size": format(order.quantity, "f"),
            "clientOid": order.client_order_id,
        }
        if order.is_buy and order.price is None:
            raise NotSupported(f"{order.symbol}: bitget counts a market purchase in the quote asset")
        if order.stop_price is not None:
            trigger = {
                "planType": "amount",
                "triggerType": "fill_price",
                "triggerPrice": format(order.stop_price, "f"),
            }
            return "private_spot_post_v2_spot_trade_place_plan_order", params | trigger
        if order.price is not None:
            params |= {"price": format(order.price, "f"), "force": "fok"}
        return "private_spot_post_v2_spot_trade_place_order", params

    def send_order(self, order: Order, instrument: Instrument) -> ExchangeOrder:
        """One order on its own. A stop that the price has fallen through meanwhile is cancelled again.

        Raises OutcomeUnknown when that could not be told.
        """
        try:
            report = super().send_order(order, instrument)
        except OutcomeUnknown as unknown:
            report = self._after_all(order, unknown)
        if order.stop_price is None or report.state is not OrderState.WORKING:
            return report
        try:
            book = self.book_tops([order.symbol]).get(order.symbol)
            if book is not None and book.bid > order.stop_price:
                return report
            return self.cancel_order(order.symbol, order.client_order_id)
        except (RetryError, StopError) as error:
            said = f"placed; whether the price is through it was not told: {error}"
            raise OutcomeUnknown(said, order.client_order_id) from None

    def _after_all(self, order: Order, unknown: OutcomeUnknown) -> ExchangeOrder:
        """A stop whose answer was lost and that is there; raises `unknown` where that cannot be told."""
        try:
            found = None if order.stop_price is None else self.find_order(order.symbol, order.client_order_id, order)
        except RetryError:
            found = None
        if found is None:
            raise unknown
        return found

    def send_protection(self, stop: Order, target: Order, instrument: Instrument) -> list[ExchangeOrder]:
        """Raises NotSupported: a stop and a target would offer the same coins twice."""
        raise NotSupported(f"{stop.symbol}: on bitget a stop rests alone, the target is watched")

    # -------------------------------------------------------------------------------------------------------- cancels
    def cancel_list(self, symbol: str, list_client_id: str, known: Sequence[Order] = ()) -> list[ExchangeOrder]:
        """Cancel these orders one by one: there are no lists. What the exchange never knew is left out."""
        reports = []
        for order in known:
            if self.find_order(symbol, order.client_order_id, order) is not None:
                reports.append(self.cancel_order(symbol, order.client_order_id))
        return reports

    def cancel_order(self, symbol: str, client_order_id: str) -> ExchangeOrder:
        """Cancel one order; one that is over already is reported as it ended. Raises OrderRejected for an unknown."""
        name = {"clientOid": client_order_id}
        method = "private_spot_post_v2_spot_trade_cancel_plan_order"
        if leg_of(client_order_id) != STOP:
            name["symbol"] = self._client.market_id(symbol)
            method = "private_spot_post_v2_spot_trade_cancel_order"
        refusal: OrderRejected | None = None
        try:
            self._client.send(method, name, client_order_id=client_order_id)
        except OrderRejected as error:
            if error.code not in self.no_such_order:
                raise
            refusal = error
        found = self.find_order(symbol, client_order_id) if refusal else self._must_find(symbol, client_order_id)
        if found is None:
            raise refusal or OrderRejected(f"bitget knows no order {client_order_id} in {symbol}", 43001)
        for _ in range(_LOOKS):  # it cancels after it has answered
            if is_final(found.state):
                break
            time.sleep(_PAUSE_S)
            found = self._must_find(symbol, client_order_id)
        return found

    # -------------------------------------------------------------------------------------------------------- queries
    def find_order(self, symbol: str, client_order_id: str, known: Order | None = None) -> ExchangeOrder | None:
        """The order of that id, or None when the exchange answers that it does not know it.

        Raises ExchangeUnreachable for a stop that was seen before and is in neither list of plan orders at the moment.
        """
        if leg_of(client_order_id) != STOP:
            row = self._row(clientOid=client_order_id)
            return None if row is None else self._remember(order_of(row, symbol))
        since_ms = 0 if known is None else to_ms(known.sent_at or known.planned_at) - _BEFORE_MS
        for row in self._plans(symbol, since_ms):
            if str(row.get("clientOid") or "") == client_order_id:
                return self._remember(self._stop(row, symbol))
        was_seen = known is not None and known.exchange_order_id
        if was_seen or client_order_id in self._client_ids.values():
            raise ExchangeUnreachable(f"{symbol}: the stop {client_order_id} is between bitget's lists: ask again")
        return None

    def open_orders(self, symbols: Sequence[str]) -> list[ExchangeOrder]:
        """Everything that works or waits at the exchange in these markets, ours or not."""
        found: list[ExchangeOrder] = []
        for name, symbol in self._client.listed(symbols).items():
            market = {"symbol": name, "limit": PAGE}
            for kind in ("normal", "tpsl"):
                wanted = market | {"tpslType": kind}
                rows = self._rows("private_spot_get_v2_spot_trade_unfilled_orders", wanted, "orderId")
                found += [self._remember(order_of(row, symbol)) for row in rows]
            plans = self._plan_pages("private_spot_get_v2_spot_trade_current_plan_order", market)
            found += [self._remember(self._stop(row, symbol)) for row in plans]
        return found

    def _rows(self, method: str, wanted: Mapping[str, Any], key: str) -> list[Any]:
        rows: list[Any] = []
        page = dict(wanted)
        while True:
            got = self._client.read(method, page)["data"] or []
            rows += got
            if len(got) < PAGE:
                return rows
            page["idLessThan"] = got[-1][key]

    def fills_since(self, symbol: str, since: datetime) -> list[Fill]:
        """Every execution of the account in one market at or after `since`, oldest first, with its client order id."""
        fixed = {"symbol": self._client.market_id(symbol), "limit": PAGE}
        end_ms = self._client.exchange.milliseconds() + AHEAD_MS
        rows: list[Any] = []
        for start_ms in range(to_ms(since), end_ms, REACH_MS):
            window = {"startTime": start_ms, "endTime": min(start_ms + REACH_MS - 1, end_ms)}
            rows += self._rows("private_spot_get_v2_spot_trade_fills", fixed | window, "tradeId")
        return [
            Fill(
                account=self._account,
                symbol=symbol,
                trade_id=str(row["tradeId"]),
                client_order_id=self._client_order_id(symbol, row),
                is_buy=row["side"] == "buy",
                quantity=Decimal(row["size"]),
                price=Decimal(row["priceAvg"]),
                fee=-Decimal(row["feeDetail"].get("totalFee") or 0),  # what is charged is negative there
                fee_asset=self._client.asset(row["feeDetail"]["feeCoin"], free_of_charge=symbol.split("/")[1]),
                is_maker=row.get("tradeScope") == "maker",
                at=from_ms(int(row["cTime"])),
            )
            for row in sorted(rows, key=lambda row: (int(row["cTime"]), int(row["tradeId"])))
        ]

    def _client_order_id(self, symbol: str, row: Mapping[str, Any]) -> str:
        """The id of an execution's order; a sale of a triggered stop goes by the stop's.

        Raises ExchangeUnreachable while a sale is so new that the plan order behind it may not be told yet.
        """
        key = (symbol, str(row["orderId"]))
        if key not in self._client_ids:
            named = str((self._row(orderId=key[1]) or {}).get("clientOid") or "")
            if not is_ours(named) and row["side"] == "sell":
                stop, is_pending = self._stop_behind(symbol, key[1])
                age_ms = self._client.exchange.milliseconds() - int(row["cTime"])
                if stop is None and age_ms < (_PENDING_MS if is_pending else _LINKED_MS):
                    raise ExchangeUnreachable(f"{symbol}: bitget does not tell yet who placed the sale {key[1]}")
                named = stop or named
            self._client_ids[key] = named or key[1]
        return self._client_ids[key]

    def balances(self) -> dict[str, Balance]:
        """What the account holds, by asset; assets without a holding are absent."""
        found = {}
        for row in self._client.read("private_spot_get_v2_spot_account_assets", {"assetType": "hold_only"})["data"]:
            free = Decimal(row["available"])
            held = Decimal(row.get("frozen") or 0) + Decimal(row.get("locked") or 0)
            if free + held:
                asset = self._client.asset(row["coin"])
                found[asset] = Balance(asset, free, held)
        return found
