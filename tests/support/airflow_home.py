"""Airflow without servers: what a test that imports Airflow needs before the import."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

PROJECT_DIR = Path(__file__).resolve().parents[2]


def prepare_airflow() -> None:
    """Point Airflow at an empty home and at our DAGs; its metadata database is never opened.

    Airflow reads its configuration at the first import, so this runs while the tests are collected. A second call, or a
    call after the import, changes nothing that matters: every test module wants the same.
    """
    if "AIRFLOW_HOME" in os.environ:
        return
    options = {
        "CORE__DAGS_FOLDER": str(PROJECT_DIR / "dags"),
        "CORE__PLUGINS_FOLDER": str(PROJECT_DIR / "plugins"),
        "CORE__LOAD_EXAMPLES": "False",
        "CORE__UNIT_TEST_MODE": "False",
        "LOGGING__LOGGING_LEVEL": "WARNING",
    }
    os.environ["AIRFLOW_HOME"] = tempfile.mkdtemp(prefix="tradewind-tests-airflow-")
    os.environ.update({f"AIRFLOW__{name}": value for name, value in options.items()})
