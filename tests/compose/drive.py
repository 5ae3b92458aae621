"""What an operator at a shell inside the stack would do, step by step: `python -m tests.compose.drive STEP`.

It runs in a container of the stack's own image, on its networks, and knows each service by its name. Each step prints
what it does, and at its end one line of JSON.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from statistics import median
from typing import Any

from rich.console import Console

from tests.support.invariants import judge
from tradewind.core.types import OrderState
from tradewind.demo import data_stages, model_stage, walk_stages
from tradewind.demo.run import BAR, DemoOptions, DemoRun
from tradewind.paper.admin import PaperAdmin
from tradewind.settings import load_settings
from tradewind.stack import services
from tradewind.wiring import Wiring

MONTHS = 12
# Long enough for a worker to be killed while the exchange holds its answer back.
HANG_S = 25.0
HEALED_WITHIN_S = 240.0
# Bars measured without load, and as many with it.
CYCLES = 12


def load(demo: DemoRun) -> dict[str, Any]:
    """Load history slowly, so that the worker that loads it can be killed in the middle."""
    demo.admin.add_fault("delay", path="/api/v3/klines", seconds=0.3)
    start = demo.start - timedelta(days=30 * MONTHS)
    conf = {
        "symbols": list(demo.wiring.symbols),
        "timeframes": ["15m", "1h"],
        "from": start.isoformat(),
        "to": (demo.start - timedelta(days=1)).isoformat(),
    }
    run = demo.airflow.trigger_dag("backfill_history", conf=conf, run_id="compose__load")
    _wait(lambda: _percent(demo) > 10, 120, "the load does not begin")
    percent = _percent(demo)
    demo.say(f"KILL the load is at {percent:.0f} %")
    _wait(lambda: not demo.admin.faults(), 60, "nobody took the delay away")
    ended = demo.airflow.wait_dag_run("backfill_history", run["dag_run_id"], timeout_s=400)
    (task,) = demo.airflow.task_instances("backfill_history", run["dag_run_id"])
    bars = demo.count("SELECT count(*) FROM candles")
    return {"state": ended["state"], "tries": task["try_number"], "bars": bars, "killed_at_percent": round(percent)}


def _percent(demo: DemoRun) -> float:
    """How far the load is; a job that has not planned its chunks yet has done nothing."""
    job = demo.wiring.market_store.job("history__compose__load")
    return 100 * job["progress"]["done_bars"] / max(job["progress"]["expected_bars"], 1) if job else 0.0


def faults_off(demo: DemoRun) -> dict[str, Any]:
    """What the test does once it has killed somebody."""
    return {"cleared": demo.admin.clear_faults()}


def data(demo: DemoRun) -> dict[str, Any]:
    """The demo's stages up to the models."""
    data_stages.backfill_last_day(demo)
    data_stages.fill_gaps(demo)
    data_stages.score_news(demo)
    return demo.summary


def train(demo: DemoRun) -> dict[str, Any]:
    """The demo's training."""
    return {"champion": model_stage.train_models(demo)}


def trade(demo: DemoRun) -> dict[str, Any]:
    """Walk to an intent, and hold the exchange's answer to its order back, so that the sender can be killed."""
    walk_stages.walk_to_first_intent(demo)
    bar = demo.now() - BAR
    rule = demo.admin.add_fault("hang_after", seconds=HANG_S, method="POST", path="/api/v3/orderList/*", times=1)
    began = time.monotonic()
    demo.airflow.trigger_dag("collect_candles_15m", conf={}, run_id=f"compose__collect__{bar:%Y%m%dT%H%M}")

    def struck() -> bool:
        return any(found["id"] == rule["id"] and found["struck"] for found in demo.admin.faults())

    _wait(struck, 180, "no order was sent")
    demo.say(f"KILL the order was taken {time.monotonic() - began:.1f} s after its bar's collection was asked for")
    (run,) = demo.airflow.dag_runs("run_trade_cycle", state="running")
    ended = demo.airflow.wait_dag_run("run_trade_cycle", run["dag_run_id"], timeout_s=300)
    tasks = {
        task["task_id"]: task["state"] for task in demo.airflow.task_instances("run_trade_cycle", run["dag_run_id"])
    }
    began = time.monotonic()
    _wait(lambda: _is_healed(demo, bar), HEALED_WITHIN_S, "the order is undecided, or reconciliation is not clean")
    return {"run": ended["state"], "tasks": tasks, "healed_after_s": round(time.monotonic() - began, 1)}


def _is_healed(demo: DemoRun, bar: datetime) -> bool:
    store = demo.wiring.trading_store
    undecided = store.orders_in([OrderState.PLANNED, OrderState.SENT, OrderState.UNKNOWN])
    record = store.last_reconciliation()
    return not undecided and not store.unprotected_now() and record is not None and record.clean


def cycles(demo: DemoRun) -> dict[str, Any]:
    """A few bars more through the real DAGs."""
    return {"seconds": [round(walk_stages.run_cycle(demo, walk_stages.step(demo)), 1) for _ in range(4)]}


def crash(demo: DemoRun) -> dict[str, Any]:
    """The demo's crash, and the breaker."""
    walk_stages.hold_a_position(demo)
    walk_stages.crash(demo)
    return demo.summary


def measure(demo: DemoRun) -> dict[str, Any]:
    """Trade cycles on the idle stack, then beside a retraining and a hundred queued backfill runs."""
    walk_stages.step(demo)
    _one_cycle(demo)  # the first one after a start still loads its model
    idle = [_one_cycle(demo) for _ in range(CYCLES)]
    first = demo.start - timedelta(days=2)
    training = demo.airflow.trigger_dag("retrain_models", conf={"reason": "load"}, run_id=f"compose__{time.time():.0f}")
    demo.airflow.create_backfill(
        "collect_candles_15m", first, first + 99 * BAR, max_active_runs=100, reprocess="completed"
    )
    _wait(lambda: len(_running(demo, "collect_candles_15m")) > 50, 60, "the backfill does not begin")
    loaded, waiting = [], []
    for _ in range(CYCLES):
        loaded.append(_one_cycle(demo))
        waiting.append(len(_running(demo, "collect_candles_15m")))
    busy = demo.airflow.dag_run("retrain_models", training["dag_run_id"])["state"]
    return {
        "symbols": len(demo.wiring.symbols),
        "idle": _figures(idle),
        "loaded": _figures(loaded),
        "backfill_runs_waiting": waiting,
        "training_at_the_end": busy,
    }


def _running(demo: DemoRun, dag_id: str) -> list[dict[str, Any]]:
    return [run for run in demo.airflow.dag_runs(dag_id, run_type="backfill") if run["state"] in ("queued", "running")]


def _one_cycle(demo: DemoRun) -> tuple[float, float]:
    """Seconds of one trade cycle's run, and from its wake-up to the start of its first task."""
    bar = walk_stages.step(demo)
    demo.airflow.trigger_dag("collect_candles_15m", conf={}, run_id=f"compose__collect__{bar:%Y%m%dT%H%M}")
    walk_stages.await_cycle(demo, bar)
    row = demo.wiring.database.row("SELECT run_id FROM cycles WHERE bar = %(bar)s", {"bar": bar})
    assert row is not None
    run = demo.airflow.wait_dag_run("run_trade_cycle", row["run_id"], timeout_s=60)
    tasks = demo.airflow.task_instances("run_trade_cycle", row["run_id"])
    woken, ended = (datetime.fromisoformat(run[name]) for name in ("queued_at", "end_date"))
    started = min(datetime.fromisoformat(task["start_date"]) for task in tasks if task["start_date"])
    return (ended - woken).total_seconds(), (started - woken).total_seconds()


def _figures(measured: list[tuple[float, float]]) -> dict[str, float]:
    runs, starts = (sorted(values) for values in zip(*measured, strict=True))
    last = -(-len(runs) * 95 // 100) - 1
    return {
        "cycle_median_s": round(median(runs), 2), "cycle_p95_s": round(runs[last], 2),
        "start_median_s": round(median(starts), 2), "start_p95_s": round(starts[last], 2),
    }  # fmt: skip


def verdicts(demo: DemoRun) -> dict[str, Any]:
    """Every invariant with what breaks it: nothing, it is hoped."""
    return judge(demo.wiring, demo.start - timedelta(days=30 * MONTHS))


def _wait(condition: Callable[[], Any], timeout_s: float, complaint: str) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{complaint} within {timeout_s:.0f} s")
        time.sleep(0.3)
    return found


STEPS = (load, faults_off, data, train, trade, cycles, crash, measure, verdicts)


def main(name: str) -> None:
    settings = load_settings()
    assert settings.market_start is not None
    step = {step.__name__: step for step in STEPS}[name]
    wiring = Wiring(settings)
    admin = PaperAdmin(settings.exchange_url, settings.exchange_admin_token.get_secret_value())
    with closing(wiring), closing(services.airflow_client(settings)) as airflow, closing(admin):
        console = Console(force_terminal=False, width=160)
        demo = DemoRun(
            DemoOptions(cycles=4, months=MONTHS), settings, wiring, airflow, admin, console,
            settings.market_start.astimezone(UTC),
        )  # fmt: skip
        print(json.dumps(step(demo), default=str), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
