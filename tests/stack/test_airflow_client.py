"""The client of Airflow's REST API where Airflow is slow."""

from __future__ import annotations

from typing import Any

import pytest

from tradewind.errors import ServiceNotReady
from tradewind.stack.airflow_api import AirflowClient, AirflowUnreachable


class SlowAirflow(AirflowClient):
    """Answers the listing after some that got no answer."""

    def __init__(self, silent: int) -> None:
        super().__init__("http://127.0.0.1:1", "user", "password")
        self.silent = silent

    def list_dags(self) -> list[dict[str, Any]]:
        self.silent -= 1
        if self.silent >= 0:
            raise AirflowUnreachable("Airflow did not answer GET /dags: timed out")
        return [{"dag_id": "watch_risk"}]

    def import_errors(self) -> list[dict[str, Any]]:
        return []


def test_a_boot_on_a_busy_machine_outlives_an_answer_that_did_not_come() -> None:
    with SlowAirflow(silent=2) as airflow:
        airflow.wait_for_dags(["watch_risk"], timeout_s=30)
        assert airflow.silent < 0


def test_an_airflow_that_never_answers_ends_the_wait() -> None:
    with SlowAirflow(silent=1000) as airflow, pytest.raises(ServiceNotReady, match="watch_risk"):
        airflow.wait_for_dags(["watch_risk"], timeout_s=0.1)
