"""Tradewind's Airflow plugin: preloading before the fork, failed runs as alerts, links to the status page.

It serves nothing itself: the status app stands alone, behind its own login, and is only linked and framed here.
"""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING, Any

import structlog
from airflow.listeners import hookimpl
from airflow.plugins_manager import AirflowPlugin

from tradewind.orchestration.links import DecisionsLink, OrdersLink, status_page_url
from tradewind.orchestration.preloading import keep_shared, preload
from tradewind.settings import load_settings

if TYPE_CHECKING:
    from airflow.models.dagrun import DagRun

log = structlog.get_logger(__name__)


class Listener:
    """What Airflow tells us as it happens. It runs inside Airflow's processes: nothing here may fail or wait."""

    @hookimpl
    def on_starting(self, component: Any) -> None:
        # `component.job_type` is still None here, so the command line must tell which process this is.
        preload(sys.argv[1:])

    @hookimpl
    def on_dag_run_running(self, dag_run: DagRun, msg: str) -> None:
        # The first run comes right after the workers were forked.
        keep_shared()

    @hookimpl
    def on_dag_run_success(self, dag_run: DagRun, msg: str) -> None:
        _in_background(_count_run, dag_run.dag_id, "success")

    @hookimpl
    def on_dag_run_failed(self, dag_run: DagRun, msg: str) -> None:
        _in_background(_count_run, dag_run.dag_id, "failed")
        tags = {tag.name for tag in dag_run.dag_model.tags} if dag_run.dag_model else set()
        severity = "critical" if "money" in tags else "warning"
        _in_background(_alert_failed_run, dag_run.dag_id, dag_run.run_id, severity)


def _in_background(work: Any, *arguments: str) -> None:
    """The scheduler must not wait for our database; a thread ends with its process and holds nothing up."""
    threading.Thread(target=_logged, args=(work, *arguments), name=work.__name__, daemon=True).start()


def _logged(work: Any, *arguments: str) -> None:
    try:
        work(*arguments)
    except Exception as error:  # noqa: BLE001  (whatever it was, the scheduler must live, and the log must say it)
        log.error("listener failed", work=work.__name__, error=f"{type(error).__name__}: {error}")


def _count_run(dag_id: str, state: str) -> None:
    from tradewind.wiring import Wiring

    Wiring(load_settings()).metrics.count("tradewind.dag_run", dag=dag_id, state=state)


def _alert_failed_run(dag_id: str, run_id: str, severity: str) -> None:
    from tradewind.orchestration.runtime import build_wiring

    # One connection for a rare event, closed at once: a pool would leak into the workers that are forked later.
    wiring = build_wiring()
    try:
        title = f"{dag_id} failed"
        body = f"Run {run_id} of {dag_id} failed. Open it in Airflow; its task's last log line says why."
        wiring.alerts.raise_alert(severity, f"dag_failed:{dag_id}", title, body)
    finally:
        wiring.close()


class TradewindPlugin(AirflowPlugin):
    name = "tradewind"
    listeners = [Listener()]  # noqa: RUF012  (Airflow's own class attributes)
    operator_extra_links = [DecisionsLink(), OrdersLink()]  # noqa: RUF012
    external_views = [  # noqa: RUF012
        {
            "name": "Tradewind",
            "href": status_page_url(),
            "destination": "nav",
            "url_route": "tradewind",
        }
    ]
