"""Candles, prices and rules through ccxt from a paper exchange over HTTP."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal

import numpy as np
import pytest

from tests.support.paper_server import PaperServerProcess
from tradewind.adapters.ccxt_client import CcxtClient, ClientConfig
from tradewind.adapters.ccxt_exchange import CcxtMarketData
from tradewind.core.candles import check, closed_only
from tradewind.core.timeframes import closed_until_ms, expected_opens_ms, from_ms, timeframe_ms, to_ms
from tradewind.core.types import BracketSupport
from tradewind.errors import ExchangeUnreachable, NotSupported, UnknownSymbol

STEP = timeframe_ms("15m")
NOW = to_ms(datetime(2024, 3, 5, 12, 7, tzinfo=UTC))


@pytest.fixture(scope="module")
def server() -> Iterator[PaperServerProcess]:
    with PaperServerProcess() as server:
        server.admin.set_clock(NOW)
        yield server


@pytest.fixture
def data(server: PaperServerProcess) -> CcxtMarketData:
    return CcxtMarketData(CcxtClient(ClientConfig(base_url=server.url)))


def test_a_range_over_several_pages_comes_whole_and_in_order(data: CcxtMarketData) -> None:
    start, end = NOW // STEP * STEP - 2_503 * STEP, NOW // STEP * STEP
    bars = data.candles("BTC/USDT", "15m", start, end, bulk=True)
    np.testing.assert_array_equal(bars.open_time_ms, expected_opens_ms(start, end, "15m"))
    assert len(check(bars).bars) == 2_503
    again = data.candles("BTC/USDT", "15m", start + 700 * STEP, start + 710 * STEP)
    np.testing.assert_array_equal(again.close, bars.close[700:710])


def test_the_end_is_excluded_and_the_unfinished_bar_is_recognised(data: CcxtMarketData) -> None:
    unfinished = NOW // STEP * STEP
    bars = data.candles("ETH/USDT", "15m", unfinished - 2 * STEP, unfinished + 10 * STEP)
    assert bars.open_time_ms.tolist() == [unfinished - 2 * STEP, unfinished - STEP, unfinished]
    closed = closed_only(bars, closed_until_ms(NOW, "15m"))
    assert closed.open_time_ms.tolist() == [unfinished - 2 * STEP, unfinished - STEP]
    assert len(data.candles("ETH/USDT", "15m", unfinished - STEP, unfinished)) == 1


def test_an_outage_does_not_end_the_range(server: PaperServerProcess, data: CcxtMarketData) -> None:
    start = NOW // STEP * STEP - 3_000 * STEP
    missing = (start + 1_500 * STEP, start + 1_600 * STEP)
    server.admin.add_fault(
        "missing_candles", path="/api/v3/klines", symbol="BTCUSDT", from_ms=missing[0], to_ms=missing[1]
    )
    try:
        bars = data.candles("BTC/USDT", "15m", start, start + 3_000 * STEP)
    finally:
        server.admin.clear_faults()
    expected = expected_opens_ms(start, start + 3_000 * STEP, "15m")
    kept = expected[(expected < missing[0]) | (expected >= missing[1])]
    np.testing.assert_array_equal(bars.open_time_ms, kept)


def test_the_first_bar_is_where_history_begins(data: CcxtMarketData) -> None:
    first = data.first_open_ms("BTC/USDT", "1d")
    assert first is not None
    assert len(data.candles("BTC/USDT", "1d", first, first + 86_400_000)) == 1
    assert len(data.candles("BTC/USDT", "1d", first - 5 * 86_400_000, first)) == 0


def test_rules_are_exact_and_brackets_native(data: CcxtMarketData) -> None:
    rules = data.instruments(["BTC/USDT", "NONE/USDT"])
    assert list(rules) == ["BTC/USDT"]
    btc = rules["BTC/USDT"]
    assert (btc.base, btc.quote, btc.active) == ("BTC", "USDT", True)
    assert btc.bracket is BracketSupport.OPOCO
    assert str(btc.tick_size) == "0.01"
    assert btc.min_quantity % btc.step_size == 0
    assert btc.taker_fee_frac == Decimal("0.001")


def test_best_prices_of_all_symbols_cost_one_call(server: PaperServerProcess, data: CcxtMarketData) -> None:
    data.instruments(["BTC/USDT"])
    calls: list[str] = []
    fetch = data._client.exchange.fetch
    data._client.exchange.fetch = lambda url, *rest: (calls.append(url), fetch(url, *rest))[1]
    tops = data.book_tops(["BTC/USDT", "ETH/USDT"])
    assert len(calls) == 1
    assert set(tops) == {"BTC/USDT", "ETH/USDT"}
    for top in tops.values():
        assert Decimal(0) < top.bid < top.ask
        assert top.at.tzinfo is not None


def test_the_clock_offset_is_small_on_one_machine(data: CcxtMarketData) -> None:
    started = time.monotonic()
    error_ms = abs(data.clock_offset_ms())
    assert error_ms <= (time.monotonic() - started) * 1000 + 1, "an answer is no older than its way took"


def test_what_cannot_be_asked_for_is_refused_by_name(data: CcxtMarketData) -> None:
    with pytest.raises(UnknownSymbol, match="NONE/USDT"):
        data.candles("NONE/USDT", "15m", NOW - STEP, NOW)
    with pytest.raises(NotSupported, match="7m"):
        data.candles("BTC/USDT", "7m", NOW - STEP, NOW)


def test_nobody_listening_is_a_reason_to_retry() -> None:
    data = CcxtMarketData(CcxtClient(ClientConfig(base_url="http://127.0.0.1:9")))
    with pytest.raises(ExchangeUnreachable):
        data.candles("BTC/USDT", "15m", NOW - STEP, NOW)


def test_times_of_bars_are_their_opens(data: CcxtMarketData) -> None:
    bars = data.candles("BTC/USDT", "4h", NOW - 5 * timeframe_ms("4h"), NOW)
    assert {from_ms(int(ms)).hour % 4 for ms in bars.open_time_ms} == {0}
