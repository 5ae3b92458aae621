"""Decide on the newest closed bar, and act on the decision.

`check_trading_allowed` asks the latch, the watch and the reconciliation; it never stops the chain, because a declined
bar is decided and stored too. `predict_signals` first lets open positions follow the rules of the closed bar, so that
what leaves at it has made room; then it reads every input. It, `filter_signals` and `size_positions` each store their
own rows for every symbol. `place_brackets` runs once an intent: it reads the latch again, commits the order, sends one
bracket. `record_cycle` reads the outcomes and turns the run red if a stage failed or an order's fate is unknown. The
bar is the param `bar`, else the newest closed one by the market's clock; one that is too old is decided as expired,
never traded.

## What the buttons do

- **Clear** repeats a task on the same bar: it finds its own rows and returns them. Nothing decided is rewritten, and an
  order is sent at most once, so clearing a finished cycle trades nothing.
- **Mark success** lets the chain go on without the stage's rows: the cycle is recorded as failed. It sends nothing.
- **Retry** happens by itself for the deciding stages. `place_brackets` is never retried: an order whose fate is unknown
  is looked up by `manage_positions`, within a minute.
- **Backfill** is refused: the past is not traded. `./tradewind backtest` shows what would have happened.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import Param, dag, get_current_context, task

from tradewind.orchestration import cycle
from tradewind.orchestration.assets import CLOSED_CANDLES_15M
from tradewind.orchestration.defaults import MOMENT, START_DATE, Pool, RunType, task_defaults


@dag(
    schedule=[CLOSED_CANDLES_15M],
    start_date=START_DATE,
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=False,
    dagrun_timeout=timedelta(minutes=14),
    allowed_run_types=[RunType.ASSET_TRIGGERED, RunType.MANUAL, RunType.OPERATOR_TRIGGERED],
    tags=["money", "trading"],
    doc_md=__doc__,
    params={"bar": Param(None, **MOMENT, description="Open time of the bar to decide on. Empty: the newest closed.")},
    default_args=task_defaults(
        owner="trading", pool=Pool.TRADING, timeout=timedelta(minutes=2), retries=2, retry_delay=timedelta(seconds=2)
    ),
)
def run_trade_cycle() -> None:
    @task
    def check_trading_allowed() -> str:
        return cycle.check_trading_allowed(get_current_context())

    @task
    def predict_signals(bar: str) -> None:
        cycle.predict_signals(bar)

    @task
    def filter_signals(bar: str) -> None:
        cycle.filter_signals(bar)

    @task
    def size_positions(bar: str) -> list[str]:
        return cycle.size_positions(bar)

    @task(retries=0)
    def place_brackets(intent_id: str) -> None:
        cycle.place_brackets(intent_id)

    @task(trigger_rule="all_done")
    def record_cycle(bar: str | None) -> None:
        cycle.record_cycle(bar, get_current_context())

    bar = check_trading_allowed()
    intent_ids = size_positions(bar)
    placed = place_brackets.expand(intent_id=intent_ids)
    predict_signals(bar) >> filter_signals(bar) >> intent_ids >> placed >> record_cycle(bar)


run_trade_cycle()
