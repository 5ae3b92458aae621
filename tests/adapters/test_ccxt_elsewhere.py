"""okx, bitget, kraken and coinbase through the same adapter: their answers, in the form their documentation gives."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest

from tests.support.http_server import Answer, Request, serving
from tradewind.adapters.ccxt_client import CcxtClient, ClientConfig
from tradewind.adapters.ccxt_exchange import CcxtMarketData
from tradewind.adapters.ccxt_factory import build_exchange
from tradewind.backtest.booking import rules_of
from tradewind.core.candles import check, closed_only
from tradewind.core.timeframes import closed_until_ms, expected_opens_ms, timeframe_ms, to_ms
from tradewind.core.types import Bars
from tradewind.errors import BadSetting, NotSupported, RateLimited, UnknownSymbol
from tradewind.settings import load_settings
from tradewind.wiring import Wiring

STEP = timeframe_ms("15m")
NOW = datetime(2026, 3, 5, 12, 7, tzinfo=UTC)
NEWEST = to_ms(NOW) // STEP * STEP  # the unfinished bar
START = NEWEST - 2_000 * STEP
OUTAGE = (START + 700 * STEP, START + 1_350 * STEP)  # longer than a page of each of them
OPEN, HIGH, LOW, CLOSE, VOLUME = "100.1", "101.2", "99.3", "100.4", "5.5"

Query = dict[str, str]


class At:
    """A clock that stands."""

    def now(self) -> datetime:
        return NOW


def traded(first_ms: int, past_ms: int) -> list[int]:
    """The open times of an exchange's bars in [first, past), the outage left out, the unfinished bar the last."""
    opens = range(-(-first_ms // STEP) * STEP, min(past_ms, NEWEST + STEP), STEP)
    return [ms for ms in opens if not OUTAGE[0] <= ms < OUTAGE[1]]


# ----------------------------------------------------------------------------------------------------------------- okx
OKX_INSTRUMENT = {
    "alias": "", "baseCcy": "BTC", "category": "1", "ctMult": "", "ctType": "", "ctVal": "", "ctValCcy": "",
    "expTime": "", "instFamily": "", "instId": "BTC-USDT", "instType": "SPOT", "lever": "10",
    "listTime": "1611907686000", "lotSz": "0.00000001", "maxLmtAmt": "20000000", "maxLmtSz": "9999999999",
    "maxMktAmt": "1000000", "maxMktSz": "1000000", "minSz": "0.00001", "optType": "", "quoteCcy": "USDT",
    "settleCcy": "", "state": "live", "stk": "", "tickSz": "0.1", "uly": "",
}  # fmt: skip


def okx(path: str, query: Query) -> Any:
    """Newest first, strictly between `before` and `after`, at most a hundred of history and 300 of recent bars."""
    if path == "/api/v5/public/instruments":
        return {"code": "0", "msg": "", "data": [OKX_INSTRUMENT]}
    most = {"/api/v5/market/history-candles": 100, "/api/v5/market/candles": 300}[path]
    assert query["bar"] == "15m"
    assert int(query["limit"]) <= most
    opens = traded(int(query["before"]) + 1, int(query["after"]))[-int(query["limit"]) :]
    rows = [
        [str(ms), OPEN, HIGH, LOW, CLOSE, VOLUME, "550", "550", "0" if ms == NEWEST else "1"] for ms in reversed(opens)
    ]
    return {"code": "0", "msg": "", "data": rows}


# -------------------------------------------------------------------------------------------------------------- bitget
BITGET_SYMBOL = {
    "symbol": "BTCUSDT", "baseCoin": "BTC", "quoteCoin": "USDT", "minTradeAmount": "0",
    "maxTradeAmount": "900000000000000000000", "takerFeeRate": "0.002", "makerFeeRate": "0.002", "pricePrecision": "2",
    "quantityPrecision": "6", "quotePrecision": "8", "status": "online", "minTradeUSDT": "1",
    "buyLimitPriceRatio": "0.05", "sellLimitPriceRatio": "0.05", "areaSymbol": "no", "orderQuantity": "200",
    "openTime": "1532454360000", "offTime": "",
}  # fmt: skip


def bitget(path: str, query: Query) -> Any:
    """Oldest first, counted back from `endTime`, itself included or not; 200 of history, a thousand of recent bars."""
    if path == "/api/v2/spot/public/symbols":
        return {"code": "00000", "msg": "success", "requestTime": 1, "data": [BITGET_SYMBOL]}
    if path == "/api/v2/margin/currencies":
        return {"code": "00000", "msg": "success", "requestTime": 1, "data": []}
    most = {"/api/v2/spot/market/history-candles": 200, "/api/v2/spot/market/candles": 1000}[path]
    assert query["granularity"] == "15min"
    assert int(query["limit"]) <= most
    end_ms, is_recent = int(query["endTime"]), most == 1000
    if is_recent:  # 30 days
        assert int(query["startTime"]) >= NEWEST - 30 * 86_400_000
    # Both ways of counting the end are tried: one by each endpoint.
    opens = traded(int(query["startTime"]), end_ms) if is_recent else traded(end_ms - 500 * STEP, end_ms + 1)
    rows = [[str(ms), OPEN, HIGH, LOW, CLOSE, VOLUME, "550", "550"] for ms in opens[-int(query["limit"]) :]]
    return {"code": "00000", "msg": "success", "requestTime": 1, "data": rows}


# -------------------------------------------------------------------------------------------------------------- kraken
KRAKEN_PAIR = {
    "altname": "XBTUSDT", "wsname": "XBT/USDT", "aclass_base": "currency", "base": "XXBT", "aclass_quote": "currency",
    "quote": "USDT", "lot": "unit", "cost_decimals": 5, "pair_decimals": 1, "lot_decimals": 8, "lot_multiplier": 1,
    "leverage_buy": [], "leverage_sell": [], "fees": [[0, 0.4]], "fees_maker": [[0, 0.25]],
    "fee_volume_currency": "ZUSD", "margin_call": 80, "margin_stop": 40, "ordermin": "0.00005", "costmin": "0.5",
    "tick_size": "0.1", "status": "online",
}  # fmt: skip


def kraken(path: str, query: Query) -> Any:
    """The newest 720 bars after `since`, oldest first, whatever older moment was asked for."""
    if path == "/0/public/AssetPairs":
        return {"error": [], "result": {"XBTUSDT": KRAKEN_PAIR}}
    assert path == "/0/public/OHLC"
    assert query["interval"] == "15"
    kept = traded(NEWEST - 719 * STEP, NEWEST + STEP)
    opens = [ms for ms in kept if ms > int(query["since"]) * 1000]
    rows = [[ms // 1000, OPEN, HIGH, LOW, CLOSE, "100.3", VOLUME, 42] for ms in opens]
    return {"error": [], "result": {"XBTUSDT": rows, "last": kept[-2] // 1000}}


# ------------------------------------------------------------------------------------------------------------ coinbase
COINBASE_PRODUCT = {
    "product_id": "BTC-USDT", "price": "100.4", "price_percentage_change_24h": "0.1", "volume_24h": "1000",
    "base_increment": "0.00000001", "quote_increment": "0.01", "quote_min_size": "1", "quote_max_size": "10000000",
    "base_min_size": "0.0000001", "base_max_size": "160", "base_name": "Bitcoin", "quote_name": "Tether",
    "watched": False, "is_disabled": False, "new": False, "status": "online", "cancel_only": False,
    "limit_only": False, "post_only": False, "trading_disabled": False, "auction_mode": False, "product_type": "SPOT",
    "quote_currency_id": "USDT", "base_currency_id": "BTC", "fcm_trading_session_details": None,
    "mid_market_price": "", "alias": "", "alias_to": [], "base_display_symbol": "BTC", "quote_display_symbol": "USDT",
    "view_only": False, "price_increment": "0.01", "display_name": "BTC-USDT", "product_venue": "CBE",
}  # fmt: skip


def coinbase(path: str, query: Query) -> Any:
    """Newest first, both ends included, at most 350 in the range that is asked for."""
    if path == "/api/v3/brokerage/market/products":
        products = [] if query.get("product_type") == "FUTURE" else [COINBASE_PRODUCT]
        return {"products": products, "num_products": len(products)}
    assert path == "/api/v3/brokerage/market/products/BTC-USDT/candles"
    assert query["granularity"] == "FIFTEEN_MINUTE"
    start_ms, end_ms = int(query["start"]) * 1000, int(query["end"]) * 1000
    assert (end_ms - start_ms) // STEP <= 350
    return {
        "candles": [
            {"start": str(ms // 1000), "low": LOW, "high": HIGH, "open": OPEN, "close": CLOSE, "volume": VOLUME}
            for ms in reversed(traded(start_ms, end_ms + 1))
        ]
    }


EXCHANGES: dict[str, Callable[[str, Query], Any]] = {
    "okx": okx,
    "bitget": bitget,
    "kraken": kraken,
    "coinbase": coinbase,
}


@contextmanager
def market_data(name: str) -> Iterator[tuple[CcxtMarketData, list[Request]]]:
    def answer(request: Request) -> Answer:
        parts = urlsplit(request.path)
        content = EXCHANGES[name](parts.path, {key: values[0] for key, values in parse_qs(parts.query).items()})
        return Answer(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    with serving(answer) as (url, seen):
        client = CcxtClient(ClientConfig(exchange_id=name, base_url=url, weight_per_minute=0))
        client.exchange.milliseconds = lambda: to_ms(NOW)
        yield CcxtMarketData(client, At()), seen


def assert_whole(bars: Bars, start_ms: int, end_ms: int) -> None:
    """Exactly what was traded, by the adapter's own grid, in order and valid."""
    expected = expected_opens_ms(start_ms, end_ms, "15m")
    np.testing.assert_array_equal(
        bars.open_time_ms, expected[((expected < OUTAGE[0]) | (expected >= OUTAGE[1])) & (expected <= NEWEST)]
    )
    assert len(check(bars).bars) == len(bars)
    columns = (bars.open, bars.high, bars.low, bars.close, bars.volume)
    for column, value in zip(columns, (OPEN, HIGH, LOW, CLOSE, VOLUME), strict=True):
        assert set(column.tolist()) == {float(value)}


@pytest.mark.parametrize("name", ["okx", "bitget", "coinbase"])
def test_an_outage_longer_than_a_page_does_not_end_the_range(name: str) -> None:
    with market_data(name) as (data, seen):
        assert data.oldest_open_ms("15m") is None
        assert_whole(data.candles("BTC/USDT", "15m", START, NEWEST), START, NEWEST)
        # A page of a hundred, of 199 and of 300: no bar is asked for twice.
        assert len(seen) <= {"okx": 22, "bitget": 16, "coinbase": 10}[name]


def test_bitgets_history_is_whole_from_before_its_recent_bars_into_them() -> None:
    """Bars older than 30 days come from another endpoint, whose pages are counted back from their end."""
    with market_data("bitget") as (data, seen):
        start, end = NEWEST - 3_300 * STEP, NEWEST - 2_400 * STEP
        assert_whole(data.candles("BTC/USDT", "15m", start, end), start, end)
        asked = {urlsplit(request.path).path.rpartition("/")[2] for request in seen}
        assert {"candles", "history-candles"} <= asked


@pytest.mark.parametrize("name", sorted(EXCHANGES))
def test_the_unfinished_bar_is_recognised(name: str) -> None:
    with market_data(name) as (data, _):
        bars = data.candles("BTC/USDT", "15m", NEWEST - 5 * STEP, NEWEST + STEP)
        assert bars.open_time_ms[-1] == NEWEST
        closed = closed_only(bars, closed_until_ms(to_ms(NOW), "15m"))
        assert closed.open_time_ms.tolist() == [NEWEST - i * STEP for i in (5, 4, 3, 2, 1)]


def test_kraken_answers_for_its_newest_bars_alone_and_is_not_asked_for_others() -> None:
    with market_data("kraken") as (data, seen):
        reach = data.oldest_open_ms("15m")
        assert reach == NEWEST - 719 * STEP
        assert_whole(data.candles("BTC/USDT", "15m", START, NEWEST), reach, NEWEST)
        assert [urlsplit(request.path).path for request in seen].count("/0/public/OHLC") == 1
        before = len(seen)
        assert len(data.candles("BTC/USDT", "15m", START, reach)) == 0
        assert len(seen) == before


@pytest.mark.parametrize(
    ("name", "tick", "step", "least", "notional"),
    [
        ("okx", "0.1", "0.00000001", "0.00001", "0"),
        ("bitget", "0.01", "0.000001", "0", "1"),
        ("kraken", "0.1", "0.00000001", "0.00005", "0.5"),
        ("coinbase", "0.01", "0.00000001", "0.0000001", "1"),
    ],
)
def test_rules_and_symbols_are_those_it_publishes(name: str, tick: str, step: str, least: str, notional: str) -> None:
    with market_data(name) as (data, _):
        found = data.instruments(["BTC/USDT", "NONE/USDT"])
        assert list(found) == ["BTC/USDT"]
        rules = found["BTC/USDT"]
        assert (rules.base, rules.quote, rules.active) == ("BTC", "USDT", True)
        assert (rules.tick_size, rules.step_size) == (Decimal(tick), Decimal(step))
        assert (rules.min_quantity, rules.min_notional_quote) == (Decimal(least), Decimal(notional))
        assert rules_of(rules).price(1) == rules.tick_size, "a replay can count in them"
        with pytest.raises(UnknownSymbol, match=f"{name} does not list NONE/USDT"):
            data.candles("NONE/USDT", "15m", START, NEWEST)


def test_okx_tells_when_a_symbol_was_listed() -> None:
    with market_data("okx") as (data, _):
        assert data.first_open_ms("BTC/USDT", "15m") == 1_611_907_686_000


@pytest.mark.parametrize("name", sorted(EXCHANGES))
def test_a_process_keeps_to_the_exchanges_own_pace(name: str) -> None:
    """ccxt's `rateLimit` is the pause after a call of cost 1; no burst is longer than a second's worth of calls."""
    client = CcxtClient(ClientConfig(exchange_id=name, base_url="http://127.0.0.1:9"))
    exchange = client.exchange
    limiter = exchange.limiter
    limiter._max_wait_s = {False: 0.0, True: 0.0}
    calls = 0
    with suppress(RateLimited):
        while calls < 1_000:
            exchange.throttle(1)
            calls += 1
    assert 1 <= calls <= max(2, 1.2 * 1_000 / exchange.rateLimit)
    assert limiter._rate / exchange.weight_per_cost <= 1_000 / exchange.rateLimit


@pytest.mark.parametrize("name", ["kraken", "coinbase"])
def test_orders_are_sent_to_neither_of_these(name: str, tmp_path: Path) -> None:
    wiring = Wiring(load_settings(mode="testnet", exchange=name, home_dir=tmp_path))
    with pytest.raises(NotSupported, match="binance, okx, bybit or bitget"):
        _ = wiring.exchange


def test_an_exchange_without_a_testnet_says_so() -> None:
    with pytest.raises(NotSupported, match="kraken has no testnet"):
        build_exchange(ClientConfig(exchange_id="kraken", testnet=True), None)


@pytest.mark.parametrize("name", ["okx", "bitget"])
def test_live_there_asks_for_the_passphrase(name: str, tmp_path: Path) -> None:
    strong = "q7Zr2mXv9LpTn4Ks8WbY"
    live = {
        "mode": "live", "exchange": name, "live_trading": "yes-real-money", "max_capital_quote": 500,
        "home_dir": tmp_path, "exchange_api_key": strong, "exchange_api_secret": strong, "api_read_token": strong,
        "api_control_token": strong,
    }  # fmt: skip
    with pytest.raises(BadSetting, match="passphrase"):
        load_settings(**live)
    assert load_settings(**live, exchange_api_passphrase="phrase").exchange == name


@pytest.mark.parametrize("mode", ["demo", "paper"])
def test_the_paper_exchange_is_binance_to_its_clients(mode: str, tmp_path: Path) -> None:
    with pytest.raises(BadSetting, match="Binance's dialect"):
        load_settings(mode=mode, exchange="kraken", home_dir=tmp_path)
