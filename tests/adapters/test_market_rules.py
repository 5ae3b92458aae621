"""Rules, prices and statuses of markets that change, empty or vanish while a process runs; nothing is kept too long."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis

from tests.support.binance import Market
from tests.support.http_server import Answer, Request, serving
from tests.support.trading import instrument
from tradewind.adapters.ccxt_bitget import CcxtBitgetTrading
from tradewind.adapters.ccxt_bybit import CcxtBybitTrading
from tradewind.adapters.ccxt_client import CcxtClient, ClientConfig
from tradewind.adapters.ccxt_exchange import CcxtMarketData
from tradewind.adapters.ccxt_futures import CcxtFuturesTrading
from tradewind.adapters.ccxt_futures_client import CcxtFuturesClient
from tradewind.adapters.ccxt_okx import CcxtOkxTrading
from tradewind.adapters.ccxt_trading import CcxtTrading
from tradewind.core.ports import TradingExchange
from tradewind.core.types import MarketStatus
from tradewind.errors import ExchangeUnreachable, OrderRejected

D = Decimal
BTC, ETH, XRP = "BTC/USDT", "ETH/USDT", "XRP/USDT"


@contextmanager
def spot(market: Market, cache: redis.Redis | None = None) -> Iterator[CcxtTrading]:
    with serving(market) as (url, _):
        config = ClientConfig(base_url=url, api_key="k", api_secret="s", weight_per_minute=0.0, symbols=(BTC, ETH))
        yield CcxtTrading(CcxtClient(config, cache), "test")


def grow_old(exchange: TradingExchange, seconds: float) -> None:
    """As if the rules had been read so much longer ago."""
    client = exchange._client  # type: ignore[attr-defined]
    client._markets_at_s -= seconds
    client._tried_at_s -= seconds


# --------------------------------------------------------------------------------------------------------------- rules
def test_rules_that_changed_are_known_to_a_process_that_runs_on() -> None:
    market = Market()
    with spot(market) as exchange:
        assert exchange.instruments([BTC])[BTC].tick_size == D("0.01")
        market.tick = "0.10000000"
        assert exchange.instruments([BTC])[BTC].tick_size == D("0.01"), "not asked for at each look"
        grow_old(exchange, 301)
        assert exchange.instruments([BTC])[BTC].tick_size == D("0.1")
        assert market.asked.count("exchangeInfo") == 2


@pytest.mark.parametrize("code", [-1013, -1111])
def test_a_refusal_by_the_rules_makes_them_be_read_again(code: int) -> None:
    market = Market()
    with spot(market) as exchange:
        rules = exchange.instruments([BTC])[BTC]
        market.tick, market.refusal = "0.10000000", (code, "Filter failure: PRICE_FILTER")
        grow_old(exchange, 20)
        with pytest.raises(OrderRejected):
            exchange.send_order(replace(_order(), symbol=BTC), rules)
        assert exchange.instruments([BTC])[BTC].tick_size == D("0.1")


def test_a_refusal_for_another_reason_does_not() -> None:
    market = Market()
    with spot(market) as exchange:
        rules = exchange.instruments([BTC])[BTC]
        market.refusal = (-2010, "Order would immediately match and take.")
        grow_old(exchange, 20)
        with pytest.raises(OrderRejected):
            exchange.send_order(replace(_order(), symbol=BTC), rules)
        exchange.instruments([BTC])
        assert market.asked.count("exchangeInfo") == 1


def test_old_rules_are_kept_while_the_exchange_does_not_answer() -> None:
    market = Market()
    with spot(market) as exchange:
        before = exchange.instruments([BTC, ETH])
        grow_old(exchange, 301)
        market.is_down = True
        assert exchange.instruments([BTC, ETH]) == before
        asked = len(market.asked)
        assert exchange.instruments([BTC]) == {BTC: before[BTC]}
        assert len(market.asked) == asked, "nor asked at each look"


def test_without_any_rules_an_exchange_that_does_not_answer_is_an_error() -> None:
    market = Market()
    market.is_down = True
    with spot(market) as exchange, pytest.raises(ExchangeUnreachable):
        exchange.instruments([BTC])


def test_what_another_process_was_told_grows_old_in_the_cache(valkey_url: str) -> None:
    market, cache = Market(), redis.Redis.from_url(valkey_url)
    with spot(market, cache) as exchange:
        exchange.instruments([BTC])
        market.tick = "0.10000000"
        other = CcxtTrading(CcxtClient(exchange._client.config, cache), "test")
        assert other.instruments([BTC])[BTC].tick_size == D("0.01")
        assert market.asked.count("exchangeInfo") == 1, "the cache answered"
        grow_old(other, 301)
        grow_old(exchange, 301)
        cache.delete(exchange._client._markets_key)  # as its expiry does
        assert exchange.instruments([BTC])[BTC].tick_size == D("0.1")
        assert other.instruments([BTC])[BTC].tick_size == D("0.1")
        assert market.asked.count("exchangeInfo") == 2, "one asked for both"


def test_an_unlisted_symbol_does_not_make_each_process_read_all_markets(valkey_url: str) -> None:
    market, cache = Market(), redis.Redis.from_url(valkey_url)
    del market.statuses["ETHUSDT"]
    with spot(market, cache) as exchange:
        for _ in range(3):
            assert exchange.instruments([BTC, ETH]).keys() == {BTC}
            other = CcxtTrading(CcxtClient(exchange._client.config, cache), "test")
            assert other.instruments([BTC, ETH]).keys() == {BTC}
        assert market.asked.count("exchangeInfo") == 1
        market.statuses["ETHUSDT"] = "TRADING"
        grow_old(exchange, 61)
        cache.delete(exchange._client._markets_key)
        assert exchange.instruments([BTC, ETH]).keys() == {BTC, ETH}, "it is looked for again before long"


def test_the_most_that_a_market_order_takes_is_read() -> None:
    with spot(Market()) as exchange:
        rules = exchange.instruments([BTC])[BTC]
        assert (rules.max_quantity, rules.max_market_quantity) == (D(9000), D("115.5"))


def test_without_a_limit_of_their_own_market_orders_take_what_others_do() -> None:
    assert instrument(max_quantity=D(70)).max_market_quantity == D(70)
    assert instrument(max_quantity=D(70), max_market_quantity=D(100)).max_market_quantity == D(70)
    assert instrument(max_quantity=D(70), max_market_quantity=D(50)).max_market_quantity == D(50)


# -------------------------------------------------------------------------------------------------------------- prices
NO_PRICES = [
    ("0.00000000", "0.00000000"),
    ("0.00000000", "100.00"),
    ("100.00", "0.00000000"),
    ("100.10", "100.00"),
    ("NaN", "100.00"),
    ("", ""),
    (None, None),
]


@pytest.mark.parametrize("row", NO_PRICES)
def test_what_is_no_price_is_left_out_and_harms_no_other(row: tuple[Any, Any]) -> None:
    market = Market()
    market.books["ETHUSDT"] = row
    with spot(market) as exchange:
        assert exchange.book_tops([BTC, ETH]).keys() == {BTC}
        assert exchange.book_tops([ETH]) == {}
        assert CcxtMarketData(exchange._client).book_tops([BTC, ETH]).keys() == {BTC}


@pytest.mark.parametrize("row", NO_PRICES)
def test_on_futures_as_well(row: tuple[Any, Any]) -> None:
    market = Market()
    market.books["ETHUSDT"] = row
    with futures(market) as exchange:
        assert exchange.book_tops([BTC, ETH]).keys() == {BTC}


def test_a_market_delisted_under_a_running_process_does_not_take_the_others_prices_and_orders_away() -> None:
    market = Market()
    with spot(market) as exchange:
        assert exchange.book_tops([BTC, ETH, XRP]).keys() == {BTC, ETH, XRP}
        del market.statuses["ETHUSDT"]
        assert exchange.book_tops([BTC, ETH, XRP]).keys() == {BTC, XRP}
        assert {order.symbol for order in exchange.open_orders([BTC, ETH, XRP])} == {BTC, XRP}
        grow_old(exchange, 301)
        assert exchange.instruments([BTC, ETH]).keys() == {BTC}
        assert exchange.book_tops([ETH]) == {}
        assert exchange.open_orders([ETH]) == []


# ------------------------------------------------------------------------------------------------------------ statuses
@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ("TRADING", MarketStatus.TRADING),
        ("HALT", MarketStatus.HALTED),
        ("BREAK", MarketStatus.HALTED),
        ("CANCEL_ONLY", MarketStatus.CANCEL_ONLY),
        ("A_WORD_OF_NEXT_YEAR", MarketStatus.HALTED),
    ],
)
def test_the_status_on_spot_is_that_of_this_moment(told: str, expected: MarketStatus) -> None:
    market = Market()
    with spot(market) as exchange:
        exchange.instruments([BTC])
        market.statuses["BTCUSDT"] = told
        assert exchange.market_status(BTC) is expected


def test_a_market_that_is_not_listed_is_delisted() -> None:
    market = Market()
    with spot(market) as exchange:
        assert exchange.market_status("NONE/USDT") is MarketStatus.DELISTED
        del market.statuses["BTCUSDT"]
        assert exchange.market_status(BTC) is MarketStatus.DELISTED
        assert exchange.market_status(ETH) is MarketStatus.TRADING


def test_a_status_that_cannot_be_asked_for_is_an_error_and_never_a_guess() -> None:
    market = Market()
    with spot(market) as exchange:
        exchange.instruments([BTC])
        market.is_down = True
        with pytest.raises(ExchangeUnreachable):
            exchange.market_status(BTC)


@contextmanager
def futures(market: Market) -> Iterator[CcxtFuturesTrading]:
    with serving(market) as (url, _):
        config = ClientConfig(market_type="usdm", base_url=url, weight_per_minute=0.0, symbols=(BTC,))
        yield CcxtFuturesTrading(CcxtFuturesClient(config), "test")


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ("TRADING", MarketStatus.TRADING),
        ("PENDING_TRADING", MarketStatus.HALTED),
        ("PRE_SETTLE", MarketStatus.HALTED),
        ("SETTLING", MarketStatus.HALTED),
        ("TRADING_CANCEL_ONLY", MarketStatus.CANCEL_ONLY),
        ("CLOSE", MarketStatus.DELISTED),
        ("DELIVERED", MarketStatus.DELISTED),
    ],
)
def test_the_status_on_futures_is_that_of_this_moment(told: str, expected: MarketStatus) -> None:
    market = Market()
    with futures(market) as exchange:
        assert exchange.instruments([BTC])[BTC].max_market_quantity == D("115.5")
        market.statuses["BTCUSDT"] = told
        assert exchange.market_status(BTC) is expected
        del market.statuses["BTCUSDT"]
        assert exchange.market_status(BTC) is MarketStatus.DELISTED


# --------------------------------------------------------------------------------------------- okx, bybit and bitget
OKX = {
    "alias": "", "baseCcy": "BTC", "category": "1", "ctMult": "", "ctType": "", "ctVal": "", "ctValCcy": "",
    "expTime": "", "instFamily": "", "instId": "BTC-USDT", "instType": "SPOT", "lever": "10",
    "listTime": "1611907686000", "lotSz": "0.00000001", "maxLmtAmt": "20000000", "maxLmtSz": "9999999999",
    "maxMktAmt": "1000000", "maxMktSz": "1000000", "minSz": "0.00001", "optType": "", "quoteCcy": "USDT",
    "settleCcy": "", "stk": "", "tickSz": "0.1", "uly": "",
}  # fmt: skip
BYBIT = {
    "symbol": "BTCUSDT", "baseCoin": "BTC", "quoteCoin": "USDT", "innovation": "0", "marginTrading": "none",
    "priceFilter": {"tickSize": "0.01"},
    "lotSizeFilter": {
        "basePrecision": "0.000001", "quotePrecision": "0.00000001", "minOrderQty": "0.000048",
        "maxOrderQty": "71.73956243", "minOrderAmt": "1", "maxOrderAmt": "2000000",
        "maxLimitOrderQty": "71.73956243", "maxMarketOrderQty": "35.5",
    },
}  # fmt: skip
BITGET = {
    "symbol": "BTCUSDT", "baseCoin": "BTC", "quoteCoin": "USDT", "minTradeAmount": "0",
    "maxTradeAmount": "900000000000000000000", "takerFeeRate": "0.002", "makerFeeRate": "0.002", "pricePrecision": "2",
    "quantityPrecision": "6", "quotePrecision": "8", "minTradeUSDT": "1", "buyLimitPriceRatio": "0.05",
    "sellLimitPriceRatio": "0.05", "areaSymbol": "no", "orderQuantity": "200", "openTime": "1532454360000",
    "offTime": "",
}  # fmt: skip


class Elsewhere:
    """The public answers of okx, bybit and bitget; `status` None: the market is not listed any more."""

    def __init__(self, name: str) -> None:
        self.name, self.status = name, {"okx": "live", "bybit": "Trading", "bitget": "online"}[name]
        self.gone = False

    def __call__(self, request: Request) -> Answer:
        content = getattr(self, f"_{self.name}")(urlsplit(request.path).query)
        return Answer(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def _okx(self, query: str) -> Any:
        if self.gone and "instId=" in query:
            return {"code": "51001", "msg": "Instrument ID doesn't exist.", "data": []}
        return {"code": "0", "msg": "", "data": [] if self.gone else [OKX | {"state": self.status}]}

    def _bybit(self, _: str) -> Any:
        rows = [] if self.gone else [BYBIT | {"status": self.status}]
        return {"retCode": 0, "retMsg": "OK", "result": {"category": "spot", "list": rows}, "time": 1}

    def _bitget(self, _: str) -> Any:
        rows = [] if self.gone else [BITGET | {"status": self.status}]
        return {"code": "00000", "msg": "success", "requestTime": 1, "data": rows}


def no_ledger(_: str, __: Sequence[str]) -> Mapping[str, str]:
    return {}


@contextmanager
def elsewhere(venue: Elsewhere) -> Iterator[TradingExchange]:
    kinds = {"okx": CcxtOkxTrading, "bybit": CcxtBybitTrading, "bitget": CcxtBitgetTrading}
    with serving(venue) as (url, _):
        config = ClientConfig(exchange_id=venue.name, base_url=url, weight_per_minute=0.0, symbols=(BTC,))
        yield kinds[venue.name](CcxtClient(config), "test", no_ledger)


@pytest.mark.parametrize(
    ("name", "halted"), [("okx", "suspend"), ("okx", "preopen"), ("bitget", "halt"), ("bitget", "gray")]
)
def test_the_status_there_is_that_of_this_moment(name: str, halted: str) -> None:
    venue = Elsewhere(name)
    with elsewhere(venue) as exchange:
        assert exchange.market_status(BTC) is MarketStatus.TRADING
        venue.status = halted
        assert exchange.market_status(BTC) is MarketStatus.HALTED


@pytest.mark.parametrize("name", ["okx", "bybit", "bitget"])
def test_what_vanished_there_is_delisted_and_left_out(name: str) -> None:
    venue = Elsewhere(name)
    with elsewhere(venue) as exchange:
        assert exchange.market_status(BTC) is MarketStatus.TRADING
        venue.gone = True
        assert exchange.market_status(BTC) is MarketStatus.DELISTED
        grow_old(exchange, 301)
        assert exchange.instruments([BTC]) == {}
        assert exchange.book_tops([BTC]) == {}


def test_bybit_tells_the_most_that_a_market_order_takes() -> None:
    with elsewhere(Elsewhere("bybit")) as exchange:
        assert exchange.instruments([BTC])[BTC].max_market_quantity == D("35.5")


def _order() -> Any:
    from tests.support.trading import order

    return order("tw-1", price=D("100.00"), quantity=D(1))
