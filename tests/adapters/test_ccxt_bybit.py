"""Another exchange through the same adapter: bybit's answers, in the form its public documentation gives."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest

from tests.support.http_server import Answer, Request, serving
from tradewind.adapters.ccxt_client import CcxtClient, ClientConfig
from tradewind.adapters.ccxt_exchange import CcxtMarketData
from tradewind.core.timeframes import expected_opens_ms, timeframe_ms
from tradewind.core.types import BracketSupport

STEP = timeframe_ms("15m")
START = 1_700_000_100_000 // STEP * STEP
OUTAGE = (START + 1_500 * STEP, START + 2_600 * STEP)  # longer than a page
INSTRUMENT = {
    "symbol": "BTCUSDT", "baseCoin": "BTC", "quoteCoin": "USDT", "innovation": "0", "status": "Trading",
    "marginTrading": "none", "priceFilter": {"tickSize": "0.01"},
    "lotSizeFilter": {
        "basePrecision": "0.000001", "quotePrecision": "0.00000001", "minOrderQty": "0.000048",
        "maxOrderQty": "71.73956243", "minOrderAmt": "1", "maxOrderAmt": "2000000",
    },
}  # fmt: skip
TICKER = {
    "symbol": "BTCUSDT", "bid1Price": "100.1", "bid1Size": "1", "ask1Price": "100.2", "ask1Size": "1",
    "lastPrice": "100.1", "prevPrice24h": "100", "price24hPcnt": "0", "highPrice24h": "101", "lowPrice24h": "99",
    "turnover24h": "1", "volume24h": "1",
}  # fmt: skip


def klines(query: dict[str, str]) -> list[list[str]]:
    """Newest first, at most `limit` from `start` on, nothing during the outage."""
    opens = [int(query["start"]) + i * STEP for i in range(int(query["limit"]))]
    kept = [ms for ms in opens if not OUTAGE[0] <= ms < OUTAGE[1]]
    return [[str(ms), "100.1", "101.2", "99.3", "100.4", "5.5", "550"] for ms in reversed(kept)]


def answer(request: Request) -> Answer:
    parts = urlsplit(request.path)
    query = {name: values[0] for name, values in parse_qs(parts.query).items()}
    if parts.path == "/v5/market/instruments-info":
        rows: list[object] = [INSTRUMENT]
    elif parts.path == "/v5/market/kline":
        rows = list(klines(query))
    elif parts.path == "/v5/market/tickers":
        rows = [TICKER]
    else:
        return Answer(404)
    content = {"retCode": 0, "retMsg": "OK", "result": {"category": "spot", "list": rows}, "time": 1}
    return Answer(200, json.dumps(content).encode(), {"Content-Type": "application/json"})


@pytest.fixture
def data() -> Iterator[CcxtMarketData]:
    with serving(answer) as (url, _):
        yield CcxtMarketData(CcxtClient(ClientConfig(exchange_id="bybit", base_url=url)))


def test_an_outage_longer_than_a_page_does_not_end_the_range(data: CcxtMarketData) -> None:
    bars = data.candles("BTC/USDT", "15m", START, START + 3_000 * STEP)
    expected = expected_opens_ms(START, START + 3_000 * STEP, "15m")
    np.testing.assert_array_equal(bars.open_time_ms, expected[(expected < OUTAGE[0]) | (expected >= OUTAGE[1])])
    assert (bars.open[0], bars.high[0], bars.low[0], bars.close[0], bars.volume[0]) == (100.1, 101.2, 99.3, 100.4, 5.5)


def test_rules_come_from_what_it_publishes(data: CcxtMarketData) -> None:
    rules = data.instruments(["BTC/USDT"])["BTC/USDT"]
    assert (str(rules.tick_size), str(rules.step_size)) == ("0.01", "0.000001")
    assert (rules.min_quantity, rules.min_notional_quote) == (Decimal("0.000048"), Decimal(1))
    assert rules.bracket is BracketSupport.ATTACHED


def test_best_prices_are_exact(data: CcxtMarketData) -> None:
    top = data.book_tops(["BTC/USDT"])["BTC/USDT"]
    assert (top.bid, top.ask) == (Decimal("100.1"), Decimal("100.2"))
