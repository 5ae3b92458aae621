"""The paper exchange: orders that are on disk before they are answered, candles, the synthetic market, matching.

The server runs as a process of its own on one core and the load comes from another, where the machine has two.
"""

from __future__ import annotations

import hashlib
import hmac
import itertools
import os
import random
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tradewind.bench.http_load import LoadResult, MakeRequest, as_fast_as_answered, at_rate
from tradewind.bench.rows import BenchOptions, Row, percentile, row_of, seconds
from tradewind.bench.servers import scratch_database, scratch_dir, scratch_postgres
from tradewind.core.matching import Engine
from tradewind.core.matching_book import BarTicks
from tradewind.core.matching_lists import NewOrderList
from tradewind.core.matching_types import ListKind, NewOrder, OrderKind, OrderSide
from tradewind.core.matching_walk import Stretch, walk
from tradewind.errors import BadInput, ExchangeUnreachable, StackFailed
from tradewind.paper.admin import PaperAccount, PaperAdmin
from tradewind.paper.markets import DAY_MS, TickBars
from tradewind.paper.markets_synthetic import BLOCK_DAYS, BLOCK_MS, SyntheticMarket
from tradewind.stack.processes import ProcessMark, end_sessions, free_port, spawn

_BENCH = "exchange"
_ORDERS_PER_S = 300
_CANDLES_PER_S = 200
_P99_MS = 25
_BARS_PER_S = 5e6
_STEPS_PER_S = 2e6
_CONNECTIONS = 24
# What an account has taken of a minute's volume is gone for it: in a quiet minute one account would empty the book.
_ACCOUNTS = 100
_START_S = 60.0
_YEAR_DAYS = 365
_SYMBOLS = 50


def measure(options: BenchOptions) -> list[Row]:
    """Every figure of the paper exchange beside its bound."""
    shorter = 10 if options.quick else 1
    rows = []
    with scratch_dir() as directory, scratch_postgres(directory) as postgres:
        url = scratch_database(postgres, "paper", schema=False)
        with _apart(), _serving(directory, url) as server:
            rows += _orders(server, options, 8.0 / shorter)
            rows += _candles(server, options, 6.0 / shorter)
    rows.append(_generation(options, _SYMBOLS // shorter))
    rows += _matching(options, 500_000 // shorter)
    return rows


# -------------------------------------------------------------------------------------------------------------- server
@dataclass(frozen=True, slots=True)
class _Server:
    url: str
    accounts: tuple[PaperAccount, ...]


@contextmanager
def _apart() -> Iterator[None]:
    """This process on the last core, so that the first is left to the server, which takes it by the same means."""
    if not hasattr(os, "sched_setaffinity") or (os.cpu_count() or 1) < 2:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _take_first_core(pid: int) -> None:
    if hasattr(os, "sched_setaffinity") and (os.cpu_count() or 1) > 1:
        os.sched_setaffinity(pid, {0})


@contextmanager
def _serving(directory: Path, database_url: str) -> Iterator[_Server]:
    port, token = free_port(), secrets.token_hex(16)
    environment = {
        "TRADEWIND_EXCHANGE_ADMIN_TOKEN": token,
        "TRADEWIND_PAPER_DATABASE_URL": database_url,
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    command = [sys.executable, "-m", "tradewind.paper", "--port", str(port), "--symbols", "BTC/USDT,ETH/USDT"]
    command += ["--weight-limit", "1000000000", "--order-limit", "1000000000"]
    log = directory / "exchange.log"
    process = spawn(command, log=log, env=environment)
    _take_first_core(process.pid)
    mark = ProcessMark.of(process.pid)
    try:
        with PaperAdmin(f"http://127.0.0.1:{port}", token) as admin:
            _wait_for(admin, process, log)
            accounts = tuple(admin.create_account({"USDT": "1000000000", "BTC": "1000000"}) for _ in range(_ACCOUNTS))
            yield _Server(f"http://127.0.0.1:{port}", accounts)
    finally:
        end_sessions([mark])


def _wait_for(admin: PaperAdmin, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(ExchangeUnreachable, BadInput):
            admin.clock()
            return
        time.sleep(0.1)
    raise StackFailed(f"the paper exchange did not start: {log.read_text(errors='replace')[-2000:]}")


# -------------------------------------------------------------------------------------------------------------- orders
def _orders(server: _Server, options: BenchOptions, duration_s: float) -> list[Row]:
    """Market orders, bought and sold in turn: each is filled, so each writes an order, a trade and two balances."""
    options.say("signed orders, each answered after its commit")
    make = _market_orders(server)
    as_fast_as_answered(server.url, make, _CONNECTIONS, min(2.0, duration_s))
    runs = [as_fast_as_answered(server.url, make, _CONNECTIONS, duration_s) for _ in range(3)]
    calm = [at_rate(server.url, make, _ORDERS_PER_S / 2, _CONNECTIONS, duration_s) for _ in range(3)]
    what = f"signed orders, filled and committed (fsync), {_CONNECTIONS} connections"
    return [
        row_of(_BENCH, what, [r.rate for r in runs], "orders/s", _ORDERS_PER_S, "at least"),
        _p99_row(f"signed orders at {_ORDERS_PER_S // 2}/s: p99", calm),
    ]


def _market_orders(server: _Server) -> MakeRequest:
    numbers = itertools.count()
    accounts = itertools.cycle(server.accounts)

    def make() -> bytes:
        number, account = next(numbers), next(accounts)
        side = "SELL" if number // _ACCOUNTS % 2 else "BUY"
        body = (
            f"symbol=BTCUSDT&side={side}&type=MARKET&quantity=0.00020&newClientOrderId=b{number}"
            f"&timestamp={time.time_ns() // 1_000_000}"
        )
        signature = hmac.new(account.api_secret.encode(), body.encode(), hashlib.sha256).hexdigest()
        body += f"&signature={signature}"
        head = f"POST /api/v3/order HTTP/1.1\r\nHost: x\r\nX-MBX-APIKEY: {account.api_key}"
        return f"{head}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()

    return make


# ------------------------------------------------------------------------------------------------------------- candles
def _candles(server: _Server, options: BenchOptions, duration_s: float) -> list[Row]:
    """Calls for 1,000 bars: half the newest ones, half anywhere in two years, as a client that fills its history."""
    options.say("candles, a thousand at a time")
    make = _kline_calls()
    as_fast_as_answered(server.url, make, 8, min(4.0, duration_s))
    runs = [as_fast_as_answered(server.url, make, 8, duration_s) for _ in range(3)]
    calm = [at_rate(server.url, make, _CANDLES_PER_S / 2, 8, duration_s) for _ in range(3)]
    what = "klines calls of 1,000 bars, half of them the newest"
    return [
        row_of(_BENCH, what, [r.rate for r in runs], "calls/s", _CANDLES_PER_S, "at least"),
        _p99_row(f"klines calls at {_CANDLES_PER_S // 2}/s: p99", calm),
    ]


def _kline_calls() -> MakeRequest:
    rng = random.Random(1)
    now_ms = time.time_ns() // 1_000_000
    lengths = {"15m": 900_000, "1h": 3_600_000}

    def make() -> bytes:
        interval = rng.choice(list(lengths))
        target = f"/api/v3/klines?symbol={rng.choice(('BTCUSDT', 'ETHUSDT'))}&interval={interval}&limit=1000"
        if rng.random() < 0.5:
            start_ms = now_ms - rng.randrange(1001 * lengths[interval], 2 * _YEAR_DAYS * DAY_MS)
            target += f"&startTime={start_ms}"
        return f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode()

    return make


def _p99_row(what: str, runs: list[LoadResult]) -> Row:
    return row_of(_BENCH, what, [percentile(r.latency_s, 0.99) * 1000 for r in runs], "ms", _P99_MS)


# ---------------------------------------------------------------------------------------------------- market, matching
def _generation(options: BenchOptions, symbols: int) -> Row:
    """One year of minutes for every symbol, made from nothing, each block once."""
    options.say(f"a year of minutes for {symbols} synthetic symbols")
    names = [f"C{i}/USDT" for i in range(symbols)]
    first = 1_700_000_000_000 // BLOCK_MS
    blocks = range(first, first + _YEAR_DAYS // BLOCK_DAYS)
    SyntheticMarket(names[:1], 1).bars("C0USDT", first * BLOCK_MS, (first + 1) * BLOCK_MS)  # compiles the kernels
    rates = []
    for seed in range(3):
        market = SyntheticMarket(names, seed)
        begun = time.perf_counter()
        made = sum(
            len(market.bars(symbol, block * BLOCK_MS, (block + 1) * BLOCK_MS))
            for block in blocks
            for symbol in market.rules
        )
        rates.append(made / (time.perf_counter() - begun))
    what = f"synthetic minute bars made, {len(blocks) * BLOCK_DAYS} days of {symbols} symbols"
    return row_of(_BENCH, what, rates, "bars/s", _BARS_PER_S, "at least")


def _matching(options: BenchOptions, bars: int) -> list[Row]:
    """A bracket of the strategy's width always rests: bought again as soon as its stop or its target was met."""
    options.say("matching in process")
    market = SyntheticMarket(["BTC/USDT"], 1)
    start_ms = 1_700_000_000_000 // DAY_MS * DAY_MS
    found = market.bars("BTCUSDT", start_ms, start_ms + bars * market.base_ms)
    walked = [bars / seconds(lambda: _walk_brackets(market, found)) for _ in range(5)]
    one_by_one = [bars / 10 / seconds(lambda: _step_bars(market, found, bars // 10)) for _ in range(3)]
    return [
        row_of(
            _BENCH,
            "matching: minute bars walked, a bracket of 2 % and 4 % at rest",
            walked,
            "bars/s",
            _STEPS_PER_S,
            "at least",
        ),
        row_of(_BENCH, "matching: the same bars handed over one by one", one_by_one, "bars/s"),
    ]


def _new_engine(market: SyntheticMarket, bars: TickBars) -> Engine:
    engine = Engine(market.rules.values())
    engine.open_account("a", {"USDT": 10**18})
    engine.on_price("BTCUSDT", int(bars.open[0]), int(bars.volume[0]), int(bars.open_ms[0]), int(bars.open_ms[0]))
    return engine


def _enter(engine: Engine, number: int, now_ms: int) -> None:
    last = engine.quotes["BTCUSDT"].last_ticks
    legs = (
        NewOrder("BTCUSDT", OrderSide.BUY, OrderKind.LIMIT, f"w{number}", 1000, last + last // 500),
        NewOrder("BTCUSDT", OrderSide.SELL, OrderKind.LIMIT_MAKER, f"t{number}", 0, last + last // 25),
        NewOrder("BTCUSDT", OrderSide.SELL, OrderKind.STOP_LOSS, f"s{number}", 0, stop_ticks=last - last // 50),
    )
    engine.place_list("a", NewOrderList(ListKind.OPOCO, "BTCUSDT", f"l{number}", legs), now_ms)


def _walk_brackets(market: SyntheticMarket, bars: TickBars) -> None:
    engine = _new_engine(market, bars)
    _enter(engine, 0, int(bars.open_ms[0]))
    stretch = Stretch(
        bars.open_ms, bars.open_ms + market.base_ms, bars.open, bars.high, bars.low, bars.close, bars.volume
    )
    for number, (_, end_ms) in enumerate(walk(engine, lambda _: stretch), start=1):
        if not engine.open_orders("a"):
            _enter(engine, number, end_ms)


def _step_bars(market: SyntheticMarket, bars: TickBars, count: int) -> None:
    engine = _new_engine(market, bars)
    _enter(engine, 0, int(bars.open_ms[0]))
    columns = zip(*(column[:count].tolist() for column in bars.columns()[:6]), strict=True)
    for number, (open_ms, o, h, low, c, volume) in enumerate(columns, start=1):
        engine.on_bar("BTCUSDT", BarTicks(o, h, low, c, volume), open_ms, open_ms)
        if not engine.symbols_with_orders():
            _enter(engine, number, open_ms)
