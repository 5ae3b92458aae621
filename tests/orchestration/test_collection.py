"""What a collecting task announces: the newest interval alone, and which symbols lack their bar."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowSkipException

from tests.support.market_rig import NOON, NOON_MS, STEP, MarketRig
from tests.support.paper_server import PaperServerProcess
from tradewind.jobs import collecting
from tradewind.orchestration import runtime
from tradewind.orchestration.assets import CLOSED_CANDLES_15M, COLLECTED_15M
from tradewind.orchestration.collection import collect_interval
from tradewind.wiring import Wiring

QUARTER = timedelta(minutes=15)


@pytest.fixture(scope="module")
def server() -> Iterator[PaperServerProcess]:
    with PaperServerProcess() as server:
        yield server


@pytest.fixture
def rig(
    server: PaperServerProcess, postgres_url: str, valkey_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[MarketRig]:
    monkeypatch.setattr(collecting, "_STRAGGLERS_S", 0.5)
    server.admin.clear_faults()
    rig = MarketRig(server, postgres_url, valkey_url, tmp_path)

    @contextmanager
    def ports(**_: str) -> Iterator[Wiring]:
        yield rig.ports

    monkeypatch.setattr(runtime, "task_ports", ports)
    yield rig
    rig.close()


def announced(start: datetime | None, run_type: str = "scheduled") -> list[Any]:
    """What a run of the interval that begins at `start` announces; None is a run without a date."""
    events: list[Any] = []
    outlet = SimpleNamespace(add=lambda asset, extra: events.append((asset, extra)))
    run = SimpleNamespace(
        logical_date=start, data_interval_start=start, data_interval_end=start and start + QUARTER, run_type=run_type
    )
    context: Any = {"dag_run": run, "outlet_events": {COLLECTED_15M: outlet}}
    collect_interval(context, "15m", COLLECTED_15M, CLOSED_CANDLES_15M)
    return events


def test_the_newest_interval_is_announced_and_no_other(rig: MarketRig) -> None:
    complete = {"interval_end": NOON.isoformat(), "complete": True, "missing": []}
    assert announced(NOON - QUARTER) == [(CLOSED_CANDLES_15M, complete)]
    assert announced(None, "manual") == [(CLOSED_CANDLES_15M, complete)]
    assert announced(NOON - 2 * QUARTER) == []
    assert announced(NOON - QUARTER, "backfill") == []
    with pytest.raises(AirflowSkipException, match="not closed"):
        announced(NOON)


def test_a_symbol_without_its_bar_is_named_and_the_others_are_announced(rig: MarketRig) -> None:
    rig.server.admin.add_fault(
        "missing_candles", path="/api/v3/klines", symbol="ETHUSDT", from_ms=NOON_MS - STEP, to_ms=NOON_MS
    )
    ((_, event),) = announced(NOON - QUARTER)
    assert (event["complete"], event["missing"]) == (False, ["ETH/USDT"])
    assert len(rig.stored("BTC/USDT")) == 1
    verdicts = rig.ports.market_store.newest_quality(["BTC/USDT", "ETH/USDT"], NOON - QUARTER)
    assert "stale" in verdicts["ETH/USDT"].findings
    assert "stale" not in verdicts["BTC/USDT"].findings
