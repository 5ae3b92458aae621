"""The market of the real exchange's public prices: followed while it speaks, closed while it does not."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.support.http_server import Answer, Request, serving
from tests.support.paper_requests import RawClient
from tests.support.paper_server import PaperServerProcess
from tradewind.core.matching_types import NewOrder, OrderKind, OrderSide, OrderStatus, Refusal
from tradewind.errors import BadInput
from tradewind.paper.exchange import PaperExchange
from tradewind.paper.markets_public import PublicMarket
from tradewind.paper.public_feed import PublicFeed
from tradewind.paper.store import SavedState

BTC = "BTCUSDT"
ORDER = "/api/v3/order"
MARKET_ORDER = {"symbol": BTC, "side": "BUY", "type": "MARKET", "quantity": "0.01"}


def until(true: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def real() -> Iterator[PaperServerProcess]:
    """What stands in for the real exchange: another server of the same protocol, with a market of its own."""
    with PaperServerProcess(seed=3) as server:
        yield server


def following(url: str, database_url: str = "") -> PaperServerProcess:
    options = ("--public-url", url, "--poll-s", "0.2", "--stale-s", "1.5")
    return PaperServerProcess(database_url, market="public", options=options)


def status(client: RawClient) -> str:
    return str(client.public("/api/v3/exchangeInfo", symbol=BTC).json()["symbols"][0]["status"])


def test_follows_halts_and_comes_back(real: PaperServerProcess, empty_postgres_url: str) -> None:
    with following(real.url, empty_postgres_url) as server:
        account = server.create_account(USDT="100000", BTC="1")
        client, origin = RawClient(server.url, account), RawClient(real.url, account)
        assert status(client) == "TRADING"
        asked = {"symbol": BTC, "interval": "15m", "limit": "50"}
        mine, theirs = (c.public("/api/v3/klines", **asked).json() for c in (client, origin))
        assert mine[:-1] == theirs[:-1]
        exchange = server.client(account)
        exchange.load_markets()
        assert len(exchange.fetch_ohlcv("BTC/USDT", "1h", limit=100)) == 100
        book = exchange.fetch_order_book("BTC/USDT", limit=5)
        assert book["bids"][0][0] < exchange.fetch_ticker("BTC/USDT")["last"] < book["asks"][0][0]
        assert set(exchange.fetch_tickers()) == {"BTC/USDT", "ETH/USDT"}
        assert client.public("/api/v3/ticker/price", symbol="DOGEUSDT").json()["code"] == -1121
        assert client.public("/api/v3/klines", symbol=BTC, interval="7m").json()["code"] == -1120
        assert server.admin.state()["market"] == "public binance spot"
        with pytest.raises(BadInput, match="real one"):
            server.admin.set_clock(0)
        with pytest.raises(BadInput, match="real one"):
            server.admin.shock(-0.1)

        price = Decimal(client.public("/api/v3/ticker/price", symbol=BTC).json()["price"])
        bought = client.signed("POST", ORDER, **MARKET_ORDER).json()
        assert bought["status"] == "FILLED"
        assert Decimal(bought["fills"][0]["price"]) == pytest.approx(price, rel=Decimal("0.01"))
        stop = client.signed(
            "POST", ORDER, symbol=BTC, side="SELL", type="STOP_LOSS", quantity="0.5",
            stopPrice=str((price * Decimal("0.9")).quantize(Decimal("0.01"))), newClientOrderId="stop",
        ).json()  # fmt: skip
        assert "orderId" in stop, stop

        real.stop()
        until(lambda: status(client) == "BREAK")
        assert client.signed("POST", ORDER, **MARKET_ORDER).json() == {"code": -1013, "msg": "Market is closed."}
        for path in ("/api/v3/ticker/price", "/api/v3/depth", "/api/v3/avgPrice"):
            silent = client.public(path, symbol=BTC)
            assert (silent.status_code, silent.json()["code"]) == (503, -1001)
        waiting = client.signed("GET", ORDER, symbol=BTC, origClientOrderId="stop").json()
        assert waiting["status"] == "NEW"
        server.stop()
        server.start()  # a restart while nobody answers keeps the market closed, and everything else
        assert status(client) == "BREAK"
        assert client.signed("GET", ORDER, symbol=BTC, origClientOrderId="stop").json()["status"] == "NEW"

        real.start()
        until(lambda: status(client) == "TRADING", 60)
        real.admin.shock(-0.2, "BTC/USDT")
        until(lambda: client.signed("GET", ORDER, symbol=BTC, origClientOrderId="stop").json()["status"] == "FILLED")
        real.admin.halt("BTC/USDT")


# ----------------------------------------------------------------------------------------------- by a scripted exchange
@dataclass
class Script:
    """What the exchange will say: the candles of the last minutes and the best prices, in plain numbers."""

    now_ms: int = 1_760_000_030_000
    minutes: list[tuple[int, float, float, float]] = field(default_factory=list)  # open time, high, low, close
    bid: float = 0.0
    ask: float = 0.0
    down: bool = False
    limited_s: int = 0
    trading: str = "TRADING"
    asked: int = 0
    tick: str = "0.01000000"

    def set(self, high: float, low: float, close: float, spread: float = 0.02) -> None:
        """The minute of now."""
        open_ms = self.now_ms // 60_000 * 60_000
        self.minutes = [*[m for m in self.minutes if m[0] != open_ms][-5:], (open_ms, high, low, close)]
        self.bid, self.ask = close - spread / 2, close + spread / 2

    def __call__(self, request: Request) -> Answer:
        if self.down:
            return Answer(502, b"bad gateway")
        self.asked += 1
        if self.limited_s:
            return Answer(418, b'{"code":-1003,"msg":"banned"}', {"Retry-After": str(self.limited_s)})
        asked = {k: v[0] for k, v in parse_qs(urlsplit(request.path).query).items()}
        path = urlsplit(request.path).path
        body: Any
        if path.endswith("/exchangeInfo"):
            body = {"symbols": [{
                "symbol": BTC, "status": self.trading, "baseAsset": "BTC", "quoteAsset": "USDT", "filters": [
                    {"filterType": "PRICE_FILTER", "minPrice": "0.01", "maxPrice": "1000000.00", "tickSize": self.tick},
                    {"filterType": "LOT_SIZE", "minQty": "0.00001", "maxQty": "9000.0", "stepSize": "0.00001000"},
                    {"filterType": "NOTIONAL", "minNotional": "5.0", "maxNotional": "9000000.0"},
                    {"filterType": "MAX_NUM_ALGO_ORDERS", "maxNumAlgoOrders": 5},
                ],
            }]}  # fmt: skip
        elif path.endswith("/bookTicker"):
            body = [{"symbol": BTC, "bidPrice": f"{self.bid:.2f}", "askPrice": f"{self.ask:.2f}"}]
        else:
            assert asked["symbol"] == BTC
            body = [
                [t, f"{close:.2f}", f"{high:.2f}", f"{low:.2f}", f"{close:.2f}", "50.0"]
                for t, high, low, close in self.minutes
            ]
        return Answer(200, json.dumps(body).encode())


def run_scripted(steps: Callable[[Script, PaperExchange, Callable[[], Any]], Any]) -> None:
    """Run `steps(script, exchange, poll)`, a coroutine function, against a feed of the script's answers."""
    script = Script()
    script.set(50_000, 50_000, 50_000)

    async def main(url: str) -> None:
        exchange = PaperExchange(PublicMarket(["BTC/USDT"]), None)
        exchange.restore(SavedState(), script.now_ms)
        exchange.create_account({"USDT": Decimal(100_000), "BTC": Decimal(1)}, "a")
        feed = PublicFeed(exchange, url, lambda: script.now_ms, stale_s=10)
        try:
            await steps(script, exchange, feed.poll)
        finally:
            await feed.close()

    with serving(script) as (url, _):
        asyncio.run(main(url))


def stop_at(price: int, name: str = "stop") -> NewOrder:
    return NewOrder(BTC, OrderSide.SELL, OrderKind.STOP_LOSS, name, 10_000, stop_ticks=price * 100)


def test_a_dip_between_two_looks_is_seen() -> None:
    async def steps(script: Script, exchange: PaperExchange, poll: Callable[[], Any]) -> None:
        await poll()
        placed = exchange.engine.place("a", stop_at(49_000), script.now_ms)
        script.now_ms += 1000
        script.set(50_010, 49_001, 50_000)
        await poll()
        assert placed.status is OrderStatus.NEW
        script.now_ms += 1000
        script.set(50_010, 48_990, 50_000)  # down and up again since the last look
        await poll()
        assert placed.status is OrderStatus.FILLED
        again = exchange.engine.place("a", stop_at(48_995, "again"), script.now_ms)
        script.now_ms += 1000
        await poll()
        assert again.status is OrderStatus.NEW  # the same low is not met twice

    run_scripted(steps)


def test_nothing_happens_while_it_is_silent_and_the_first_new_price_counts() -> None:
    async def steps(script: Script, exchange: PaperExchange, poll: Callable[[], Any]) -> None:
        await poll()
        placed = exchange.engine.place("a", stop_at(49_000), script.now_ms)
        script.down = True
        script.now_ms += 11_000
        await poll()
        assert exchange.conditions.broken == {BTC}
        with pytest.raises(Refusal, match="closed"):
            exchange.engine.place("a", stop_at(48_000, "second"), script.now_ms)
        script.now_ms += 600_000
        script.set(51_000, 40_000, 48_500)
        script.down = False
        await poll()
        assert exchange.conditions.broken == set()
        assert placed.status is OrderStatus.FILLED
        paid = (
            Decimal(placed.filled_quote_atoms) / placed.filled_lots / exchange.engine.rules[BTC].quote_atoms_per_ticklot
        )
        assert 48_400 * 100 < paid < 48_500 * 100  # the new price, neither the stop's nor the low of what was missed

    run_scripted(steps)


def test_the_observed_spread_is_what_takers_pay() -> None:
    async def steps(script: Script, exchange: PaperExchange, poll: Callable[[], Any]) -> None:
        script.set(50_000, 50_000, 50_000, spread=40)
        await poll()
        order = exchange.engine.place("a", NewOrder(BTC, OrderSide.BUY, OrderKind.MARKET, "m", 1000), script.now_ms)
        exchange.collect()
        slippage = exchange.engine.settings.slippage_ppm * 50_000 * 100 // 1_000_000
        assert exchange.fills_by_order[order.order_id][0].price_ticks == 5_002_000 + slippage
        resting = NewOrder(BTC, OrderSide.BUY, OrderKind.LIMIT, "l", 1000, 4_990_000)
        placed = exchange.engine.place("a", resting, script.now_ms)
        script.now_ms += 1000
        script.set(50_000, 49_890, 49_890, spread=40)  # the best ask is 49,910: nobody sold at 49,900
        await poll()
        assert placed.status is OrderStatus.NEW
        script.now_ms += 1000
        script.set(50_000, 49_870, 49_870, spread=40)
        await poll()
        assert placed.status is OrderStatus.FILLED

    run_scripted(steps)


def test_breaks_by_the_exchange_itself_and_by_old_candles() -> None:
    async def steps(script: Script, exchange: PaperExchange, poll: Callable[[], Any]) -> None:
        await poll()
        assert exchange.conditions.broken == set()
        script.now_ms += 240_000  # the candles stand still
        await poll()
        assert exchange.conditions.broken == {BTC}
        script.set(50_000, 50_000, 50_000)
        await poll()
        assert exchange.conditions.broken == set()
        script.trading = "BREAK"
        script.now_ms += 301_000
        script.set(50_000, 50_000, 50_000)
        await poll()
        assert exchange.conditions.broken == {BTC}

    run_scripted(steps)


def test_rules_are_the_exchanges_own_and_their_grid_stays() -> None:
    async def steps(script: Script, exchange: PaperExchange, poll: Callable[[], Any]) -> None:
        await poll()
        rules = exchange.engine.rules[BTC]
        assert (rules.tick, rules.max_lots, rules.min_notional) == (Decimal("0.01"), 900_000_000, Decimal(5))
        script.tick = "0.10000000"
        script.now_ms += 301_000
        script.set(50_000, 50_000, 50_000)
        await poll()
        assert exchange.engine.rules[BTC].tick == Decimal("0.01")

    run_scripted(steps)


def test_a_ban_is_waited_out_in_silence() -> None:
    async def steps(script: Script, exchange: PaperExchange, poll: Callable[[], Any]) -> None:
        await poll()
        script.limited_s = 60
        script.now_ms += 1000
        await poll()
        script.limited_s, asked = 0, script.asked
        for _ in range(5):
            script.now_ms += 10_000
            await poll()
        assert script.asked == asked
        assert exchange.conditions.broken == {BTC}
        script.now_ms += 11_000
        script.set(50_000, 50_000, 50_000)
        await poll()
        assert script.asked > asked
        assert exchange.conditions.broken == set()

    run_scripted(steps)
