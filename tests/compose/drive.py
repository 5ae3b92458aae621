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
from tradewind.jobs.permission import permission_now
from tradewind.paper.admin import PaperAdmin
from tradewind.settings import load_settings
from tradewind.stack import services
from tradewind.wiring import Wiring

MONTHS = 12
# Long enough for a worker to be killed while the exchange holds its answer back.
HANG_S = 25.0
HEALED_WITHIN_S = 240.0
# Bars measured without load, and as many with it.
CYCLES = 20
# So much history of every symbol as a decision reads and a training takes: 300 bars of four hours and some weeks.
WIDE_HISTORY = timedelta(days=90)
# Backfill runs that wait at any time of the measurement, and all of them.
QUEUED, BACKFILLED = 100, 600


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


def widen(demo: DemoRun) -> dict[str, Any]:
    """The symbols that have come after the start get history: what a decision reads, and some to train on."""
    conf = {
        "symbols": list(demo.wiring.symbols),
        "timeframes": ["15m", "1h"],
        "from": (demo.start - WIDE_HISTORY).isoformat(),
        "to": demo.now().isoformat(),
    }
    demo.run_dag("backfill_history", conf, timeout_s=400)
    _wait(lambda: permission_now(demo.wiring).allowed, HEALED_WITHIN_S, "entries were not allowed")
    return {"symbols": len(demo.wiring.symbols), "bars": demo.count("SELECT count(*) FROM candles")}


def measure(demo: DemoRun) -> dict[str, Any]:
    """Trade cycles on the idle stack, then beside a retraining and a hundred queued backfill runs."""
    _one_cycle(demo)  # the first one after a start still loads its model
    idle = [_one_cycle(demo) for _ in range(CYCLES)]
    first = demo.start - timedelta(days=10)
    training = demo.airflow.trigger_dag("retrain_models", conf={"reason": "load"}, run_id=f"compose__{time.time():.0f}")
    # A hundred at a time, and so many in all that they do not end before the last cycle.
    demo.airflow.create_backfill(
        "collect_candles_15m", first, first + (BACKFILLED - 1) * BAR, max_active_runs=QUEUED, reprocess="completed"
    )
    _wait(lambda: len(_running(demo)) > 0.9 * QUEUED, 60, "the backfill does not begin")
    loaded, waiting = [], []
    for _ in range(CYCLES):
        loaded.append(_one_cycle(demo))
        waiting.append(len(_running(demo)))
    busy = demo.airflow.dag_run("retrain_models", training["dag_run_id"])["state"]
    return {
        "symbols": len(demo.wiring.symbols),
        "idle": _figures(idle),
        "loaded": _figures(loaded),
        "backfill_runs_waiting": waiting,
        "training_at_the_end": busy,
    }


def _running(demo: DemoRun) -> list[dict[str, Any]]:
    return list(demo.airflow.dag_runs("collect_candles_15m", run_type="backfill", state="running"))


def _one_cycle(demo: DemoRun) -> dict[str, float]:
    """Seconds from the wake-up, which is the end of the bar's collection: to each task's start and end, and to all."""
    bar = walk_stages.step(demo)
    collection = f"compose__collect__{bar:%Y%m%dT%H%M}"
    demo.airflow.trigger_dag("collect_candles_15m", conf={}, run_id=collection)
    if (bar + BAR).minute == 0:
        demo.airflow.trigger_dag("collect_candles_1h", conf={}, run_id=f"compose__collect_1h__{bar:%Y%m%dT%H%M}")
    walk_stages.await_cycle(demo, bar)
    row = demo.wiring.database.row("SELECT run_id FROM cycles WHERE bar = %(bar)s", {"bar": bar})
    assert row is not None
    run = demo.airflow.wait_dag_run("run_trade_cycle", row["run_id"], timeout_s=60)
    (collected,) = demo.airflow.task_instances("collect_candles_15m", collection)
    woken = _moment(collected["end_date"])
    tasks = [task for task in demo.airflow.task_instances("run_trade_cycle", row["run_id"]) if task["start_date"]]
    found = {
        "collect": (woken - _moment(collected["queued_when"])).total_seconds(),
        "start": (min(_moment(task["start_date"]) for task in tasks) - woken).total_seconds(),
        "cycle": (_moment(run["end_date"]) - woken).total_seconds(),
    }
    for task in tasks:
        spent = (_moment(task["end_date"]) - _moment(task["start_date"])).total_seconds()
        found[task["task_id"]] = max(spent, found.get(task["task_id"], 0.0))
    demo.say(f"bar {bar:%m-%d %H:%M}  " + "  ".join(f"{name} {value:.2f}" for name, value in found.items()))
    return found


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _figures(measured: list[dict[str, float]]) -> dict[str, float]:
    """Median and 95th percentile of each span; a span that only some cycles have is of those."""
    figures = {}
    for name in dict.fromkeys(name for found in measured for name in found):
        values = sorted(found[name] for found in measured if name in found)
        figures[f"{name}_median_s"] = round(median(values), 2)
        figures[f"{name}_p95_s"] = round(values[-(-len(values) * 95 // 100) - 1], 2)
    return figures


def verdicts(demo: DemoRun) -> dict[str, Any]:
    """Every invariant with what breaks it: nothing, it is hoped."""
    return judge(demo.wiring, demo.start - timedelta(days=30 * MONTHS))


def wide_verdicts(demo: DemoRun) -> dict[str, Any]:
    """The same of all symbols, from where their history begins."""
    return judge(demo.wiring, demo.start - WIDE_HISTORY)


def _wait(condition: Callable[[], Any], timeout_s: float, complaint: str) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{complaint} within {timeout_s:.0f} s")
        time.sleep(0.3)
    return found


STEPS = (load, faults_off, data, train, trade, cycles, verdicts, widen, measure, crash, wide_verdicts)


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
