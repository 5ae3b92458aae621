"""What exchanges answer that no documentation promises: empty, cut, in another form, about things under other names."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis

from tests.support.attached import Bybit, Dialect, Okx, Venue
from tests.support.attached_bitget import Bitget
from tests.support.binance import CONTRACT, Market
from tests.support.http_server import Answer, Request, serving
from tests.support.trading import BAR, NOW, PARAMS, instrument, order
from tradewind.adapters.ccxt_bitget import CcxtBitgetTrading
from tradewind.adapters.ccxt_bybit import CcxtBybitTrading
from tradewind.adapters.ccxt_client import CcxtClient, ClientConfig
from tradewind.adapters.ccxt_exchange import CcxtMarketData
from tradewind.adapters.ccxt_futures import CcxtFuturesTrading
from tradewind.adapters.ccxt_futures_client import CcxtFuturesClient
from tradewind.adapters.ccxt_instruments import instrument_from_market
from tradewind.adapters.ccxt_okx import CcxtOkxTrading
from tradewind.adapters.ccxt_trading import CcxtTrading
from tradewind.core.orders import client_order_id
from tradewind.core.ports import TradingExchange
from tradewind.core.sizing import Room, size_entry
from tradewind.core.timeframes import from_ms
from tradewind.core.types import OrderRole, OrderState, Side
from tradewind.errors import ExchangeUnreachable, OutcomeUnknown

D = Decimal
BTC = "BTC/USDT"
DAY_MS = 86_400_000


def no_ledger(_: str, __: Sequence[str]) -> Mapping[str, str]:
    return {}


KINDS: dict[str, Callable[[CcxtClient], TradingExchange]] = {
    "binance": lambda client: CcxtTrading(client, "test"),
    "okx": lambda client: CcxtOkxTrading(client, "test", no_ledger),
    "bybit": lambda client: CcxtBybitTrading(client, "test", no_ledger),
    "bitget": lambda client: CcxtBitgetTrading(client, "test", no_ledger),
}
DIALECTS: dict[str, type[Dialect]] = {"okx": Okx, "bybit": Bybit, "bitget": Bitget}


class Strange:
    """An exchange that answers as it should, until `body` says what it answers to everything private."""

    def __init__(self, name: str) -> None:
        self.usual = Market() if name == "binance" else DIALECTS[name](Venue(USDT="1000"))
        self.body: bytes | None = None

    def __call__(self, request: Request) -> Answer:
        path = urlsplit(request.path).path
        is_public = path.endswith(("exchangeInfo", "instruments", "instruments-info", "symbols", "currencies"))
        if self.body is None or is_public:
            return self.usual(request)
        return Answer(200, self.body, {"Content-Type": "application/json"})


@contextmanager
def exchange_of(name: str) -> Iterator[tuple[TradingExchange, Strange]]:
    strange = Strange(name)
    with serving(strange) as (url, _):
        config = ClientConfig(
            exchange_id=name, base_url=url, api_key="k", api_secret="s", api_passphrase="p", weight_per_minute=0.0,
            symbols=(BTC,), timeout_s=5.0,
        )  # fmt: skip
        yield KINDS[name](CcxtClient(config)), strange


# Bodies under HTTP 200 from gateways in trouble; the last three pass for a success of okx, bybit and bitget.
BODIES = [
    b"", b"null", b"[]", b"{}", b"<html>maintenance</html>", b'{"balances": null}', b'[{"symbol": "BTCUSDT"}]',
    b'{"code": "0", "msg": "", "data": [{}]}', b'{"retCode": 0, "retMsg": "OK", "result": {"list": [{}]}, "time": 1}',
    b'{"code": "00000", "msg": "success", "requestTime": 1, "data": [{}]}',
]  # fmt: skip


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("name", sorted(KINDS))
def test_an_answer_that_cannot_be_read_is_an_error_of_ours_and_never_a_crash(name: str, body: bytes) -> None:
    """A task that gets one tries again; before, a KeyError ended the look at every position."""
    with exchange_of(name) as (exchange, strange):
        rules = exchange.instruments([BTC])
        assert list(rules) == [BTC]
        strange.body = body
        sent = order("tws" + "0" * 32, symbol=BTC, state=OrderState.SENT, price=D(100), quantity=D("0.1"))
        asked: dict[str, Callable[[], Any]] = {
            "balances": lambda: exchange.balances(),
            "open_orders": lambda: exchange.open_orders([BTC]),
            "fills_since": lambda: exchange.fills_since(BTC, NOW),
            "find_order": lambda: exchange.find_order(BTC, "twx" + "0" * 32),
            "book_tops": lambda: exchange.book_tops([BTC]),
        }
        for what, ask in asked.items():
            told = None
            with suppress(ExchangeUnreachable):
                told = ask()
            assert not told, f"{what} made {told} of {body!r}"
        with pytest.raises(OutcomeUnknown) as unknown:
            exchange.send_order(sent, rules[BTC])
        assert sent.client_order_id in str(unknown.value)


def test_market_data_is_guarded_as_well() -> None:
    strange = Strange("binance")
    with serving(strange) as (url, _):
        data = CcxtMarketData(CcxtClient(ClientConfig(base_url=url, weight_per_minute=0.0, symbols=(BTC,))))
        data.instruments([BTC])
        strange.body = b'{"bidPrice": 1}'
        with pytest.raises(ExchangeUnreachable, match="cannot be read"):
            data.book_tops([BTC])


def test_an_archived_order_is_known_to_have_ended_without_an_execution() -> None:
    market = Market()
    archived = -2026, "Order was canceled or expired with no executed qty over 90 days ago and has been archived."
    market.answers = {("GET", "order"): lambda _: archived}
    with serving(market) as (url, _):
        config = ClientConfig(base_url=url, api_key="k", api_secret="s", weight_per_minute=0.0, symbols=(BTC,))
        assert CcxtTrading(CcxtClient(config), "test").find_order(BTC, "twx" + "0" * 32) is None


# ------------------------------------------------------------------------------------------------------------ statuses
def test_a_status_that_is_new_blinds_no_other_order() -> None:
    market = Market()
    rows = [
        {
            "symbol": "BTCUSDT", "orderId": number, "clientOrderId": f"of-{number}", "price": "1.0", "origQty": "1.0",
            "executedQty": "0.0", "status": status, "type": "LIMIT", "side": "BUY", "stopPrice": "0.0", "time": 1,
        }
        for number, status in enumerate(["NEW", "A_WORD_OF_NEXT_YEAR"])
    ]  # fmt: skip
    market.answers = {("GET", "openOrders"): lambda _: rows}
    with serving(market) as (url, _):
        config = ClientConfig(base_url=url, api_key="k", api_secret="s", weight_per_minute=0.0, symbols=(BTC,))
        found = CcxtTrading(CcxtClient(config), "test").open_orders([BTC])
    assert [report.state for report in found] == [OrderState.WORKING, OrderState.UNKNOWN]


def test_a_conditional_order_in_a_new_status_is_unknown_too() -> None:
    market = Market()
    stop = client_order_id("test", "v", BTC, BAR, 0, OrderRole.STOP, 0)
    algo = {
        "algoId": 1, "clientAlgoId": stop, "symbol": "BTCUSDT", "side": "SELL", "orderType": "STOP_MARKET",
        "algoStatus": "A_WORD_OF_NEXT_YEAR", "actualOrderId": "", "quantity": "1", "triggerPrice": "5", "updateTime": 1,
    }  # fmt: skip
    market.answers = {("GET", "algoOrder"): lambda _: algo, ("GET", "leverageBracket"): lambda _: []}
    with serving(market) as (url, _):
        config = ClientConfig(
            market_type="usdm", base_url=url, api_key="k", api_secret="s", weight_per_minute=0.0, symbols=(BTC,)
        )
        found = CcxtFuturesTrading(CcxtFuturesClient(config), "test").find_order(BTC, stop)
    assert found is not None
    assert found.state is OrderState.UNKNOWN


# --------------------------------------------------------------------------------------------------------------- names
def test_an_asset_goes_by_one_name_in_symbols_balances_and_fees() -> None:
    """ccxt tells two coins of one ticker apart by names of its own: bitget's OMNI is called omni there."""

    class Renamed(Bitget):
        INSTRUMENT = Bitget.INSTRUMENT | {"symbol": "OMNIUSDT", "baseCoin": "OMNI"}

        def common_trade_rate(self, query: Any) -> Any:
            return {"makerFeeRate": "0.001", "takerFeeRate": "0.001"}

        def spot_trade_fills(self, query: Any) -> Any:
            row = {
                "symbol": "OMNIUSDT", "orderId": "7", "tradeId": "8", "side": "buy", "priceAvg": "2", "size": "5",
                "feeDetail": {"feeCoin": "OMNI", "totalFee": "-0.005"}, "tradeScope": "taker",
                "cTime": query["endTime"],
            }  # fmt: skip
            return [row] if int(query["endTime"]) > time.time() * 1000 else []

    with serving(Renamed(Venue(OMNI="4.995"))) as (url, _):
        config = ClientConfig(
            exchange_id="bitget", base_url=url, api_key="k", api_secret="s", api_passphrase="p", weight_per_minute=0.0
        )
        exchange = CcxtBitgetTrading(CcxtClient(config), "test", no_ledger)
        symbol = "omni/USDT"
        rules = exchange.instruments([symbol])[symbol]
        (fill,) = exchange.fills_since(symbol, NOW)
        assert exchange.balances()[rules.base].total == D("4.995")
        assert fill.fee_asset == rules.base


def test_a_commission_of_nothing_needs_no_asset() -> None:
    market = Market()
    trade = {
        "id": 1, "orderId": 2, "qty": "1", "price": "2", "commission": "0.00000000", "commissionAsset": None,
        "isBuyer": True, "isMaker": False, "time": 1,
    }  # fmt: skip
    market.answers = {
        ("GET", "myTrades"): lambda _: [trade],
        ("GET", "order"): lambda _: {
            "symbol": "BTCUSDT", "orderId": 2, "clientOrderId": "x", "price": "1", "origQty": "1", "executedQty": "1",
            "status": "FILLED", "type": "LIMIT", "side": "BUY", "time": 1,
        },
    }  # fmt: skip
    with serving(market) as (url, _):
        config = ClientConfig(base_url=url, api_key="k", api_secret="s", weight_per_minute=0.0, symbols=(BTC,))
        (fill,) = CcxtTrading(CcxtClient(config), "test").fills_since(BTC, NOW)
    assert (fill.fee, fill.fee_asset) == (0, "USDT")


# --------------------------------------------------------------------------------------------------------------- pages
def test_okx_tells_more_open_orders_than_fit_a_page() -> None:
    class Busy(Okx):
        def trade_orders_pending(self, query: Any) -> Any:
            newest = int(query.get("after", 251))
            return [
                {"instId": "BTC-USDT", "ordId": str(number), "clOrdId": "", "side": "buy", "ordType": "limit",
                 "px": "1", "sz": "1", "accFillSz": "0", "state": "live", "uTime": "1"}
                for number in range(newest - 1, max(newest - 1 - int(query["limit"]), 0), -1)
            ]  # fmt: skip

    with serving(Busy(Venue(USDT="1000"))) as (url, _):
        config = ClientConfig(
            exchange_id="okx", base_url=url, api_key="k", api_secret="s", api_passphrase="p", weight_per_minute=0.0,
            symbols=(BTC,),
        )  # fmt: skip
        found = CcxtOkxTrading(CcxtClient(config), "test", no_ledger).open_orders([BTC])
    assert len({report.exchange_order_id for report in found}) == len(found) == 250


# ---------------------------------------------------------------------------------------------------------- delistings
def market_with(**info: Any) -> dict[str, Any]:
    return {
        "symbol": BTC, "base": "BTC", "quote": "USDT", "active": True, "maker": 0.001, "taker": 0.001, "info": info,
        "limits": {"amount": {"min": 1, "max": 2}, "cost": {"min": 5}}, "precision": {"amount": 1, "price": 1},
    }  # fmt: skip


@pytest.mark.parametrize("field", ["deliveryDate", "expTime", "offTime"])
def test_no_entry_in_a_market_that_is_about_to_be_delisted(field: str) -> None:
    """As Binance's futures, okx and bitget announce it in the rules themselves."""
    now_ms = int(time.time() * 1000)
    soon = instrument_from_market(market_with(**{field: now_ms + DAY_MS}), attached_brackets=False)
    assert not soon.active
    assert soon.delisted_at is not None
    later = instrument_from_market(market_with(**{field: str(now_ms + 9 * DAY_MS)}), attached_brackets=False)
    assert later.active
    assert later.delisted_at is not None
    for never in ("", None, "-1", CONTRACT["deliveryDate"]):
        rules = instrument_from_market(market_with(**{field: never}), attached_brackets=False)
        assert (rules.active, rules.delisted_at) == (True, None)


def test_binance_announces_the_ends_of_its_spot_markets(valkey_url: str) -> None:
    market, cache = Market(), redis.Redis.from_url(valkey_url)
    soon_ms = int(time.time() * 1000) + DAY_MS
    market.schedule = [
        {"delistTime": soon_ms, "symbols": ["BTCUSDT", "ADAUSDT"]},
        {"delistTime": soon_ms + 9 * DAY_MS, "symbols": ["ETHUSDT"]},
    ]
    with serving(market) as (url, _):
        config = ClientConfig(base_url=url, api_key="k", api_secret="s", weight_per_minute=0.0, symbols=(BTC,))
        for _process in range(2):
            exchange = CcxtTrading(CcxtClient(config, cache), "test")
            for _look in range(2):
                rules = exchange.instruments([BTC, "ETH/USDT", "XRP/USDT"])
                assert {symbol: made.active for symbol, made in rules.items()} == {
                    BTC: False, "ETH/USDT": True, "XRP/USDT": True,
                }  # fmt: skip
                assert rules[BTC].delisted_at == from_ms(soon_ms)
                assert rules["XRP/USDT"].delisted_at is None
        assert market.asked.count("delist-schedule") == 1, "it weighs 100: one process asks for all, once an hour"


@pytest.mark.parametrize("told", [{}, [{}], [{"delistTime": "soon", "symbols": ["BTCUSDT"]}], (-2015, "Invalid key")])
def test_without_a_schedule_nothing_is_about_to_end(told: Any) -> None:
    market = Market()
    market.answers = {("GET", "delist-schedule"): lambda _: told}
    with serving(market) as (url, _):
        config = ClientConfig(base_url=url, api_key="k", api_secret="s", weight_per_minute=0.0, symbols=(BTC,))
        exchange = CcxtTrading(CcxtClient(config), "test")
        assert exchange.instruments([BTC])[BTC].active
        assert exchange.instruments([BTC])[BTC].active
        assert market.asked.count("delist-schedule") == 1


def test_it_is_refused_in_words() -> None:
    room = Room(D(10_000), D(10_000), D(10_000), D(100))
    sizing, verdict = size_entry(
        Side.LONG, D(100), 1.0, 50_000.0, PARAMS.trending, room, instrument(active=False), PARAMS
    )
    assert sizing is None
    assert "about to be delisted" in verdict.reason
