"""The DAGs as Airflow's dag-processor sees them, without a metadata database."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.airflow_home import PROJECT_DIR, prepare_airflow

if TYPE_CHECKING:
    from airflow.sdk import DAG

prepare_airflow()

DAG_FILES = sorted(path for path in (PROJECT_DIR / "dags").glob("*.py"))
DAG_IDS = [path.stem for path in DAG_FILES]


@pytest.fixture(scope="session")
def dags() -> dict[str, DAG]:
    """Every DAG of `dags/`, parsed; a file that cannot be imported fails all of them, by name."""
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(str(PROJECT_DIR / "dags"))
    assert not bag.import_errors, bag.import_errors
    return dict(bag.dags)


@pytest.fixture(params=DAG_IDS)
def dag(request: pytest.FixtureRequest, dags: dict[str, DAG]) -> DAG:
    """One DAG after the other."""
    return dags[request.param]
