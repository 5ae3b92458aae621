"""What the scheduler itself traded against its replay: decision by decision, order by order, fill by fill.

    ./tradewind test tests/e2e/test_live_against_replay.py --scheduled-bars 210 -s

The embedded stack on the stepped paper exchange: each bar is collected, decided and managed by runs of the real DAGs,
while the watch and the minutely checks go on by the wall's clock beside them. `./tradewind parity` then compares, as it
does for anybody's own period. A bar takes some seconds; tests/parity does the same through the jobs alone, in seconds.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from rich.console import Console

from tests.parity.conftest import START_MS, SYMBOLS, write_market
from tradewind.bench.rows import BenchOptions
from tradewind.bench.trading_stack import TradingStack, trading_stack
from tradewind.core.features import LIVE_WINDOW_BARS
from tradewind.core.timeframes import from_ms
from tradewind.core.types import OrderRole, OrderState, Outcome
from tradewind.demo import walk_stages
from tradewind.demo.run import DemoOptions, DemoRun
from tradewind.paper.markets_replay import ReplayMarket
from tradewind.settings import PROJECT_DIR

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(6 * 3600)]

# With this market the shipped thresholds end positions in every way within some two hundred bars.
SEED = 17
RECORDED_BARS = 600
WORTH_BARS = 200
BUSY_S = 900  # a machine that others use as well may be slow, and nothing here is timed


def test_what_the_scheduler_traded_equals_its_replay(
    request: pytest.FixtureRequest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bars = request.config.getoption("--scheduled-bars")
    if not bars:
        pytest.skip("takes some seconds a bar: --scheduled-bars 210")
    assert bars < RECORDED_BARS
    write_market(tmp_path, LIVE_WINDOW_BARS + 250, RECORDED_BARS, SEED)
    market = {"symbols": SYMBOLS, "market": f"replay:{tmp_path}", "market_start": _first_close(tmp_path)}
    with capsys.disabled(), trading_stack(BenchOptions(say=print), **market) as system:
        since = system.now()
        demo = DemoRun(
            DemoOptions(), system.settings, system.wiring, system.airflow, system.admin, Console(), system.now()
        )
        started_s = time.monotonic()
        cycle_s = [walk_stages.run_cycle(demo, walk_stages.step(demo), timeout_s=BUSY_S) for _ in range(bars)]
        took_s = time.monotonic() - started_s
        print(f"{bars} bars in {took_s:.0f} s; median from close to recorded cycle {median(cycle_s):.1f} s")
        print(f"runs of the scheduler meanwhile: {_runs(system)}")
        lived = _lived(system, since)
        print(f"lived: {lived}")
        result = _compare(system, since)
        print(json.dumps(result, indent=1))
        print(f"differences by cause: {_causes(system) or 'none'}")
    assert result["unexplained"] == 0
    assert result["cycles"] == bars
    assert result["decisions"] == (bars - 1) * len(SYMBOLS)  # what was decided last meets no price any more
    if bars >= WORTH_BARS:
        assert lived["stop filled"] >= 3
        assert lived["target filled"] >= 3
        assert lived["exit filled"] >= 1, "no time stop"
        assert lived["stop moved"] >= 5
        assert lived["intents"] >= 10


def _first_close(recording: Path) -> datetime:
    """Where the recording's START_MS lies once it is shifted to end now."""
    market = ReplayMarket(recording)
    market.end_at(time.time_ns() // 1_000_000)
    return from_ms(START_MS + market.shift_ms)


def _runs(system: TradingStack) -> dict[str, dict[str, int]]:
    """Ended runs by DAG and state."""
    found: dict[str, Counter[str]] = {}
    for dag_id in ("collect_candles_15m", "run_trade_cycle", "manage_positions", "detect_regime", "watch_risk"):
        found[dag_id] = Counter(run["state"] for run in system.airflow.dag_runs(dag_id))
    return {dag_id: dict(counts) for dag_id, counts in found.items()}


def _lived(system: TradingStack, since: datetime) -> Counter[str]:
    ledger = system.wiring.parity_store.ledger(since - timedelta(days=1), system.now())
    lived: Counter[str] = Counter()
    lived["intents"] = sum(decision.outcome is Outcome.INTENT for decision in ledger.decisions)
    lived["stop moved"] = sum(order.role is OrderRole.STOP and order.generation > 0 for order in ledger.orders)
    lived["fills"] = len(ledger.fills)
    lived.update(f"{order.role.value} filled" for order in ledger.orders if order.state is OrderState.FILLED)
    return lived


def _compare(system: TradingStack, since: datetime) -> dict[str, Any]:
    """By the command, in a process of its own."""
    settings = system.settings
    environment = settings.environment() | {
        "PYTHONPATH": str(PROJECT_DIR / "include"),
        "TRADEWIND_DATABASE_URL": settings.writer_database_url.get_secret_value(),
        "TRADEWIND_CACHE_URL": settings.cache_url.get_secret_value(),
    }
    command = [sys.executable, "-m", "tradewind.cli", "parity", "--since", since.isoformat(), "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900, check=False)
    try:
        found: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        raise AssertionError(f"{done.returncode}: {done.stdout}{done.stderr}") from None
    assert done.returncode == (1 if found["unexplained"] else 0), done.stderr
    return found


def _causes(system: TradingStack) -> dict[str, int]:
    (stored,) = system.wiring.parity_store.reports(1)
    words = Counter(
        f"{row['kind']} {row['field']}: {row['cause'] or 'unexplained'}" for row in stored["report"]["differences"]
    )
    return dict(words.most_common())
