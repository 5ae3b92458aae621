"""The clock of the exchange in use: the same request that ccxt makes, at the same host, and every bad answer named."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.support.http_server import Answer, Request, serving
from tradewind.adapters.ccxt_client import CcxtClient, ClientConfig
from tradewind.adapters.ccxt_factory import build_exchange
from tradewind.adapters.ccxt_support import TRADED
from tradewind.adapters.exchange_clock import ask_clock, clock_url
from tradewind.errors import ExchangeUnreachable, NotSupported
from tradewind.settings import Settings
from tradewind.stack.checks import Checks

AHEAD_MS = 90_000
MARKETS = [*((exchange, "spot") for exchange in TRADED), ("binance", "usdm")]


def told(request: Request) -> Answer:
    """Each exchange's time, in the form of its documentation."""
    now = int(time.time() * 1000) + AHEAD_MS
    content: dict[str, Any] = {
        "/api/v3/time": {"serverTime": now},
        "/fapi/v1/time": {"serverTime": now},
        "/api/v5/public/time": {"code": "0", "msg": "", "data": [{"ts": str(now)}]},
        "/v5/market/time": {
            "retCode": 0, "retMsg": "OK", "result": {"timeSecond": str(now // 1000), "timeNano": str(now * 10**6)},
            "retExtInfo": {}, "time": now,
        },
        "/api/v2/public/time": {
            "code": "00000", "msg": "success", "requestTime": now, "data": {"serverTime": str(now)},
        },
    }[urlsplit(request.path).path]  # fmt: skip
    return Answer(200, json.dumps(content).encode(), {"Content-Type": "application/json"})


@pytest.mark.parametrize(("exchange", "market_type"), MARKETS)
def test_it_asks_what_ccxt_asks_and_hears_what_ccxt_hears(exchange: str, market_type: str) -> None:
    with serving(told) as (url, seen):
        config = ClientConfig(exchange_id=exchange, market_type=market_type, base_url=url, weight_per_minute=0.0)
        by_ccxt = CcxtClient(config).clock_offset_ms(samples=1)
        (asked,) = seen
        took_ms, offset_ms = ask_clock(clock_url(exchange, market_type, base_url=url + "/"), exchange, 5.0)
        assert urlsplit(seen[1].path).path == urlsplit(asked.path).path
        assert took_ms >= 0
        assert abs(offset_ms - by_ccxt) < 5_000
        assert abs(offset_ms - AHEAD_MS) < 5_000


@pytest.mark.parametrize("testnet", [False, True])
@pytest.mark.parametrize(("exchange", "market_type"), MARKETS)
def test_its_host_is_the_one_that_is_traded_at(exchange: str, market_type: str, testnet: bool) -> None:
    config = ClientConfig(exchange_id=exchange, market_type=market_type, testnet=testnet, weight_per_minute=0.0)
    made = build_exchange(config, None)
    key = {"okx": "rest", "bitget": "common"}.get(exchange, "fapiPublic" if market_type == "usdm" else "public")
    host = urlsplit(made.implode_hostname(made.urls["api"][key])).netloc
    assert urlsplit(clock_url(exchange, market_type, testnet=testnet)).netloc == host


@pytest.mark.parametrize(
    "answer",
    [Answer(451, b"not in your country"), Answer(200, b"<html>"), Answer(200, b"[]"), Answer(200, b'{"data": []}')],
)
def test_what_is_no_time_is_no_answer(answer: Answer) -> None:
    with serving(lambda _: answer) as (url, _), pytest.raises(ExchangeUnreachable, match="okx answers with"):
        ask_clock(clock_url("okx", "spot", base_url=url), "okx", 5.0)


def test_nobody_there_is_no_answer() -> None:
    with pytest.raises(ExchangeUnreachable, match="bybit does not answer"):
        ask_clock("http://127.0.0.1:9/v5/market/time", "bybit", 5.0)
    with pytest.raises(NotSupported, match="kraken"):
        clock_url("kraken", "spot")


def test_the_check_of_an_okx_stack_asks_okx(tmp_path: Path) -> None:
    """Where Binance is out of reach, okx may well answer, and the other way round."""
    with serving(told) as (url, seen):
        settings = Settings(home_dir=tmp_path, mode="testnet", exchange="okx", exchange_url=url)
        check = Checks(settings, 10.0)._exchange()
        assert check.ok
        assert [request.path for request in seen] == ["/api/v5/public/time"]
