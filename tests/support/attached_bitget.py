"""bitget's spot side as its public documentation describes it: orders, and plan orders that hold no coins."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

from tests.support.attached import D, Dialect, Rested, _text
from tests.support.http_server import Answer, Request

STATES = {"open": "live", "filled": "filled", "cancelled": "cancelled"}


class Bitget(Dialect):
    """Refusals come as 400 with a code; a triggered plan order places an order under an id of bitget's own."""

    GRID = ("0.01", "0.000001", "0")
    INSTRUMENT = {  # noqa: RUF012
        "symbol": "BTCUSDT", "baseCoin": "BTC", "quoteCoin": "USDT", "minTradeAmount": "0",
        "maxTradeAmount": "900000000000000000000", "takerFeeRate": "0.002", "makerFeeRate": "0.002",
        "pricePrecision": "2", "quantityPrecision": "6", "quotePrecision": "8", "status": "online",
        "minTradeUSDT": "1", "buyLimitPriceRatio": "0.05", "sellLimitPriceRatio": "0.05", "areaSymbol": "no",
        "orderQuantity": "200", "openTime": "1532454360000", "offTime": "",
    }  # fmt: skip

    def __call__(self, request: Request) -> Answer:
        answer = super().__call__(request)
        refused = answer.status == 200 and json.loads(answer.body)["code"] != "00000"
        return Answer(400, answer.body, answer.headers) if refused else answer

    def answer(self, path: str, query: Any) -> Any:
        name = path.removeprefix("/api/v2/").replace("-", "_").replace("/", "_")
        done = getattr(self, name)(query)
        code, message, data = done if isinstance(done, tuple) else ("00000", "success", done)
        return {"code": code, "msg": message, "requestTime": self.venue.now_ms(), "data": data}

    def free(self, asset: str) -> Decimal:
        return self.venue.balances.get(asset, D(0))

    # -------------------------------------------------------------------------------------------------------- public
    def spot_public_symbols(self, _: Any) -> Any:
        return [self.INSTRUMENT]

    def margin_currencies(self, _: Any) -> Any:
        return []

    def public_time(self, _: Any) -> Any:
        return {"serverTime": str(self.venue.now_ms())}

    def spot_market_tickers(self, _: Any) -> Any:
        price = _text(self.venue.price)
        names = ("open", "high24h", "low24h", "lastPr", "bidPr", "askPr", "openUtc")
        amounts = dict.fromkeys(("quoteVolume", "baseVolume", "usdtVolume", "bidSz", "askSz"), "1")
        told = {"symbol": "BTCUSDT", "ts": str(self.venue.now_ms()), "changeUtc24h": "0", "change24h": "0"}
        return [dict.fromkeys(names, price) | amounts | told]

    def common_trade_rate(self, query: Any) -> Any:
        assert query == {"symbol": "BTCUSDT", "businessType": "spot"}
        return {"makerFeeRate": "0.0008", "takerFeeRate": "0.001"}

    # -------------------------------------------------------------------------------------------------------- orders
    def spot_trade_place_order(self, query: Any) -> Any:
        if self.venue.by(lambda o: o.client_id == query["clientOid"]):
            return "40786", "Duplicate clientOid", None
        if not self.venue.fits(query["size"], query.get("price")):
            return "40808", "Parameter verification exception size checkScale", None
        is_buy, quantity = query["side"] == "buy", D(query["size"])
        if not is_buy and quantity > self.free("BTC"):
            return "43012", "Insufficient balance", None
        price = D(query["price"]) if query["orderType"] == "limit" else None
        order = self.venue.new(client_id=query["clientOid"], is_buy=is_buy, quantity=quantity, price=price)
        self.venue.enter(order)
        return {"orderId": str(order.number), "clientOid": order.client_id}

    def spot_trade_place_plan_order(self, query: Any) -> Any:
        if self.venue.by(lambda o: o.client_id == query["clientOid"]):
            return "40786", "Duplicate clientOid", None
        if not self.venue.fits(query["size"], query["triggerPrice"]):
            return "40808", "Parameter verification exception size checkScale", None
        assert (query["planType"], query["triggerType"], query["orderType"]) == ("amount", "fill_price", "market")
        order = self.venue.new(
            client_id=query["clientOid"], is_buy=query["side"] == "buy", quantity=D(query["size"]), is_guard=True,
            stop=D(query["triggerPrice"]),
        )  # fmt: skip
        order.parent = 900_000 + order.number
        return {"orderId": str(order.number), "clientOid": order.client_id}

    def spot_trade_cancel_order(self, _: Any) -> Any:
        return "43001", "The order does not exist", None

    def spot_trade_cancel_plan_order(self, query: Any) -> Any:
        found = self.venue.by(lambda o: o.is_guard and o.client_id == query["clientOid"] and o.state == "open")
        if not found:
            return "43025", "Plan order does not exist", None
        found[0].state = "cancelled"
        return {"result": "success"}

    def spot_trade_orderInfo(self, query: Any) -> Any:
        for order in self.venue.orders:
            number = order.parent if order.is_guard and order.hit else 0 if order.is_guard else order.number
            by_name = not order.is_guard and query.get("clientOid") == order.client_id
            if by_name or (number and query.get("orderId") == str(number)):
                return [self._row(order, number)]
        return []

    def _row(self, order: Rested, number: int) -> dict[str, Any]:
        return {
            "userId": "1", "symbol": "BTCUSDT", "orderId": str(number),
            "clientOid": f"sys-{number}" if order.is_guard else order.client_id, "price": _text(order.price) or "0",
            "size": _text(order.quantity), "orderType": "market" if order.price is None else "limit",
            "side": "buy" if order.is_buy else "sell", "status": STATES[order.state],
            "priceAvg": _text(self.venue.price) if order.filled else "0", "baseVolume": _text(order.filled),
            "quoteVolume": "0", "enterPointSource": "API", "orderSource": "normal", "tpslType": "normal",
            "triggerPrice": None, "cTime": str(self.venue.now_ms()), "uTime": str(self.venue.now_ms()),
        }  # fmt: skip

    def spot_trade_unfilled_orders(self, query: Any) -> Any:
        rows = self.venue.by(lambda o: not o.is_guard and o.state == "open")
        return [self._row(order, order.number) for order in rows] if query["tpslType"] == "normal" else []

    # --------------------------------------------------------------------------------------------------- plan orders
    def spot_trade_current_plan_order(self, query: Any) -> Any:
        return self._plans(query, lambda o: o.state == "open")

    def spot_trade_history_plan_order(self, query: Any) -> Any:
        assert int(query["endTime"]) - int(query["startTime"]) <= 90 * 86_400_000
        return self._plans(query, lambda o: o.state != "open")

    def _plans(self, query: Any, test: Any) -> Any:
        before = int(query.get("idLessThan", 10**9))
        found = self.venue.by(lambda o: o.is_guard and test(o) and o.number < before)[::-1]
        page = found[: int(query["limit"])]
        last = str(page[-1].number) if page else ""
        return {
            "nextFlag": len(found) > len(page),
            "idLessThan": last,
            "orderList": [self._plan(order) for order in page],
        }

    def _plan(self, order: Rested) -> dict[str, Any]:
        states = {"open": "live", "filled": "executed", "cancelled": "cancelled"}
        return {
            "orderId": str(order.number), "clientOid": order.client_id, "symbol": "BTCUSDT",
            "size": _text(order.quantity), "executePrice": "0", "triggerPrice": _text(order.stop),
            "status": states.get(order.state, order.state), "orderType": "market",
            "side": "buy" if order.is_buy else "sell", "planType": "amount", "triggerType": "fill_price",
            "enterPointSource": "API", "cTime": str(self.venue.now_ms()), "uTime": str(self.venue.now_ms()),
        }  # fmt: skip

    def spot_trade_plan_sub_order(self, query: Any) -> Any:
        found = self.venue.by(lambda o: str(o.number) == query["planOrderId"] and bool(o.hit))
        return [{"orderId": str(o.parent), "price": "0", "type": "market", "status": "success"} for o in found]

    # ------------------------------------------------------------------------------------------------------- account
    def spot_trade_fills(self, query: Any) -> Any:
        assert int(query["endTime"]) - int(query["startTime"]) <= 90 * 86_400_000
        return [
            {
                "userId": "1", "symbol": "BTCUSDT", "orderId": str(fill["as_order"]), "tradeId": str(fill["number"]),
                "orderType": "market", "side": "buy" if fill["order"].is_buy else "sell",
                "priceAvg": _text(fill["price"]), "size": _text(fill["quantity"]), "amount": "0",
                "feeDetail": {
                    "deduction": "no", "feeCoin": fill["fee_asset"], "totalDeductionFee": "",
                    "totalFee": _text(-fill["fee"]),
                },
                "tradeScope": "taker", "cTime": str(fill["ms"]), "uTime": str(fill["ms"]),
            }
            for fill in reversed(self.venue.fills)
            if int(query["startTime"]) <= fill["ms"] <= int(query["endTime"])
        ]  # fmt: skip

    def spot_account_assets(self, _: Any) -> Any:
        return [
            {
                "coin": asset,
                "available": _text(total),
                "frozen": "0",
                "locked": "0",
                "limitAvailable": "0",
                "uTime": "1",
            }
            for asset, total in self.venue.balances.items()
        ]
