"""okx and bybit as their public documentation describes them: one spot account, its orders, and a price that is set."""

from __future__ import annotations

import itertools
import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.support.http_server import Answer, Request

D = Decimal
ZERO = D(0)
FEE_FRAC = D("0.001")


@dataclass
class Rested:
    """One order of the account: `entry` and the like at once, `guard` one that waits for a stop or a target price."""

    number: int
    client_id: str
    is_buy: bool
    quantity: Decimal
    price: Decimal | None = None
    stop: Decimal | None = None
    target: Decimal | None = None
    is_guard: bool = False
    state: str = "open"  # open, filled, cancelled
    filled: Decimal = ZERO
    hit: str = ""  # sl or tp, once a guard was triggered
    guard: dict[str, Any] = field(default_factory=dict)  # what an entry brings along
    parent: int = 0  # of the order that a triggered guard placed, where it is one of its own


class Venue:
    """Fills what crosses the price, keeps balances exact, and places what is attached once its entry has filled."""

    def __init__(self, **balances: str) -> None:
        self.balances = {asset: D(amount) for asset, amount in balances.items()}
        self.price = D("50000")
        self.orders: list[Rested] = []
        self.fills: list[dict[str, Any]] = []
        self.now_ms: Callable[[], int] = lambda: 0
        self.losing: set[str] = set()  # paths whose answer is lost after they were carried out
        self.attaches = True
        self.tick, self.lot, self.least = D("0.01"), D("0.00000001"), ZERO  # each exchange sets its own
        self._numbers = itertools.count(1001)

    def new(self, **what: Any) -> Rested:
        order = Rested(next(self._numbers), **what)
        self.orders.append(order)
        return order

    def by(self, test: Callable[[Rested], bool]) -> list[Rested]:
        return [order for order in self.orders if test(order)]

    def free(self, asset: str) -> Decimal:
        held = [o.quantity for o in self.orders if o.is_guard and o.state == "open"] if asset == "BTC" else []
        return self.balances.get(asset, ZERO) - sum(held, ZERO)

    def fits(self, quantity: str, *prices: str | None) -> bool:
        """Does an order keep to the market's lot and tick, and is it large enough?"""
        on_ticks = all(D(price) % self.tick == 0 for price in prices if price is not None)
        return on_ticks and D(quantity) % self.lot == 0 and D(quantity) >= max(self.least, self.lot)

    def enter(self, order: Rested) -> None:
        """Fill or kill, or at the market."""
        crosses = order.price is None or (order.price >= self.price if order.is_buy else order.price <= self.price)
        if not crosses:
            order.state = "cancelled"
            return
        self._execute(order, order.quantity)
        if order.guard and self.attaches:
            held = (order.quantity * (1 - FEE_FRAC)).quantize(self.lot, rounding="ROUND_DOWN")
            self.new(is_buy=False, quantity=held, is_guard=True, **order.guard)

    def _execute(self, order: Rested, quantity: Decimal, *, as_order: int | None = None) -> None:
        quote = quantity * self.price
        sign = 1 if order.is_buy else -1
        fee_asset, fee = ("BTC", quantity * FEE_FRAC) if order.is_buy else ("USDT", quote * FEE_FRAC)
        for asset, moved in (("BTC", sign * quantity), ("USDT", -sign * quote), (fee_asset, -fee)):
            self.balances[asset] = self.balances.get(asset, ZERO) + moved
        order.filled += quantity
        order.state = "filled"
        self.fills.append(
            {
                "number": next(self._numbers), "order": order, "as_order": as_order or order.number,
                "quantity": quantity, "price": self.price, "fee": fee, "fee_asset": fee_asset, "ms": self.now_ms(),
            }
        )  # fmt: skip

    def move(self, price: str) -> None:
        """Set the price and trigger what waits for it."""
        self.price = D(price)
        for guard in self.by(lambda o: o.is_guard and o.state == "open"):
            if guard.stop is not None and self.price <= guard.stop:
                guard.hit = "sl"
            elif guard.target is not None and self.price >= guard.target:
                guard.hit = "tp"
            if guard.hit:
                self._execute(guard, guard.quantity, as_order=guard.parent or None)


def _text(value: Decimal | None) -> str:
    return "" if value is None else format(value, "f")


class Dialect(ABC):
    """One exchange's way of saying it; subclasses answer (path, parameters) with their content."""

    GRID: tuple[str, str, str]  # tick, lot and least quantity

    def __init__(self, venue: Venue) -> None:
        self.venue = venue
        venue.tick, venue.lot, venue.least = map(D, self.GRID)
        self.seen: list[tuple[str, Any]] = []

    def __call__(self, request: Request) -> Answer:
        parts = urlsplit(request.path)
        query: Any = {name: values[0] for name, values in parse_qs(parts.query).items()}
        if request.method == "POST":
            query = json.loads(request.body or b"{}")
            self.seen.append((parts.path, query))
        content = self.answer(parts.path, query)
        if parts.path in self.venue.losing:
            self.venue.losing.discard(parts.path)
            return Answer(502, b"bad gateway")
        return Answer(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    @abstractmethod
    def answer(self, path: str, query: Any) -> Any:
        """The content of the answer, JSON-able."""


class Okx(Dialect):
    """Algo orders apart from orders; a triggered one places an order of its own."""

    LEVEL = "1"
    GRID = ("0.1", "0.00000001", "0.00001")
    INSTRUMENT = {  # noqa: RUF012
        "alias": "", "baseCcy": "BTC", "category": "1", "ctMult": "", "ctType": "", "ctVal": "", "ctValCcy": "",
        "expTime": "", "instFamily": "", "instId": "BTC-USDT", "instType": "SPOT", "lever": "10",
        "listTime": "1611907686000", "lotSz": "0.00000001", "maxLmtAmt": "20000000", "maxLmtSz": "9999999999",
        "maxMktAmt": "1000000", "maxMktSz": "1000000", "minSz": "0.00001", "optType": "", "quoteCcy": "USDT",
        "settleCcy": "", "groupId": "1", "state": "live", "stk": "", "tickSz": "0.1", "uly": "",
    }  # fmt: skip

    def answer(self, path: str, query: Any) -> Any:
        name = path.removeprefix("/api/v5/").replace("-", "_").replace("/", "_")
        done = getattr(self, name)(query)
        return done if isinstance(done, dict) else {"code": "0", "msg": "", "data": done}

    def _refuse(self, code: str, message: str) -> dict[str, Any]:
        row = {"clOrdId": "", "ordId": "", "sCode": code, "sMsg": message, "tag": ""}
        return {"code": "1", "msg": "", "data": [row]}

    def _unknown(self) -> dict[str, Any]:
        return {"code": "51603", "msg": "Order does not exist", "data": []}

    def public_instruments(self, _: Any) -> Any:
        return [self.INSTRUMENT]

    def public_time(self, _: Any) -> Any:
        return [{"ts": str(self.venue.now_ms())}]

    def market_tickers(self, _: Any) -> Any:
        price = _text(self.venue.price)
        row = dict.fromkeys(("last", "askPx", "bidPx", "open24h", "high24h", "low24h", "sodUtc0", "sodUtc8"), price)
        return [row | {"instType": "SPOT", "instId": "BTC-USDT", "lastSz": "1", "askSz": "1", "bidSz": "1",
                       "volCcy24h": "1", "vol24h": "1", "ts": str(self.venue.now_ms())}]  # fmt: skip

    def account_config(self, _: Any) -> Any:
        return [{"acctLv": self.LEVEL, "perm": "read_only,trade", "ip": "203.0.113.7", "uid": "1"}]

    def account_trade_fee(self, query: Any) -> Any:
        assert query == {"instType": "SPOT", "instId": "BTC-USDT"}
        rates = {"maker": "-0.0008", "taker": _text(-FEE_FRAC)}
        return [
            {
                "category": "", "delivery": "", "exercise": "", "instType": "SPOT", "isSpecial": "0", "level": "Lv1",
                "makerU": "", "takerU": "", "makerUSDC": "", "takerUSDC": "", "ruleType": "normal", "fiat": [],
                "feeGroup": [{"groupId": "1", **rates}], "ts": "1", **rates,
            }
        ]  # fmt: skip

    def account_balance(self, _: Any) -> Any:
        rows = [
            {"ccy": asset, "cashBal": _text(total), "availBal": _text(self.venue.free(asset)), "frozenBal": "0"}
            for asset, total in self.venue.balances.items()
        ]
        return [{"details": rows, "totalEq": "", "uTime": "1"}]

    def trade_order(self, query: Any) -> Any:
        venue = self.venue
        if "sz" not in query:
            return self._one(query)
        if venue.by(lambda o: o.client_id == query["clOrdId"]):
            return self._refuse("51016", "Duplicated client order ID")
        pairs = [pair[name] for pair in query.get("attachAlgoOrds", ()) for name in ("slTriggerPx", "tpTriggerPx")]
        if not venue.fits(query["sz"], query.get("px"), *pairs):
            return self._refuse("51121", "Order quantity must be a multiple of the lot size")
        order = venue.new(
            client_id=query["clOrdId"], is_buy=query["side"] == "buy", quantity=D(query["sz"]),
            price=D(query["px"]) if "px" in query else None,
        )  # fmt: skip
        if not order.is_buy and order.quantity > venue.free("BTC"):
            venue.orders.remove(order)
            return self._refuse("51008", "Order failed. Insufficient balance")
        for pair in query.get("attachAlgoOrds", ()):
            order.guard = {
                "client_id": pair["attachAlgoClOrdId"],
                "stop": D(pair["slTriggerPx"]),
                "target": D(pair["tpTriggerPx"]),
                "parent": 900_000 + order.number,
            }
        venue.enter(order)
        return [{"clOrdId": query["clOrdId"], "ordId": str(order.number), "sCode": "0", "sMsg": "", "tag": ""}]

    def _one(self, query: Any) -> Any:
        for order in self.venue.orders:
            placed = order.parent if order.is_guard and order.hit else 0
            if not order.is_guard and query.get("clOrdId") == order.client_id:
                return [self._row(order)]
            if query.get("ordId") in (str(placed or -1), "" if order.is_guard else str(order.number)):
                return [self._row(order)]
        return self._unknown()

    def _row(self, order: Rested) -> dict[str, Any]:
        row = {
            "instId": "BTC-USDT", "instType": "SPOT", "ordId": str(order.number), "clOrdId": order.client_id,
            "side": "buy" if order.is_buy else "sell", "ordType": "market" if order.price is None else "fok",
            "px": _text(order.price), "sz": _text(order.quantity), "accFillSz": _text(order.filled), "algoId": "",
            "algoClOrdId": "", "state": {"open": "live", "filled": "filled", "cancelled": "canceled"}[order.state],
            "cTime": str(self.venue.now_ms()), "uTime": str(self.venue.now_ms()),
        }  # fmt: skip
        if order.is_guard:
            row |= {"ordId": str(order.parent), "clOrdId": "", "algoId": str(order.number),
                    "algoClOrdId": order.client_id}  # fmt: skip
        return row

    def trade_order_algo(self, query: Any) -> Any:
        if "sz" not in query:
            found = self.venue.by(
                lambda o: (
                    o.is_guard and (o.client_id == query.get("algoClOrdId") or str(o.number) == query.get("algoId"))
                )
            )
            return [self._algo(found[0])] if found else self._unknown()
        if not self.venue.fits(query["sz"], query["slTriggerPx"], query["tpTriggerPx"]):
            return self._refuse("51121", "Order quantity must be a multiple of the lot size")
        if D(query["slTriggerPx"]) >= self.venue.price:
            return self._refuse("51280", "SL trigger price can not be higher than the last price")
        if D(query["sz"]) > self.venue.free("BTC"):
            return self._refuse("51008", "Order failed. Insufficient balance")
        order = self.venue.new(
            client_id=query["algoClOrdId"], is_buy=False, quantity=D(query["sz"]), is_guard=True,
            stop=D(query["slTriggerPx"]), target=D(query["tpTriggerPx"]),
        )  # fmt: skip
        order.parent = 900_000 + order.number
        return [{"algoId": str(order.number), "algoClOrdId": order.client_id, "sCode": "0", "sMsg": ""}]

    def _algo(self, order: Rested) -> dict[str, Any]:
        return {
            "algoId": str(order.number), "algoClOrdId": order.client_id, "instId": "BTC-USDT", "instType": "SPOT",
            "ordType": "oco", "side": "sell", "sz": _text(order.quantity), "slTriggerPx": _text(order.stop),
            "tpTriggerPx": _text(order.target), "actualSide": order.hit, "cTime": str(self.venue.now_ms()),
            "ordIdList": [str(order.parent)] if order.hit else [], "ordId": "",
            "state": "effective" if order.hit else {"open": "live", "cancelled": "canceled"}[order.state],
        }  # fmt: skip

    def trade_cancel_algos(self, query: Any) -> Any:
        for wanted in query:
            for order in self.venue.by(lambda o: o.is_guard and str(o.number) == wanted["algoId"]):  # noqa: B023
                order.state = "cancelled" if order.state == "open" else order.state
        return [{"algoId": wanted["algoId"], "sCode": "0", "sMsg": ""} for wanted in query]

    def trade_cancel_order(self, query: Any) -> Any:
        return self._refuse("51400", "Cancellation failed as the order does not exist.")

    def trade_orders_pending(self, _: Any) -> Any:
        return [self._row(o) for o in self.venue.by(lambda o: not o.is_guard and o.state == "open")]

    def trade_orders_algo_pending(self, query: Any) -> Any:
        rows = self.venue.by(lambda o: o.is_guard and o.state == "open")
        return [self._algo(order) for order in rows] if query["ordType"] == "oco" else []

    def trade_fills(self, query: Any) -> Any:
        return [
            {
                "instId": "BTC-USDT", "instType": "SPOT", "tradeId": str(fill["number"]), "billId": str(fill["number"]),
                "ordId": str(fill["as_order"]), "clOrdId": "" if fill["order"].is_guard else fill["order"].client_id,
                "fillPx": _text(fill["price"]), "fillSz": _text(fill["quantity"]), "fee": _text(-fill["fee"]),
                "feeCcy": fill["fee_asset"], "side": "buy" if fill["order"].is_buy else "sell", "execType": "T",
                "ts": str(fill["ms"]),
            }
            for fill in reversed(self.venue.fills)
            if fill["ms"] >= int(query["begin"])
        ]  # fmt: skip

    trade_fills_history = trade_fills


class Bybit(Dialect):
    """One kind of order for everything; attached pairs carry no id of ours."""

    GRID = ("0.01", "0.000001", "0.000048")

    INSTRUMENT = {  # noqa: RUF012
        "symbol": "BTCUSDT", "baseCoin": "BTC", "quoteCoin": "USDT", "innovation": "0", "status": "Trading",
        "marginTrading": "both", "priceFilter": {"tickSize": "0.01"},
        "lotSizeFilter": {
            "basePrecision": "0.000001", "quotePrecision": "0.00000001", "minOrderQty": "0.000048",
            "maxOrderQty": "71.73956243", "minOrderAmt": "1", "maxOrderAmt": "4000000",
        },
    }  # fmt: skip

    def answer(self, path: str, query: Any) -> Any:
        name = path.removeprefix("/v5/").replace("-", "_").replace("/", "_")
        done = getattr(self, name)(query)
        if isinstance(done, tuple):
            return {"retCode": done[0], "retMsg": done[1], "result": {}, "retExtInfo": {}, "time": self.venue.now_ms()}
        result = done if isinstance(done, dict) else {"list": done, "category": "spot", "nextPageCursor": ""}
        return {"retCode": 0, "retMsg": "OK", "result": result, "retExtInfo": {}, "time": self.venue.now_ms()}

    def market_instruments_info(self, _: Any) -> Any:
        return [self.INSTRUMENT]

    def market_time(self, _: Any) -> Any:
        return {"timeSecond": str(self.venue.now_ms() // 1000), "timeNano": str(self.venue.now_ms() * 1_000_000)}

    def market_tickers(self, _: Any) -> Any:
        price = _text(self.venue.price)
        names = ("bid1Price", "ask1Price", "lastPrice", "prevPrice24h", "highPrice24h", "lowPrice24h")
        amounts = dict.fromkeys(("bid1Size", "ask1Size", "turnover24h", "volume24h"), "1")
        return [dict.fromkeys(names, price) | amounts | {"symbol": "BTCUSDT", "price24hPcnt": "0"}]

    def account_fee_rate(self, query: Any) -> Any:
        assert query == {"category": "spot", "symbol": "BTCUSDT"}
        return [{"symbol": "BTCUSDT", "takerFeeRate": _text(FEE_FRAC), "makerFeeRate": "0.0008"}]

    def user_query_api(self, _: Any) -> Any:
        return {"readOnly": 0, "ips": ["203.0.113.7"], "permissions": {"Spot": ["SpotTrade"], "Wallet": []}}

    def account_wallet_balance(self, _: Any) -> Any:
        coins = [
            {"coin": asset, "walletBalance": _text(total), "locked": _text(total - self.venue.free(asset))}
            for asset, total in self.venue.balances.items()
        ]
        return [{"accountType": "UNIFIED", "coin": coins}]

    def order_create(self, query: Any) -> Any:
        venue = self.venue
        if venue.by(lambda o: o.client_id == query["orderLinkId"]):
            return 170141, "Duplicate clientOrderId"
        if not venue.fits(query["qty"], *(query.get(n) for n in ("price", "triggerPrice", "stopLoss", "takeProfit"))):
            return 170137, "Order quantity has too many decimals."
        is_buy, quantity = query["side"] == "Buy", D(query["qty"])
        if not is_buy and quantity > venue.free("BTC"):
            return 170131, "Insufficient balance."
        order = venue.new(
            client_id=query["orderLinkId"], is_buy=is_buy, quantity=quantity,
            price=D(query["price"]) if "price" in query else None,
        )  # fmt: skip
        if query.get("orderFilter") == "tpslOrder":
            order.is_guard, order.stop = True, D(query["triggerPrice"])
        else:
            if "stopLoss" in query:
                order.guard = {"client_id": "", "stop": D(query["stopLoss"]), "target": D(query["takeProfit"])}
            venue.enter(order)
        return {"orderId": str(order.number), "orderLinkId": order.client_id}

    def order_cancel(self, query: Any) -> Any:
        found = self._found(query)
        if not found or found[0].state != "open":
            return 170213, "Order does not exist."
        found[0].state = "cancelled"
        return {"orderId": str(found[0].number), "orderLinkId": found[0].client_id}

    def _found(self, query: Any) -> list[Rested]:
        if "orderId" in query:
            return self.venue.by(lambda o: str(o.number) == query["orderId"])
        return self.venue.by(lambda o: o.client_id == query["orderLinkId"])

    def order_realtime(self, query: Any) -> Any:
        if "orderId" in query or "orderLinkId" in query:
            return [self._row(order) for order in self._found(query)]
        return [self._row(order) for order in self.venue.by(lambda o: o.state == "open")]

    order_history = order_realtime

    def _row(self, order: Rested) -> dict[str, Any]:
        is_pair = order.is_guard and order.target is not None
        states = {"open": "Untriggered" if order.is_guard else "New", "filled": "Filled", "cancelled": "Cancelled"}
        return {
            "orderId": str(order.number), "orderLinkId": order.client_id, "symbol": "BTCUSDT",
            "side": "Buy" if order.is_buy else "Sell", "orderType": "Market" if order.price is None else "Limit",
            "qty": _text(order.quantity), "price": _text(order.price), "cumExecQty": _text(order.filled),
            "orderStatus": states[order.state], "avgPrice": _text(self.venue.price) if order.filled else "",
            "takeProfit": _text(order.target) if is_pair else "", "stopLoss": _text(order.stop) if is_pair else "",
            "triggerPrice": _text(order.stop) if order.is_guard and not is_pair else "",
            "ocoTriggerBy": {"": "OcoTriggerByUnknown", "sl": "OcoTriggerByBySl", "tp": "OcoTriggerByTp"}[order.hit],
            "createdTime": str(self.venue.now_ms()), "updatedTime": str(self.venue.now_ms()),
        }  # fmt: skip

    def execution_list(self, query: Any) -> Any:
        if int(query["endTime"]) - int(query["startTime"]) > 7 * 86_400_000:
            return 10001, "The time range between startTime and endTime cannot exceed 7 days"
        return [
            {
                "symbol": "BTCUSDT", "orderId": str(fill["as_order"]), "orderLinkId": fill["order"].client_id,
                "side": "Buy" if fill["order"].is_buy else "Sell", "execId": str(fill["number"]), "execType": "Trade",
                "execQty": _text(fill["quantity"]), "execPrice": _text(fill["price"]), "execFee": _text(fill["fee"]),
                "feeCurrency": fill["fee_asset"], "isMaker": False, "execTime": str(fill["ms"]),
            }
            for fill in reversed(self.venue.fills)
            if int(query["startTime"]) <= fill["ms"] <= int(query["endTime"])
        ]  # fmt: skip
