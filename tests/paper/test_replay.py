"""Recorded candles as an exchange: at their own time under a stepped clock, or shifted to end now, outages kept."""

from __future__ import annotations

import time
from pathlib import Path

import ccxt
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.futures import futures_account, futures_client
from tests.support.paper_server import PaperServerProcess
from tradewind.errors import BadInput

STEP_MS = 900_000
START = 1_750_000_000_000 // (4 * 3_600_000) * 4 * 3_600_000
BARS = 400
OUTAGE = range(200, 212)


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[list[float]]]:
    """A directory with one file, and its bars as ccxt writes them."""
    directory = tmp_path_factory.mktemp("recording")
    rng = np.random.default_rng(4)
    closes = np.round(50_000 * np.exp(np.cumsum(rng.normal(0, 0.002, BARS))), 2)
    rows = []
    for i in range(BARS):
        opened = float(closes[i - 1]) if i else 50_000.0
        high, low = max(opened, float(closes[i])) + 25.0, min(opened, float(closes[i])) - 25.0
        rows.append([START + i * STEP_MS, opened, round(high, 2), round(low, 2), float(closes[i]), 120.5])
    rows = [row for i, row in enumerate(rows) if i not in OUTAGE]
    write(directory, rows)
    return directory, rows


def write(directory: Path, rows: list[list[float]]) -> None:
    names = ("open_time", "open", "high", "low", "close", "volume")
    columns = {name: [row[k] for row in rows] for k, name in enumerate(names)}
    columns["open_time"] = [int(t) for t in columns["open_time"]]
    pq.write_table(pa.table(columns), directory / "BTC_USDT-15m.parquet")


def everything(client: ccxt.binance, since: int) -> list[list[float]]:
    found: list[list[float]] = client.fetch_ohlcv("BTC/USDT", "15m", since=since, limit=1000)
    return found


def test_own_time_under_a_stepped_clock(recording: tuple[Path, list[list[float]]], empty_postgres_url: str) -> None:
    directory, rows = recording
    with PaperServerProcess(empty_postgres_url, market=f"replay:{directory}", own_time=True) as server:
        assert server.admin.clock().mode == "stepped"
        assert server.admin.clock().market_ms == START + BARS * STEP_MS
        client = server.client(server.create_account(USDT="100000"))
        client.load_markets()
        assert everything(client, START) == rows  # what was recorded, with its outage, and nothing else
        server.admin.set_clock(START + 100 * STEP_MS)
        assert everything(client, START)[:100] == rows[:100]
        assert everything(client, START)[100:] == [[rows[100][0], *[rows[100][1]] * 4, 0.0]]
        bought = client.create_order("BTC/USDT", "market", "buy", 0.5)
        assert bought["average"] == pytest.approx(rows[100][1], rel=0.002)
        order = client.create_order(
            "BTC/USDT", "limit", "buy", 0.1, min(row[3] for row in rows[100:150]) + 100, {"timeInForce": "GTC"}
        )
        server.admin.step(50)
        assert client.fetch_order(order["id"], "BTC/USDT")["status"] == "closed"
        server.kill()
        server.start()
        assert server.admin.clock().market_ms == START + 150 * STEP_MS
        assert everything(client, START)[:150] == rows[:150]
        server.admin.set_clock(START + 205 * STEP_MS)  # in the outage: the last candle is the one before it
        assert everything(client, START)[-1] == rows[199]


def test_an_order_meets_the_open_at_which_the_clock_stands(tmp_path: Path, empty_postgres_url: str) -> None:
    """A bar that opened beyond a resting order showed that price, and filled the order only as the bar went on."""
    flat = [50_000.0, 50_025.0, 49_975.0, 50_000.0, 120.5]
    gapped = [50_500.0, 50_525.0, 50_475.0, 50_500.0, 120.5]
    write(tmp_path, [[START + i * STEP_MS, *(gapped if i >= 20 else flat)] for i in range(40)])
    with PaperServerProcess(empty_postgres_url, market=f"replay:{tmp_path}", own_time=True) as server:
        server.admin.set_clock(START + 15 * STEP_MS)
        client = server.client(server.create_account(BTC="1"))
        futures = futures_client(server, futures_account(server))
        for desk, symbol in ((client, "BTC/USDT"), (futures, "BTC/USDT:USDT")):
            desk.create_order(symbol, "limit", "sell", 0.1, 50_300.0, {"timeInForce": "GTC"})
        server.admin.step(4)
        assert client.fetch_my_trades("BTC/USDT") == futures.fetch_my_trades("BTC/USDT:USDT") == []
        server.admin.step(1)
        for desk, symbol in ((client, "BTC/USDT"), (futures, "BTC/USDT:USDT")):
            (trade,) = desk.fetch_my_trades(symbol)
            assert (trade["timestamp"], trade["price"], trade["amount"]) == (START + 20 * STEP_MS, 50_300.0, 0.1)


def test_shifted_to_end_now(recording: tuple[Path, list[list[float]]], empty_postgres_url: str) -> None:
    directory, rows = recording
    with PaperServerProcess(empty_postgres_url, market=f"replay:{directory}") as server:
        client = server.client()
        client.load_markets()
        now_ms = time.time() * 1000
        found = everything(client, int(now_ms) - (BARS + 20) * STEP_MS)
        shift = found[0][0] - rows[0][0]
        assert shift % (4 * 3_600_000) == 0
        assert now_ms - 2 * STEP_MS < found[-1][0] <= now_ms  # the last one is forming
        finished = len(found) - 1
        assert [[t - shift, *rest] for t, *rest in found[:finished]] == rows[:finished]
        assert finished >= len(rows) - 17
        server.stop()
        server.start()  # where it was put it stays
        assert everything(client, int(found[0][0]))[:finished] == found[:finished]
        with pytest.raises(BadInput, match="refused POST clock"):
            server.admin.run(-1)
