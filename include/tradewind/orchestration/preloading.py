"""Import heavy libraries in the parent, so that every forked task finds them in memory.

Third-party packages alone: a module of ours loaded before the fork would stay stale until the next restart. Imports
alone: training or predicting before the fork would leave OpenMP's threads behind in the parent.
"""

from __future__ import annotations

import gc
import importlib
import subprocess
import sys
from functools import cache

_EDGE = (
    "ccxt",
    "psycopg",
    "psycopg_pool",
    "redis",
    "structlog",
    "pydantic_settings",
    "airflow.sdk.execution_time.supervisor",
    "airflow.sdk.execution_time.task_runner",
    "airflow.providers.postgres.hooks.postgres",
    "airflow.providers.redis.hooks.redis",
)
_NUMBERS = ("numpy", "pandas", "scipy.stats", "sklearn.isotonic", "numba", "talib", "lightgbm", "xgboost", "catboost")


def preload(command: list[str]) -> tuple[str, ...]:
    """Import what the processes forked by this Airflow command will need; returns what was imported.

    The LocalExecutor forks its workers from the scheduler, Celery its pool from the worker, and the triggerer the
    process in which triggers run. Every other command forks nothing that works for us.

    Parameters
    ----------
    command : Airflow's command line without the program's name.
    """
    names: tuple[str, ...]
    if command[:1] == ["scheduler"] or command[:2] == ["celery", "worker"]:
        names = _NUMBERS + _EDGE
        _warm_execution_client()
    elif command[:1] == ["triggerer"]:
        names = _EDGE
    else:
        return ()
    for name in names:
        importlib.import_module(name)
    if "numba" in names:
        _warm_compiler()
    if command[:1] == ["triggerer"]:
        # It forks once, right after this.
        gc.freeze()
    return names


def _warm_compiler() -> None:
    """Compile one function of no use, so that numba's compiler stands: half a second in each deciding task otherwise.

    Our own functions are loaded by the tasks from numba's cache on disk; this starts no thread.
    """
    import numba
    import numpy as np

    numba.njit(lambda values: values[0])(np.zeros(1))


def _warm_execution_client() -> None:
    """Make one of the clients by which every worker reports: its TLS context and models (6 MB) are then shared."""
    from airflow.sdk.api.client import Client

    # Nothing is sent; making it opens no connection.
    Client(base_url="http://127.0.0.1:1/execution/", token="").close()


def compile_meanwhile() -> None:
    """Fill numba's cache beside the starting worker, so that no container's first cycle waits for its compiler.

    Nobody waits for it, and the shell that starts it ends at once: whoever is process 1 takes the child over, and the
    worker that forks is left with neither a thread nor a zombie.
    """
    command = ["/bin/sh", "-c", '"$0" -m tradewind.stack.kernels &', sys.executable]
    subprocess.run(command, stdin=subprocess.DEVNULL, check=False)


@cache
def keep_shared() -> None:
    """Exempt what was loaded so far from garbage collection, once.

    Collecting writes into every object it visits, which copies each page that the parent shares with its workers:
    130 MB in the scheduler. Airflow freezes the objects too, but only while it forks.
    """
    gc.freeze()
