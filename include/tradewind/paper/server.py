"""The HTTP server: one Starlette application in front of one exchange, on one event loop.

A request is: read to its end, which is near → admitted (weight budget) → authenticated → parsed → the market walked up
to now → handled → committed → answered. Everything between the walk and the hand-over to the store happens without a
pause, so requests never interleave inside the engine. Bad input answers Binance's error; a defect answers 500 with
-1000 and is logged.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, NoReturn, cast

import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route

from tradewind.adapters.http_guard import LARGEST_BODY, BodyTooLarge, GuardedProtocol, whole_body
from tradewind.core.matching_types import Refusal
from tradewind.paper import (
    account_endpoints,
    admin_api,
    amend_endpoints,
    auth,
    futures_endpoints,
    list_endpoints,
    market_endpoints,
    params,
    rules_endpoints,
    ticker_endpoints,
    trade_endpoints,
    wallet_endpoints,
)
from tradewind.paper.dialect import ApiError, refusal
from tradewind.paper.endpoints import ENDPOINTS, Call, Endpoint, Security
from tradewind.paper.exchange import PaperExchange
from tradewind.paper.faults import FaultRule, Faults, distort_candles
from tradewind.paper.limits import RateLimiter, RateLimits
from tradewind.paper.news_feed import feed_app, seed_of
from tradewind.paper.public_feed import RELAYED, PublicFeed
from tradewind.paper.store import PaperStore, SavedState

log = logging.getLogger(__name__)
_REGISTERED = (
    account_endpoints,
    amend_endpoints,
    futures_endpoints,
    list_endpoints,
    market_endpoints,
    rules_endpoints,
    ticker_endpoints,
    trade_endpoints,
    wallet_endpoints,
)
"""Importing these modules fills the table of endpoints."""
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_TRANSPORT: Final = "tradewind.transport"
_HANG_S = 3600.0
_ADVANCE_EVERY_S = 1.0
Wall = Callable[[], int]


def wall_ms() -> int:
    return time.time_ns() // 1_000_000


class Protocol(GuardedProtocol):
    """The guarded HTTP protocol, which also hands its transport to the application: a fault may cut the connection."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        cast(dict[str, Any], self.scope)[_TRANSPORT] = self.transport


class PaperServer:
    """The application. `store` is opened at start-up and the saved state restored from it."""

    def __init__(
        self,
        exchange: PaperExchange,
        admin_token: str,
        limits: RateLimits | None = None,
        store: PaperStore | None = None,
        wall: Wall = wall_ms,
        *,
        own_time: bool = False,
        feed: PublicFeed | None = None,
        admin_from_anywhere: bool = False,
    ) -> None:
        self.feed = feed
        self._admin_from_anywhere = admin_from_anywhere
        self.exchange = exchange
        self.faults = Faults()
        self.limiter = RateLimiter(limits or RateLimits())
        self._admin_token = admin_token
        self._store = store
        self._wall = wall
        self._own_time = own_time

    def app(self) -> Starlette:
        methods = ["GET", "POST", "PUT", "DELETE"]
        rules = self.exchange.market.rules.values()
        news = feed_app(
            lambda: self.exchange.now_ms(self._wall()),
            seed_of(self.exchange.market.identity),
            [f"{rule.base}/{rule.quote}" for rule in rules],
        )
        return Starlette(
            routes=[
                Route("/__admin/{path:path}", self.admin, methods=methods),
                Mount("/__feed", news),
                Route("/{path:path}", self.api, methods=methods),
            ],
            lifespan=self.lifespan,
        )

    @asynccontextmanager
    async def lifespan(self, _: Starlette) -> AsyncIterator[None]:
        saved = SavedState() if self._store is None else await self._store.open()
        self.exchange.restore(saved, self._wall(), own_time=self._own_time)
        await self.exchange.commit()
        tasks = [asyncio.create_task(self._advance_forever())]
        if self.feed is not None:
            await self.feed.poll()
            tasks.append(asyncio.create_task(self.feed.run()))
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if self.feed is not None:
                await self.feed.close()
            if self._store is not None:
                self._store.submit(self.exchange.take_rows())
                await self._store.close()

    async def _advance_forever(self) -> None:
        """Resting orders meet the market without anybody asking."""
        while True:
            await asyncio.sleep(_ADVANCE_EVERY_S)
            try:
                if self.feed is not None:
                    self.feed.judge()
                self.exchange.advance(self.exchange.now_ms(self._wall()))
                await self.exchange.commit()
            except Exception:
                log.exception("the market could not be walked forward; the next attempt is in a second")

    # ------------------------------------------------------------------------------------------------------------- API
    async def api(self, request: Request) -> Response:
        method, path = request.method, request.url.path
        query = request.scope["query_string"].decode("latin-1")
        headers = {"X-Tradewind-Market": self.exchange.market.name}
        try:
            raw = await whole_body(request.scope, request.receive) if method != "GET" else b""
        except BodyTooLarge:
            too_large = {"code": -1000, "msg": f"The body is larger than {LARGEST_BODY} bytes."}
            return _answer(too_large, 413, headers | {"Connection": "close"})
        except ConnectionResetError:
            return Response(status_code=400)  # nobody is there to read it
        body = raw.decode("utf-8", "replace")
        struck: list[FaultRule] = []
        try:
            endpoint = ENDPOINTS.get((method, path))
            if endpoint is None:
                if any(known == path for _, known in ENDPOINTS):
                    return _answer({"code": -1000, "msg": f"Request method '{method}' is not supported."}, 405, headers)
                return _answer({"code": -1000, "msg": f"There is no {path} on this exchange."}, 404, headers)
            sent = params.collect(query, body)
            weight = endpoint.weight if isinstance(endpoint.weight, int) else endpoint.weight(sent)
            # Who knows a key of ours has a budget of its own: what others at the same address send cannot use it up.
            client_id = request.headers.get("x-mbx-apikey", "")
            if client_id not in self.exchange.keys:
                client_id = request.client.host if request.client else ""
            headers["X-MBX-USED-WEIGHT-1M"] = str(self.limiter.spend(client_id, weight, self._wall()))
            headers["X-MBX-USED-WEIGHT"] = headers["X-MBX-USED-WEIGHT-1M"]
            struck = self.faults.struck_by(method, path, sent.get("symbol"))
            if struck:
                early = await self._fault_before(request, struck)
                if early is not None:
                    return early
            if self.feed is not None and endpoint.security is Security.TRADE:
                await self.feed.freshen()
            call, result = self._handle(request, endpoint, sent, query, body, struck)
            if isinstance(result, Awaitable):  # from the database, or from the real exchange
                result = await result
            for rule in struck:
                if rule.action.endswith(("candles", "candle")) and isinstance(result, bytes):
                    result = orjson.dumps(distort_candles(orjson.loads(result), rule))
            headers |= call.headers
            response = _answer(result, call.status, headers)
        except ApiError as error:
            response = _answer(error.body(), error.status, headers | error.headers)
        except Refusal as rejected:
            told = refusal(rejected)
            response = _answer(told.body(), told.status, headers)
        except Exception:
            log.exception("defect in %s %s", method, path)
            response = _answer(
                {"code": -1000, "msg": "An unknown error occurred while processing the request."}, 500, headers
            )
        await self.exchange.commit()
        if struck:
            lost = await self._fault_after(request, struck)
            if lost is not None:
                return lost
        return response

    def _handle(
        self, request: Request, endpoint: Endpoint, sent: dict[str, str], query: str, body: str, struck: list[FaultRule]
    ) -> tuple[Call, Any]:
        wall = self._wall()
        key = None
        if endpoint.security.is_signed:
            key = auth.find_key(request.headers.get("x-mbx-apikey"), self.exchange.keys)
            auth.check_signature(key, sent, query, body, wall)
            if endpoint.security.name == "TRADE":
                auth.require_trading(key)
        elif endpoint.security is Security.KEYED:
            auth.find_key(request.headers.get("x-mbx-apikey"), self.exchange.keys)
        parsed = params.parse(sent, endpoint.params, endpoint.required)
        now = self.exchange.now_ms(wall)
        self.exchange.advance(now)
        call = Call(self.exchange, self.limiter, parsed, wall, now, key)
        for rule in struck:
            if rule.action == "partial_fill":
                call.take_cap_frac = float(rule.options.get("frac", 0.5))
            elif rule.action == "reject_leg":
                call.rejected_leg = int(rule.options.get("leg", 2))
            elif rule.action == "book":
                call.bent_books[str(rule.options.get("of_symbol", "*"))] = rule.bent()
        if self.feed is not None:
            path = request.url.path
            if path in RELAYED:
                return call, self.feed.relay(path, sent)
            if path.startswith("/fapi"):
                raise ApiError(-1000, "This market is spot alone.", 404)
        return call, endpoint.handler(call)

    # ---------------------------------------------------------------------------------------------------------- faults
    async def _fault_before(self, request: Request, struck: list[FaultRule]) -> Response | None:
        for rule in struck:
            if rule.action == "delay":
                await asyncio.sleep(rule.seconds())
            elif rule.action == "command_before":
                await self._command(rule)
            elif rule.action == "refuse":
                return await _cut(request)
            elif rule.action == "restart_before":
                _start_anew()
            elif rule.action == "error_before":
                return _unknown_error(rule)
            elif rule.action == "timeout_before":
                return _timed_out()
            elif rule.action == "rate_limited":
                wait_s = str(rule.options.get("retry_after_s", 1))
                return _answer({"code": -1003, "msg": "Too many requests queued."}, 429, {"Retry-After": wait_s})
            elif rule.action == "banned":
                wait_s = str(rule.options.get("retry_after_s", 120))
                until = self._wall() + int(float(wait_s) * 1000)
                text = f"Way too much request weight used; IP banned until {until}."
                return _answer({"code": -1003, "msg": text}, 418, {"Retry-After": wait_s})
            elif rule.action == "skewed":
                error = ApiError(-1021, "Timestamp for this request is outside of the recvWindow.")
                return _answer(error.body(), error.status, {})
        return None

    async def _fault_after(self, request: Request, struck: list[FaultRule]) -> Response | None:
        for rule in struck:
            if rule.action == "hang_after":
                await asyncio.sleep(float(rule.options.get("seconds", _HANG_S)))
                return await _cut(request)
            if rule.action == "command_after":
                await self._command(rule)
            if rule.action == "drop_after":
                return await _cut(request)
            if rule.action == "restart_after":
                _start_anew()
            if rule.action == "error_after":
                return _unknown_error(rule)
            if rule.action == "timeout_after":
                return _timed_out()
        return None

    async def _command(self, rule: FaultRule) -> None:
        """What the operator does at this very call; one that is refused is a mistake of the rule's author."""
        name, body = str(rule.options["command"]), dict(rule.options.get("body", {}))
        status, answer = await admin_api.handle(self.exchange, self.faults, "POST", f"/__admin/{name}", body)
        if status != 200:
            log.warning("the command of a fault rule was refused: %s %s: %s", name, body, answer)

    # ----------------------------------------------------------------------------------------------------------- admin
    async def admin(self, request: Request) -> Response:
        is_local = request.client is not None and request.client.host in _LOOPBACK
        if not (is_local or self._admin_from_anywhere):
            return _answer({"error": "the admin side answers on the loopback interface only"}, 403, {})
        token = request.headers.get("x-tradewind-admin", "")
        if not self._admin_token or not hmac.compare_digest(token.encode(), self._admin_token.encode()):
            return _answer({"error": "send the admin token in the header X-Tradewind-Admin"}, 401, {})
        raw = await request.body()
        try:
            body = orjson.loads(raw) if raw else {}
        except orjson.JSONDecodeError as error:
            return _answer({"error": f"the body is not JSON: {error}"}, 400, {})
        if not isinstance(body, dict):
            return _answer({"error": "the body must be a JSON object"}, 400, {})
        status, result = await admin_api.handle(self.exchange, self.faults, request.method, request.url.path, body)
        return _answer(result, status, {})


def _answer(body: Any, status: int, headers: dict[str, str]) -> Response:
    content = body if isinstance(body, bytes) else orjson.dumps(body)
    return Response(content, status, headers, media_type="application/json")


def _unknown_error(rule: FaultRule) -> Response:
    body = {"code": -1000, "msg": "An unknown error occurred while processing the request."}
    return _answer(body, int(rule.options.get("status", 502)), {})


def _timed_out() -> Response:
    text = "Timeout waiting for response from backend server. Send status unknown; execution status unknown."
    return _answer({"code": -1007, "msg": text}, 504, {})


def _start_anew() -> NoReturn:
    """End this process at once, as a crash would, and begin again in its place with the same arguments."""
    log.warning("an injected fault restarts the paper exchange")
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


async def _cut(request: Request) -> Response:
    """Close the connection without an answer."""
    transport = request.scope.get(_TRANSPORT)
    if transport is not None:
        transport.abort()
        await asyncio.sleep(0.01)  # the protocol must notice before it would complain about a missing answer
    return Response(status_code=502)
