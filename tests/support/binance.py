"""Binance, spot and futures, in the form of its public documentation: what a test sets is what it answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.support.http_server import Answer, Request

CONTRACT = {
    "marginAsset": "USDT", "contractType": "PERPETUAL", "deliveryDate": 4_133_404_800_000,
    "onboardDate": 1_569_398_400_000,
}  # fmt: skip


class Market:
    """Binance, spot and futures, in the form of its documentation: what each test sets is what it answers."""

    def __init__(self) -> None:
        self.statuses = {"BTCUSDT": "TRADING", "ETHUSDT": "TRADING", "XRPUSDT": "TRADING"}
        self.books: dict[str, tuple[Any, Any]] = {}
        self.tick = "0.01000000"
        self.is_down = False
        self.refusal: tuple[int, str] | None = None
        self.asked: list[str] = []
        # By method and the last part of the path: parameters to content, or to a refusal's code and words.
        self.answers: dict[tuple[str, str], Callable[[Mapping[str, str]], Any]] = {}
        self.schedule: list[dict[str, Any]] = []
        self.fees = {"maker": "0.00100000", "taker": "0.00100000"}

    def __call__(self, request: Request) -> Answer:
        parts = urlsplit(request.path)
        name = parts.path.rpartition("/")[2]
        self.asked.append(name)
        self.contract = CONTRACT if parts.path.startswith("/fapi") else {}
        sent = parts.query or request.body.decode()
        query = {key: values[0] for key, values in parse_qs(sent).items()}
        if self.is_down:
            return Answer(502, b"bad gateway")
        if (request.method, name) in self.answers:
            content = self.answers[request.method, name](query)
            return self._refuse(*content) if isinstance(content, tuple) else self._content(content)
        if request.method == "POST" and self.refusal is not None:
            return self._refuse(*self.refusal)
        wanted = [query["symbol"]] if "symbol" in query else json.loads(query.get("symbols", "[]"))
        if any(symbol not in self.statuses for symbol in wanted):
            return self._refuse(-1121, "Invalid symbol.")
        known = {
            "exchangeInfo": self._info, "bookTicker": self._books, "openOrders": self._orders,
            "commission": self._commission, "commissionRate": self._commission_rate,
            "delist-schedule": lambda _: self.schedule,
        }  # fmt: skip
        return self._content(known[name](wanted))

    def _content(self, content: Any) -> Answer:
        return Answer(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def _refuse(self, code: int, words: str) -> Answer:
        body = json.dumps({"code": code, "msg": words}).encode()
        return Answer(400, body, {"Content-Type": "application/json"})

    def _info(self, wanted: Sequence[str]) -> Any:
        rows = [self._row(symbol) for symbol in wanted or self.statuses]
        limit = {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": 6000}
        return {"timezone": "UTC", "serverTime": 1, "rateLimits": [limit], "exchangeFilters": [], "symbols": rows}

    def _row(self, symbol: str) -> Any:
        base = symbol.removesuffix("USDT")
        return {
            "symbol": symbol, "status": self.statuses[symbol], "baseAsset": base, "quoteAsset": "USDT",
            "permissions": ["SPOT"], "isSpotTradingAllowed": True, "ocoAllowed": True, "otoAllowed": True,
            "orderTypes": ["LIMIT"], **self.contract,
            "filters": [
                {"filterType": "PRICE_FILTER", "minPrice": "0.01", "maxPrice": "1000000.00", "tickSize": self.tick},
                {"filterType": "LOT_SIZE", "minQty": "0.00001", "maxQty": "9000.0", "stepSize": "0.00001"},
                {"filterType": "MARKET_LOT_SIZE", "minQty": "0.0", "maxQty": "115.5", "stepSize": "0.0"},
                {"filterType": "NOTIONAL", "minNotional": "5.0", "applyMinToMarket": True},
            ],
        }  # fmt: skip

    def _books(self, wanted: Sequence[str]) -> Any:
        return [
            {"symbol": symbol, "bidPrice": bid, "bidQty": "1", "askPrice": ask, "askQty": "1"}
            for symbol in wanted or self.statuses
            for bid, ask in [self.books.get(symbol, ("99.90", "100.10"))]
        ]

    def _commission(self, wanted: Sequence[str]) -> Any:
        none = dict.fromkeys(("maker", "taker", "buyer", "seller"), "0.00000000")
        return {
            "symbol": wanted[0], "standardCommission": none | self.fees, "specialCommission": none,
            "taxCommission": none,
            "discount": {
                "enabledForAccount": True, "enabledForSymbol": True, "discountAsset": "BNB", "discount": "0.75000000",
            },
        }  # fmt: skip

    def _commission_rate(self, wanted: Sequence[str]) -> Any:
        rates = {"makerCommissionRate": self.fees["maker"], "takerCommissionRate": self.fees["taker"]}
        return {"symbol": wanted[0], **rates, "rpiCommissionRate": "0.00000000"}

    def _orders(self, wanted: Sequence[str]) -> Any:
        return [
            {
                "symbol": symbol, "orderId": 1, "clientOrderId": f"of-{symbol}", "price": "1.0", "origQty": "1.0",
                "executedQty": "0.0", "status": "NEW", "type": "LIMIT", "side": "BUY", "stopPrice": "0.0", "time": 1,
            }
            for symbol in wanted
        ]  # fmt: skip
