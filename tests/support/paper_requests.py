"""Signed raw requests to the paper exchange: what a client library would hide."""

from __future__ import annotations

import hashlib
import hmac
import time
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
