"""What the DAGs have in common, and the classes of work they fall into.

Trading, market, bulk and training work compete for the executor's slots. The pools in `pools.json` keep all but trading
so small that at least `RESERVED_SLOTS` of `[core] parallelism` stay free for trading whatever else is queued.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any, NotRequired, TypedDict

# No supported exchange has candles from before this; a backfill may reach back this far.
START_DATE = datetime(2017, 1, 1, tzinfo=UTC)
# For a CronTriggerTimetable: the first start of a deployment waits for the next time, since there is nothing to train
# on and nothing to tidy yet. It works only without a start date. A later start does run what was missed.
NOT_AT_FIRST_START = timedelta(0)
# The schema of a param that is a moment. Airflow does not enforce `format`, so `pattern` refuses nonsense with a 400.
MOMENT: Mapping[str, Any] = {
    "type": ["null", "string"],
    "format": "date-time",
    "pattern": r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:\d{2})$",
}
POOLS_FILE = Path(__file__).with_name("pools.json")
RESERVED_SLOTS = 3


# The type, and with two underscores the run id's prefix, of a backfill's runs.
BACKFILL = "backfill"


class Pool(StrEnum):
    """Names of the pools in `pools.json`."""

    TRADING = "trading"
    MARKET = "market"
    BULK = "bulk"
    TRAINING = "training"


class RunType(StrEnum):
    """Ways in which a DAG run comes about; a DAG lists those it accepts. None lists backfills but collection."""

    SCHEDULED = "scheduled"
    MANUAL = "manual"
    OPERATOR_TRIGGERED = "operator_triggered"
    ASSET_TRIGGERED = "asset_triggered"


# Within its pool and among the pools, the queue is served in this order.
PRIORITY = {Pool.TRADING: 100, Pool.MARKET: 50, Pool.BULK: 2, Pool.TRAINING: 1}


class PoolSize(TypedDict):
    """One entry of `pools.json`, as `airflow pools import` reads it."""

    slots: int
    description: str
    include_deferred: NotRequired[bool]


def read_pools() -> dict[str, PoolSize]:
    """The pools that must exist before any task can run, by name."""
    pools: dict[str, PoolSize] = json.loads(POOLS_FILE.read_text())
    return pools


def task_defaults(
    *, owner: str, pool: Pool, timeout: timedelta, retries: int, retry_delay: timedelta = timedelta(seconds=10)
) -> dict[str, Any]:
    """`default_args` of a DAG.

    Retries back off by doubling from `retry_delay` to five minutes, or to `retry_delay` itself where that is longer.
    """
    return {
        "owner": owner,
        "pool": pool.value,
        # Celery's queue; a LocalExecutor has none. A worker listens to those that it is meant for.
        "queue": pool.value,
        "priority_weight": PRIORITY[pool],
        "weight_rule": "absolute",
        "execution_timeout": timeout,
        "retries": retries,
        "retry_delay": retry_delay,
        "retry_exponential_backoff": 2.0,
        "max_retry_delay": max(retry_delay, timedelta(minutes=5)),
    }
