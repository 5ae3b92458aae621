"""Airflow imports this module by its name in every process, before anything else of ours.

Two things can only be done here: sending a backfill's tasks to another pool than live ones of the same DAG, and
preloading in a Celery worker, which loads no plugin before it forks its pool; its numba cache is filled meanwhile.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow.models.dagrun import DagRun
    from airflow.models.taskinstance import TaskInstance

__all__ = ["task_instance_mutation_hook"]

# Read by include/ops/health.py.
WORKER_ALIVE = Path("/tmp/celery_worker_alive")  # noqa: S108  (a container's own memory)


def task_instance_mutation_hook(task_instance: TaskInstance, dag_run: DagRun | None = None) -> None:
    """Backfilled runs queue in the pool `bulk` with its priority, so that the newest candles never wait behind them."""
    from tradewind.orchestration.defaults import BACKFILL, PRIORITY, Pool

    # The run's id tells, also where Airflow calls this before the instance is bound to its run.
    if (task_instance.run_id or "").startswith(f"{BACKFILL}__"):
        task_instance.pool = task_instance.queue = Pool.BULK.value
        task_instance.priority_weight = PRIORITY[Pool.BULK]


if sys.argv[1:3] == ["celery", "worker"]:
    from celery.signals import heartbeat_sent, worker_init

    @worker_init.connect(weak=False)
    def preload_before_fork(**_: object) -> None:
        from tradewind.orchestration.preloading import compile_meanwhile, preload

        compile_meanwhile()
        preload(sys.argv[1:])

    @heartbeat_sent.connect(weak=False)
    def tell_health_check(**_: object) -> None:
        """Every two seconds while the broker is there. Asking Celery costs a second of processor, this file nothing."""
        WORKER_ALIVE.touch()
