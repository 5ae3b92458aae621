"""okx's spot side through ccxt's implicit methods: entries with stop and target attached, OCO pairs as protection.

Stop and target are one algo order of type `oco` under an id of ours, which is the list's: placed by the exchange when
the entry has filled whole, or by us when protection is replaced. Whichever triggers leaves at market: a target that
became a resting limit order would have no stop beside it.

Ids there have at most 32 letters and digits, ours have 35: they are written in base 36. The account must be in spot or
futures mode, in which spot is paid for in full. Made from the public documentation; no real account was traded on.
"""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cached_property
from typing import Any, Final

from tradewind.adapters.ccxt_attached import STOP, TARGET, CcxtAttachedTrading, Request, leg_of, leg_report, own_part
from tradewind.adapters.ccxt_orders import state_of
from tradewind.core.orders import is_ours
from tradewind.core.ports import BracketLegs
from tradewind.core.timeframes import from_ms, to_ms
from tradewind.core.types import Balance, ExchangeOrder, Fill, Instrument, MarketStatus, Order, OrderState
from tradewind.errors import NotSupported, OrderRejected

_DIGITS: Final = string.digits + string.ascii_lowercase
_ID_DIGITS: Final = 25  # of base 36 hold 128 bits
_PAGE: Final = 100
# Executions older than this are asked of the slower archive.
_RECENT: Final = timedelta(days=2)
_STATES: Final[Mapping[str, OrderState]] = {
    "live": OrderState.WORKING,
    "partially_filled": OrderState.PARTIAL,
    "filled": OrderState.FILLED,
    "canceled": OrderState.CANCELLED,
    "mmp_canceled": OrderState.CANCELLED,
}
_ALGO_STATES: Final[Mapping[str, OrderState]] = {
    "live": OrderState.WORKING,
    "pause": OrderState.WORKING,
    "canceled": OrderState.CANCELLED,
    "order_failed": OrderState.EXPIRED,
}
_TRIGGERED: Final = frozenset({"effective", "partially_effective"})
_SIDES: Final = {"sl": STOP, "tp": TARGET}


class CcxtOkxTrading(CcxtAttachedTrading):
    """Satisfies `core.ports.TradingExchange` for okx spot."""

    no_such_order = frozenset({51603, 51400, 51401, 51402, 51503})
    duplicate = frozenset({51016, 51065})
    statuses = {"live": MarketStatus.TRADING}  # noqa: RUF012

    def _told_status(self, market: str) -> str | None:
        told = self._client.read("public_get_public_instruments", {"instType": "SPOT", "instId": market})["data"]
        return str(told[0]["state"]) if told else None

    @property
    def recv_window_s(self) -> float:
        """okx refuses what was signed longer ago than this."""
        return 30.0

    @cached_property
    def _is_plain(self) -> bool:
        (told,) = self._client.read("private_get_account_config")["data"]
        return str(told["acctLv"]) in ("1", "2")

    # ---------------------------------------------------------------------------------------------------------- sends
    def _entry_request(self, legs: BracketLegs) -> Request:
        if not self._is_plain:
            raise NotSupported("the okx account is in a margin mode, which may borrow: set it to spot mode")
        pair = {"attachAlgoClOrdId": okx_id(legs.list_client_id), **_triggers(legs.stop, legs.target)}
        return "private_post_trade_order", {**self._fields(legs.entry), "attachAlgoOrds": [pair]}

    def _order_request(self, order: Order) -> Request:
        return "private_post_trade_order", self._fields(order)

    def _fields(self, order: Order) -> dict[str, Any]:
        fields = {
            "instId": self._client.market_id(order.symbol),
            "tdMode": "cash",
            "side": "buy" if order.is_buy else "sell",
            "ordType": "market" if order.price is None else "fok",
            "sz": format(order.quantity, "f"),
            "tgtCcy": "base_ccy",
            "clOrdId": okx_id(order.client_order_id),
        }
        return fields if order.price is None else {**fields, "px": format(order.price, "f")}

    def send_protection(self, stop: Order, target: Order, instrument: Instrument) -> list[ExchangeOrder]:
        """One OCO of stop and target. Raises OrderRejected when the price is already through one of them."""
        assert stop.list_client_id is not None  # core.brackets.plan_protection names the list
        name = okx_id(stop.list_client_id)
        params = {
            "instId": self._client.market_id(stop.symbol),
            "tdMode": "cash",
            "side": "buy" if stop.is_buy else "sell",
            "ordType": "oco",
            "sz": format(stop.quantity, "f"),
            "algoClOrdId": name,
            "clOrdId": name,  # ccxt invents one where there is none
            **_triggers(stop, target),
        }
        self._send_once(("private_post_trade_order_algo", params), stop)
        return [self._must_find(leg.symbol, leg.client_order_id, leg) for leg in (stop, target)]

    # -------------------------------------------------------------------------------------------------------- cancels
    def cancel_list(self, symbol: str, list_client_id: str, known: Sequence[Order] = ()) -> list[ExchangeOrder]:
        """Cancel an OCO; one that is over already is reported as it ended. Empty when the exchange never knew it."""
        row = self._pair(algoClOrdId=okx_id(list_client_id))
        if row is None:
            return []
        if str(row["state"]) in ("live", "pause"):
            wanted = [{"instId": row["instId"], "algoId": row["algoId"]}]
            exchange = self._client.exchange
            try:
                self._client.send_call(
                    "cancel_algos", lambda: exchange.private_post_trade_cancel_algos(wanted), list_client_id
                )
            except OrderRejected as error:
                if error.code not in self.no_such_order:
                    raise
            row = self._pair(algoId=row["algoId"]) or row
        return [self._leg(row, symbol, leg.client_order_id) for leg in known]

    def cancel_order(self, symbol: str, client_order_id: str) -> ExchangeOrder:
        """Cancel one order; one that is over already is reported as it ended. Raises OrderRejected for an unknown."""
        params = {"instId": self._client.market_id(symbol), "clOrdId": okx_id(client_order_id)}
        try:
            self._client.send("private_post_trade_cancel_order", params, client_order_id=client_order_id)
        except OrderRejected as error:
            found = self.find_order(symbol, client_order_id) if error.code in self.no_such_order else None
            if found is None:
                raise
            return found
        return self._must_find(symbol, client_order_id)

    # -------------------------------------------------------------------------------------------------------- queries
    def find_order(self, symbol: str, client_order_id: str, known: Order | None = None) -> ExchangeOrder | None:
        """The order of that id, or None when the exchange answers that it does not know it."""
        if leg_of(client_order_id) is None:
            params = {"instId": self._client.market_id(symbol), "clOrdId": okx_id(client_order_id)}
            rows = (self._ask("private_get_trade_order", params) or {}).get("data") or ()
            return self._remember(_order(rows[0], symbol)) if rows else None
        if seen := own_part(known):
            row = self._pair(algoId=seen)
        elif known is not None and known.list_client_id is not None:
            row = self._pair(algoClOrdId=okx_id(known.list_client_id))
        else:
            return None
        return None if row is None else self._leg(row, symbol, client_order_id)

    def _pair(self, **name: str) -> Mapping[str, Any] | None:
        rows = (self._ask("private_get_trade_order_algo", name) or {}).get("data") or ()
        return rows[0] if rows else None

    def _leg(self, row: Mapping[str, Any], symbol: str, client_order_id: str) -> ExchangeOrder:
        """What an OCO says of one of its legs; once it has triggered, the order placed for it says how it stands."""
        leg, status, filled = leg_of(client_order_id) or STOP, str(row["state"]), Decimal(0)
        state = _ALGO_STATES.get(status)
        if state is None:
            state = OrderState.CANCELLED if status in _TRIGGERED else state_of(_ALGO_STATES, status)
            if status in _TRIGGERED and _SIDES.get(str(row.get("actualSide"))) == leg:
                placed = self._placed_for(row, symbol)
                state, filled = (placed.state, placed.filled_quantity) if placed else (OrderState.WORKING, Decimal(0))
        return leg_report(
            client_id=client_order_id, leg=leg, exchange_id=str(row["algoId"]), symbol=symbol, state=state,
            row_quantity=row.get("sz"), filled=filled, price=row.get("slTriggerPx" if leg == STOP else "tpTriggerPx"),
            at=from_ms(int(row.get("uTime") or row.get("cTime") or 0)),
        )  # fmt: skip

    def _placed_for(self, row: Mapping[str, Any], symbol: str) -> ExchangeOrder | None:
        ids = [*(row.get("ordIdList") or ()), *([row["ordId"]] if row.get("ordId") else [])]
        if not ids:
            return None
        params = {"instId": self._client.market_id(symbol), "ordId": ids[0]}
        rows = (self._ask("private_get_trade_order", params) or {}).get("data") or ()
        return _order(rows[0], symbol) if rows else None

    def open_orders(self, symbols: Sequence[str]) -> list[ExchangeOrder]:
        """Everything that works or waits at the exchange in these markets, ours or not."""
        markets = self._client.listed(symbols)
        placed = self._pages("private_get_trade_orders_pending", {"instType": "SPOT"}, "ordId")
        found = [self._remember(_order(row, markets[row["instId"]])) for row in placed if row["instId"] in markets]
        for kind in ("oco", "conditional"):
            wanted = {"instType": "SPOT", "ordType": kind}
            for row in self._pages("private_get_trade_orders_algo_pending", wanted, "algoId"):
                if row["instId"] in markets:
                    found += self._legs(row, markets[row["instId"]])
        return found

    def _pages(self, method: str, wanted: Mapping[str, Any], key: str) -> list[Any]:
        """All rows of a list, newest first, a page at a time."""
        rows: list[Any] = []
        question = {**wanted, "limit": _PAGE}
        while True:
            page = self._client.read(method, question)["data"]
            rows += page
            if len(page) < _PAGE:
                return rows
            question["after"] = page[-1][key]

    def _legs(self, row: Mapping[str, Any], symbol: str) -> list[ExchangeOrder]:
        known = self._legs_known(symbol, str(row["algoId"])).values()
        return [self._leg(row, symbol, client_id) for client_id in known or [our_id(str(row.get("algoClOrdId") or ""))]]

    def fills_since(self, symbol: str, since: datetime) -> list[Fill]:
        """Every execution of the account in one market at or after `since`, oldest first, with its client order id."""
        is_recent = datetime.now(UTC) - since < _RECENT
        method = "private_get_trade_fills" if is_recent else "private_get_trade_fills_history"
        wanted = {"instType": "SPOT", "instId": self._client.market_id(symbol), "begin": to_ms(since)}
        rows = self._pages(method, wanted, "billId")
        return [self._fill(row, symbol) for row in sorted(rows, key=lambda row: (int(row["ts"]), int(row["billId"])))]

    def _fill(self, row: Mapping[str, Any], symbol: str) -> Fill:
        return Fill(
            account=self._account,
            symbol=symbol,
            trade_id=str(row["tradeId"]),
            client_order_id=self._client_order_id(symbol, row),
            is_buy=row["side"] == "buy",
            quantity=Decimal(row["fillSz"]),
            price=Decimal(row["fillPx"]),
            fee=-Decimal(row.get("fee") or 0),  # what is charged is negative there
            fee_asset=self._client.asset(row["feeCcy"], free_of_charge=symbol.split("/")[1]),
            is_maker=row.get("execType") == "M",
            at=from_ms(int(row["ts"])),
        )

    def _client_order_id(self, symbol: str, row: Mapping[str, Any]) -> str:
        """An order that an OCO placed goes by the leg that triggered."""
        order_id, named = str(row["ordId"]), our_id(str(row.get("clOrdId") or ""))
        if is_ours(named):
            return named
        if (symbol, order_id) not in self._client_ids:
            params = {"instId": self._client.market_id(symbol), "ordId": order_id}
            rows = (self._ask("private_get_trade_order", params) or {}).get("data")
            algo_id = str(rows[0].get("algoId") or "") if rows else ""
            pair = self._pair(algoId=algo_id) if algo_id else None
            legs = self._legs_known(symbol, algo_id) if pair else {}
            leg = _SIDES.get(str((pair or {}).get("actualSide")), STOP)
            self._client_ids[symbol, order_id] = legs.get(leg) or named or order_id
        return self._client_ids[symbol, order_id]

    def balances(self) -> dict[str, Balance]:
        """What the account holds, by asset; assets without a holding are absent."""
        (account,) = self._client.read("private_get_account_balance")["data"]
        found = {}
        for row in account["details"]:
            total, asset = Decimal(row["cashBal"]), self._client.asset(row["ccy"])
            free = Decimal(row["availBal"] or total)
            if total:
                found[asset] = Balance(asset, free, total - free)
        return found


def _triggers(stop: Order, target: Order) -> dict[str, str]:
    assert stop.stop_price is not None  # core.brackets gives both legs their prices
    assert target.price is not None
    return {
        "slTriggerPx": format(stop.stop_price, "f"), "slOrdPx": "-1", "slTriggerPxType": "last",
        "tpTriggerPx": format(target.price, "f"), "tpOrdPx": "-1", "tpTriggerPxType": "last",
    }  # fmt: skip


def _order(row: Mapping[str, Any], symbol: str) -> ExchangeOrder:
    """An ordinary order."""
    price = Decimal(row.get("px") or 0)
    return ExchangeOrder(
        client_order_id=our_id(str(row.get("clOrdId") or "")) or str(row["ordId"]),
        exchange_order_id=str(row["ordId"]),
        list_client_id=None,
        symbol=symbol,
        is_buy=row["side"] == "buy",
        order_type=str(row["ordType"]).upper(),
        state=state_of(_STATES, row["state"]),
        quantity=Decimal(row["sz"]),
        filled_quantity=Decimal(row.get("accFillSz") or 0),
        price=price or None,
        stop_price=None,
        at=from_ms(int(row.get("uTime") or row.get("cTime") or 0)),
    )


def okx_id(client_id: str) -> str:
    """Our id with its 128 bits in base 36: 28 letters and digits."""
    number, digits = int(client_id[3:], 16), ""
    for _ in range(_ID_DIGITS):
        number, digit = divmod(number, len(_DIGITS))
        digits = _DIGITS[digit] + digits
    return client_id[:3] + digits


def our_id(name: str) -> str:
    """The id of ours that a name at okx stands for; any other name as it is."""
    if len(name) != 3 + _ID_DIGITS or not set(name[3:]) <= set(_DIGITS):
        return name
    decoded = f"{name[:3]}{int(name[3:], 36):032x}"
    return decoded if is_ours(decoded) else name
