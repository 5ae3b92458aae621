"""One year of 15m bars of 50 symbols from the paper exchange on loopback, by the job that loads history."""

from __future__ import annotations

import secrets
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil

from tradewind.adapters.migrations import migrate
from tradewind.bench.rows import BenchOptions, Row, seconds
from tradewind.bench.servers import scratch_database, scratch_postgres, scratch_valkey
from tradewind.errors import BadInput, ExchangeUnreachable, StackFailed
from tradewind.jobs.market import backfill_history
from tradewind.paper.admin import PaperAdmin
from tradewind.settings import Settings, load_settings
from tradewind.stack.environment import base_environment
from tradewind.stack.processes import ProcessMark, end_sessions, free_port, last_words, spawn
from tradewind.wiring import Wiring

_BENCH = "data"
_SYMBOLS = 50
_DAYS = 365
_BOUND_S = 60.0
# What the allocators keep back is flat too, but not to the byte.
_FLAT_MIB = 64.0
_NO_LIMIT = "1000000000"
_START_S = 60.0


def measure_load(directory: Path, options: BenchOptions) -> list[Row]:
    """Seconds of the whole load, and by how much the process grew between its first tenth and its end."""
    symbols = tuple(f"S{number:02d}/USDT" for number in range(_SYMBOLS))
    days = _DAYS // 10 if options.quick else _DAYS
    with scratch_postgres(directory / "load") as server, scratch_valkey(directory / "load") as cache:
        database_url = scratch_database(server, "load", schema=False)
        port = free_port()
        settings = load_settings(
            mode="demo", home_dir=directory / "home", symbols=symbols, database_url=database_url,
            cache_url=cache.url(), exchange_url=f"http://127.0.0.1:{port}", exchange_admin_token=secrets.token_hex(16),
        )  # fmt: skip
        migrate(database_url, settings.identity)
        with _exchange(directory, settings, port):
            return _load(settings, symbols, days)


def _load(settings: Settings, symbols: tuple[str, ...], days: int) -> list[Row]:
    wiring = Wiring(settings)
    process = psutil.Process()
    resident: list[tuple[float, float]] = []  # (per cent done, MiB)

    def watch(job: Mapping[str, Any]) -> None:
        resident.append((job["progress"]["percent"], process.memory_info().rss / 2**20))

    end = wiring.clock.now().replace(minute=0, second=0, microsecond=0)
    try:
        took_s = seconds(
            lambda: backfill_history(wiring, "bench", symbols, ["15m"], end - timedelta(days=days), end, progress=watch)
        )
        job = wiring.market_store.job("bench")
    finally:
        wiring.close()
    assert job is not None
    warm = next((mib for percent, mib in resident if percent >= 10), resident[-1][1])
    bars = job["progress"]["rows_new"]
    expected = len(symbols) * days * 96
    what = f"{days} days of 15m bars of {len(symbols)} symbols from the paper exchange ({bars:,} bars)"
    return [
        Row(_BENCH, what, took_s, "s", _BOUND_S),
        Row(_BENCH, "bars of it that are missing", expected - bars, "bars", 0),
        Row(_BENCH, "memory it took after its first tenth", max(mib for _, mib in resident) - warm, "MiB", _FLAT_MIB),
    ]


@contextmanager
def _exchange(directory: Path, settings: Settings, port: int) -> Iterator[None]:
    """A paper exchange without a rate limit and without state."""
    log = directory / "exchange.log"
    process = spawn(
        [
            sys.executable, "-m", "tradewind.paper", "--port", str(port), "--memory",
            "--weight-limit", _NO_LIMIT, "--order-limit", _NO_LIMIT,
        ],
        log=log, env=base_environment(settings),
    )  # fmt: skip
    mark = ProcessMark.of(process.pid)
    try:
        with PaperAdmin(settings.exchange_url, settings.exchange_admin_token.get_secret_value()) as admin:
            deadline = time.monotonic() + _START_S
            while time.monotonic() < deadline and process.poll() is None:
                with suppress(ExchangeUnreachable, BadInput):
                    admin.clock()
                    break
                time.sleep(0.1)
            else:
                raise StackFailed(f"the paper exchange did not start: {last_words(log)}")
        yield
    finally:
        end_sessions([mark])
        process.wait(timeout=10)
