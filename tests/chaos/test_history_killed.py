"""A history load killed in its middle carries on: no bar lost, none twice, no committed chunk fetched again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from tests.support.market_rig import DAY, NOON, NOON_MS, MarketRig
from tests.support.paper_server import PaperServerProcess
from tradewind.core.timeframes import columns
from tradewind.jobs.market import backfill_history

pytestmark = pytest.mark.chaos

DAYS = 400
_LOAD = """
import sys
from datetime import datetime
from tradewind.jobs.market import backfill_history
from tradewind.settings import load_settings
from tradewind.wiring import Wiring
backfill_history(
    Wiring(load_settings()), "load", ["BTC/USDT"], ["15m"], *map(datetime.fromisoformat, sys.argv[1:])
)
"""


@pytest.fixture
def rig(postgres_url: str, valkey_url: str, tmp_path: Path) -> Iterator[MarketRig]:
    with PaperServerProcess() as server:
        rig = MarketRig(server, postgres_url, valkey_url, tmp_path)
        yield rig
        rig.close()


def test_a_killed_load_carries_on(rig: MarketRig) -> None:
    start = NOON - timedelta(days=DAYS)
    settings = rig.ports.settings
    environment = os.environ | settings.environment() | {
        "PYTHONPATH": "include",
        "TRADEWIND_DATABASE_URL": settings.database_url.get_secret_value(),
        "TRADEWIND_CACHE_URL": settings.cache_url.get_secret_value(),
        "TRADEWIND_EXCHANGE_ADMIN_TOKEN": settings.exchange_admin_token.get_secret_value(),
    }  # fmt: skip
    rig.server.admin.add_fault("delay", path="/api/v3/klines", seconds=0.05)
    command = [sys.executable, "-c", _LOAD, start.isoformat(), NOON.isoformat()]
    process = subprocess.Popen(command, env=environment, cwd=Path(__file__).parents[2])
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        job = rig.ports.market_store.job("load")
        if job is not None and 0 < job["progress"]["percent"] < 80:
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the load ended before it could be killed"
    rig.server.admin.clear_faults()

    left = rig.ports.market_store.open_chunks("load")
    done = rig.stored("BTC/USDT").open_time_ms
    assert len(left) > 0
    assert 0 < len(done) < DAYS * 96
    assert not any(((done >= chunk.start_ms) & (done < chunk.end_ms)).any() for chunk in left)

    result = backfill_history(rig.ports, "load", ["BTC/USDT"], ["15m"], start, NOON)
    assert result["chunks"] == len(left)
    fetched_from = {int(url.split("startTime=")[1].split("&")[0]) for url in rig.kline_calls}
    assert all(any(chunk.start_ms <= ms < chunk.end_ms for chunk in left) for ms in fetched_from - {0})
    stored, truth = rig.stored("BTC/USDT"), rig.truth("BTC/USDT", "15m", NOON_MS - DAYS * DAY, NOON_MS)
    for mine, theirs in zip(columns(stored), columns(truth), strict=True):
        np.testing.assert_array_equal(mine, theirs)
