"""Signed raw requests to the paper exchange: what a client library would hide."""

from __future__ import annotations

import hashlib
import hmac
import time
from decimal import Decimal
from typing import Any
from urllib.parse import urlencode

import httpx

from tradewind.paper.admin import PaperAccount


class RawClient:
    """Sends exactly what it is told, signed like Binance's own examples."""

    def __init__(self, url: str, account: PaperAccount) -> None:
        self.account = account
        self._http = httpx.Client(base_url=url, timeout=30)

    def public(self, path: str, method: str = "GET", **parameters: Any) -> httpx.Response:
        return self._http.request(method, path, params=parameters)

    def signed(
        self,
        method: str,
        path: str,
        *,
        in_body: bool = False,
        secret: str | None = None,
        api_key: str | None = None,
        timestamp: int | None = None,
        **parameters: Any,
    ) -> httpx.Response:
        sent = {**parameters, "timestamp": int(time.time() * 1000) if timestamp is None else timestamp}
        text = urlencode(sent)
        key = (secret or self.account.api_secret).encode()
        text += "&signature=" + hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
        headers = {"X-MBX-APIKEY": self.account.api_key if api_key is None else api_key}
        if in_body:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
            return self._http.request(method, path, content=text, headers=headers)
        return self._http.request(method, f"{path}?{text}", headers=headers)

    def raw(self, method: str, target: str, body: str = "", **headers: str) -> httpx.Response:
        return self._http.request(method, target, content=body, headers=headers)


class Trader(RawClient):
    """A raw client with the few orders that tests place again and again, near the last price."""

    def __init__(self, url: str, account: PaperAccount, symbol: str = "BTCUSDT") -> None:
        super().__init__(url, account)
        self.symbol = symbol

    def at(self, factor: str) -> str:
        """The last price times a factor, on the market's own tick of 0.01."""
        price = Decimal(self.public("/api/v3/klines", symbol=self.symbol, interval="1m", limit=1).json()[0][4])
        return str((price * Decimal(factor)).quantize(Decimal("0.01")))

    def order(self, side: str, kind: str, quantity: str = "0.01", **more: Any) -> dict[str, Any]:
        """The answer to a new order, a refusal included."""
        path = "/api/v3/order"
        sent = {"symbol": self.symbol, "side": side, "type": kind, "quantity": quantity, **more}
        return dict(self.signed("POST", path, **sent).json())

    def limit(self, side: str, factor: str, quantity: str = "0.01", **more: Any) -> dict[str, Any]:
        sent = {"timeInForce": "GTC", "price": self.at(factor), "newOrderRespType": "FULL", **more}
        return self.order(side, "LIMIT", quantity, **sent)

    def bracket(self, quantity: str = "0.01", stop: str = "0.95", target: str = "1.05") -> dict[str, Any]:
        """A target and a stop around coins that are held."""
        return dict(
            self.signed(
                "POST", "/api/v3/orderList/oco", symbol=self.symbol, side="SELL", quantity=quantity,
                aboveType="LIMIT_MAKER", abovePrice=self.at(target), belowType="STOP_LOSS",
                belowStopPrice=self.at(stop),
            ).json()
        )  # fmt: skip

    def found(self, order_id: int) -> dict[str, Any]:
        return dict(self.signed("GET", "/api/v3/order", symbol=self.symbol, orderId=order_id).json())

    def cancel(self, order_id: int) -> dict[str, Any]:
        return dict(self.signed("DELETE", "/api/v3/order", symbol=self.symbol, orderId=order_id).json())

    def held(self, asset: str) -> tuple[Decimal, Decimal]:
        """(free, locked)."""
        rows = self.signed("GET", "/api/v3/account").json()["balances"]
        found = next((row for row in rows if row["asset"] == asset), {"free": "0", "locked": "0"})
        return Decimal(found["free"]), Decimal(found["locked"])
