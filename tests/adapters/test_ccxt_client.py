"""What leaves the client, and what an exchange's answers become, over real HTTP."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

import ccxt
import pytest
import redis

from tests.support.http_server import Answer, Request, serving
from tradewind.adapters.ccxt_client import CcxtClient, ClientConfig
from tradewind.adapters.ccxt_factory import build_exchange
from tradewind.errors import (
    AuthenticationFailed,
    BadInput,
    ClockSkewed,
    ExchangeUnreachable,
    InsufficientBalance,
    NotSupported,
    OrderRejected,
    OutcomeUnknown,
    RateLimited,
    TradewindError,
    UnknownSymbol,
)

SECRET = "the-secret-itself"
KEY = "the-key-itself"
SYMBOL = {
    "symbol": "BTCUSDT", "status": "TRADING", "baseAsset": "BTC", "baseAssetPrecision": 8, "quoteAsset": "USDT",
    "quotePrecision": 8, "quoteAssetPrecision": 8, "orderTypes": ["LIMIT"], "icebergAllowed": True, "ocoAllowed": True,
    "otoAllowed": True, "opoAllowed": False, "isSpotTradingAllowed": True, "isMarginTradingAllowed": False,
    "permissions": ["SPOT"], "permissionSets": [["SPOT"]],
    "filters": [
        {"filterType": "PRICE_FILTER", "minPrice": "0.01000000", "maxPrice": "1000000.00", "tickSize": "0.01000000"},
        {"filterType": "LOT_SIZE", "minQty": "0.00001000", "maxQty": "9000.00000000", "stepSize": "0.00001000"},
        {"filterType": "NOTIONAL", "minNotional": "5.00000000", "applyMinToMarket": True},
    ],
}  # fmt: skip
INFO = {
    "timezone": "UTC", "serverTime": 1, "exchangeFilters": [], "symbols": [SYMBOL],
    "rateLimits": [{"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": 1200}],
}  # fmt: skip


def reply(status: int, content: Any, **headers: str) -> Answer:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status, body, {"Content-Type": "application/json", **named})


def info_or(answer: Callable[[Request], Answer]) -> Callable[[Request], Answer]:
    return lambda request: reply(200, INFO) if "exchangeInfo" in request.path else answer(request)


@contextmanager
def client_of(
    answer: Callable[[Request], Answer], cache: redis.Redis | None = None, **config: Any
) -> Iterator[tuple[CcxtClient, list[Request]]]:
    with serving(info_or(answer)) as (url, seen):
        yield CcxtClient(ClientConfig(base_url=url, api_key=KEY, api_secret=SECRET, **config), cache), seen


# --------------------------------------------------------------------------------------------------------------- hosts
@pytest.mark.parametrize("exchange_id", ["binance", "bybit", "okx", "kraken", "coinbase"])
def test_no_url_leads_to_the_real_exchange(exchange_id: str) -> None:
    exchange = build_exchange(ClientConfig(exchange_id=exchange_id, base_url="http://127.0.0.1:9/"), None)

    def hosts(urls: Any) -> set[str]:
        if isinstance(urls, dict):
            return set().union(*map(hosts, urls.values()))
        return {urlsplit(urls).netloc}

    assert hosts(exchange.urls["api"]) == {"127.0.0.1:9"}


def test_paths_survive_the_new_host() -> None:
    exchange = build_exchange(ClientConfig(base_url="http://127.0.0.1:9"), None)
    assert exchange.urls["api"]["public"] == "http://127.0.0.1:9/api/v3"
    assert exchange.urls["api"]["sapi"] == "http://127.0.0.1:9/sapi/v1"


def test_the_testnet_has_hosts_of_its_own() -> None:
    exchange = build_exchange(ClientConfig(testnet=True), None)
    assert "testnet" in exchange.urls["api"]["public"]


def test_starting_costs_one_unsigned_call() -> None:
    with client_of(lambda _: reply(404, {})) as (client, seen):
        client.instruments(["BTC/USDT"])
        client.market_id("BTC/USDT")
        assert [request.path for request in seen] == ["/api/v3/exchangeInfo"]
        assert b"signature" not in seen[0].body


def test_an_unknown_exchange_is_refused() -> None:
    with pytest.raises(NotSupported, match="nonesuch"):
        build_exchange(ClientConfig(exchange_id="nonesuch"), None)


# -------------------------------------------------------------------------------------------------------------- errors
BUSY = {"code": -1008, "msg": "Server is currently overloaded"}
READS = [
    (reply(503, BUSY), ExchangeUnreachable),
    (reply(500, b"<html>oops</html>"), ExchangeUnreachable),
    (reply(429, {"code": -1003, "msg": "Too much request weight used"}, Retry_After="7"), RateLimited),
    (reply(418, {"code": -1003, "msg": "Way too much"}, Retry_After="7"), RateLimited),
    (reply(400, {"code": -1021, "msg": "Timestamp for this request is outside"}), ClockSkewed),
    (reply(400, {"code": -1121, "msg": "Invalid symbol."}), UnknownSymbol),
    (reply(400, {"code": -2013, "msg": "Order does not exist."}), OrderRejected),
    (reply(401, {"code": -2015, "msg": "Invalid API-key, IP, or permissions for action."}), AuthenticationFailed),
    (reply(400, {"code": -1022, "msg": "Signature for this request is not valid."}), AuthenticationFailed),
]


@pytest.mark.parametrize(("answer", "expected"), READS)
def test_a_failed_read_is_what_the_answer_says(answer: Answer, expected: type[Exception]) -> None:
    with client_of(lambda _: answer) as (client, _), pytest.raises(expected) as raised:
        client.read("private_get_order", {"symbol": "BTCUSDT", "origClientOrderId": "abc"})
    assert type(raised.value) is expected
    if isinstance(raised.value, RateLimited):
        assert raised.value.retry_after_s == 7.0
    if isinstance(raised.value, OrderRejected):
        assert raised.value.code == -2013


SENDS = [
    (reply(400, {"code": -2010, "msg": "Account has insufficient balance for requested action."}), InsufficientBalance),
    (reply(400, {"code": -1013, "msg": "Filter failure: LOT_SIZE"}), OrderRejected),
    (reply(400, {"code": -2010, "msg": "Duplicate order sent."}), OrderRejected),
    (reply(401, {"code": -2015, "msg": "Invalid API-key, IP, or permissions for action."}), AuthenticationFailed),
    (reply(429, {"code": -1003, "msg": "Too much"}, Retry_After="7"), RateLimited),
    (reply(400, {"code": -1021, "msg": "Timestamp for this request is outside"}), ClockSkewed),
    (reply(503, BUSY), OutcomeUnknown),
    (
        reply(503, {"code": -1000, "msg": "Unknown error, please check your request or try again later."}),
        OutcomeUnknown,
    ),
    (reply(500, b""), OutcomeUnknown),
    (reply(408, {"code": -1007, "msg": "Timeout waiting for response. Execution status unknown."}), OutcomeUnknown),
    (reply(400, {"code": -1006, "msg": "An unexpected response was received."}), OutcomeUnknown),
    (reply(403, b"<html>firewall</html>"), OutcomeUnknown),
]


@pytest.mark.parametrize(("answer", "expected"), SENDS)
def test_a_send_is_refused_only_when_the_exchange_said_so(answer: Answer, expected: type[Exception]) -> None:
    with client_of(lambda _: answer) as (client, seen), pytest.raises(expected) as raised:
        client.send("private_post_order", {"symbol": "BTCUSDT", "newClientOrderId": "tw-1"}, client_order_id="tw-1")
    assert type(raised.value) is expected
    assert sum(request.path.startswith("/api/v3/order") for request in seen) == 1, "a send is never repeated"


def test_no_answer_leaves_a_send_unknown_and_a_read_to_be_retried() -> None:
    hang = threading.Event()

    def never(_: Request) -> Answer:
        hang.wait(5)
        return reply(200, {})

    with client_of(never, timeout_s=0.3) as (client, _):
        try:
            with pytest.raises(OutcomeUnknown, match="tw-1"):
                client.send("private_post_order", {"symbol": "BTCUSDT"}, client_order_id="tw-1")
            with pytest.raises(ExchangeUnreachable):
                client.read("private_get_openorders")
        finally:
            hang.set()


def test_what_was_never_sent_is_known_not_to_exist() -> None:
    client = CcxtClient(ClientConfig(base_url="http://127.0.0.1:9"))  # no key: refused before anything is sent
    with pytest.raises(AuthenticationFailed):
        client.send("private_post_order", {"symbol": "BTCUSDT"}, client_order_id="tw-1")


def test_no_message_carries_a_key_a_secret_or_a_signature() -> None:
    answers = [answer for answer, _ in (READS[0], READS[1], SENDS[0], SENDS[-1])]
    texts = []
    with client_of(lambda _: answers[0]) as (client, _):
        for _ in range(4):
            with pytest.raises(TradewindError) as read:
                client.read("private_get_account")
            with pytest.raises(TradewindError) as sent:
                client.send("private_post_order", {}, client_order_id="x")
            for error in (read.value, sent.value):
                texts += [str(error), repr(error), repr(error.__cause__)]
                assert error.__suppress_context__
            answers.append(answers.pop(0))
    assert not [text for text in texts if KEY in text or SECRET in text or "signature=" in text]
    config = repr(ClientConfig(api_key=KEY, api_secret=SECRET))
    assert KEY not in config
    assert SECRET not in config


def test_a_wrong_key_stays_a_wrong_key_after_a_success() -> None:
    answers = iter([reply(200, {"balances": []}), reply(401, {"code": -2015, "msg": "Invalid API-key"})])
    with client_of(lambda _: next(answers)) as (client, _):
        client.read("private_get_account")
        with pytest.raises(AuthenticationFailed):
            client.read("private_get_account")


def test_a_refusal_without_a_name_of_its_own_is_bad_input() -> None:
    def refuse() -> None:
        raise ccxt.ArgumentsRequired("fetch_thing() needs a symbol")

    with pytest.raises(BadInput, match="needs a symbol"):
        CcxtClient(ClientConfig(base_url="http://127.0.0.1:9")).call("fetch_thing", refuse)


# ---------------------------------------------------------------------------------------------------- clock and limits
def test_after_a_refused_timestamp_the_next_call_uses_the_exchanges_time() -> None:
    stamps: list[int] = []
    ahead_ms = 60_000

    def answer(request: Request) -> Answer:
        now = int(time.time() * 1000) + ahead_ms
        if request.path.startswith("/api/v3/time"):
            return reply(200, {"serverTime": now})
        stamps.append(int(parse_qs(urlsplit(request.path).query)["timestamp"][0]))
        if abs(stamps[-1] - now) > 5_000:
            return reply(400, {"code": -1021, "msg": "Timestamp for this request is outside of the recvWindow."})
        return reply(200, {"balances": []})

    with client_of(answer) as (client, _):
        with pytest.raises(ClockSkewed):
            client.read("private_get_account")
        assert client.read("private_get_account") == {"balances": []}
        started = time.monotonic()
        error_ms = abs(client.clock_offset_ms() - ahead_ms)
        assert error_ms <= (time.monotonic() - started) * 1000 + 1, "an answer is no older than its way took"


def test_a_429_holds_back_every_client_of_the_account(valkey_url: str) -> None:
    cache = redis.Redis.from_url(valkey_url)
    answer = reply(429, {"code": -1003, "msg": "Too much"}, Retry_After="30")
    with client_of(lambda _: answer, cache) as (client, seen):
        with pytest.raises(RateLimited):
            client.read("public_get_time")
        other = CcxtClient(client.config, cache)
        asked = len(seen)
        with pytest.raises(RateLimited) as refused:
            other.read("public_get_time")
        assert 0 < refused.value.retry_after_s <= 30
        assert len(seen) == asked, "nothing may be sent while the exchange wants quiet"


def test_the_limit_is_the_one_that_the_exchange_publishes(valkey_url: str) -> None:
    cache = redis.Redis.from_url(valkey_url)
    with client_of(lambda _: reply(404, {}), cache) as (client, seen):
        client.load_markets()
        assert client.exchange.limiter.weight_per_minute == 1200
        # Another process finds markets and limit in the cache, without a call.
        other = CcxtClient(client.config, cache)
        assert other.instruments(["BTC/USDT"]) == client.instruments(["BTC/USDT"])
        assert other.exchange.limiter.weight_per_minute == 1200
        assert len(seen) == 1


def test_weights_are_the_exchanges_own(valkey_url: str) -> None:
    with client_of(lambda _: reply(200, []), redis.Redis.from_url(valkey_url)) as (client, _):
        spent: list[float] = []
        limiter = client.exchange.limiter
        acquire = limiter.acquire
        limiter.acquire = lambda weight, *, bulk=False: (spent.append(weight), acquire(weight, bulk=bulk))[1]
        client.read("public_get_klines", {"symbol": "BTCUSDT", "interval": "15m"})
        client.read("public_get_exchangeinfo")
        client.read("private_get_account")
        client.send("private_post_orderlist_opoco", {"symbol": "BTCUSDT"}, client_order_id="x")
        assert spent == [2, 20, 20, 1]


def test_a_symbol_that_is_not_listed_is_named() -> None:
    with client_of(lambda _: reply(404, {})) as (client, _):
        with pytest.raises(UnknownSymbol, match="FOO/USDT"):
            client.market_id("FOO/USDT")
        assert client.instruments(["FOO/USDT"]) == {}
