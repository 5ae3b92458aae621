"""Buttons on a trade cycle's tasks that open the status page at the cycle's bar. Used inside the API server alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from airflow.providers.standard.decorators.python import _PythonDecoratedOperator
from airflow.sdk import BaseOperatorLink
from airflow.serialization.definitions.operatorlink import XComOperatorLink

from tradewind.settings import load_settings

if TYPE_CHECKING:
    from airflow.models.taskinstancekey import TaskInstanceKey

# The task whose XCom is the cycle's bar.
_CYCLE = "run_trade_cycle"
_NAMES_BAR = "check_trading_allowed"


class StatusPageLink(BaseOperatorLink):
    """A link to one part of the status page; empty, and so not shown, on tasks of other DAGs."""

    name = ""
    fragment = ""
    tasks: frozenset[str] = frozenset()
    # Plugins attach links by operator class; every task written with @task has this one.
    operators = [_PythonDecoratedOperator]  # noqa: RUF012

    def get_link(self, operator: Any, *, ti_key: TaskInstanceKey) -> str:
        if ti_key.dag_id != _CYCLE or ti_key.task_id not in self.tasks:
            return ""
        first_task = ti_key._replace(task_id=_NAMES_BAR, map_index=-1)
        bar = XComOperatorLink(name=self.name, xcom_key="return_value").get_link(operator, ti_key=first_task)
        return f"{status_page_url()}?{urlencode({'bar': bar})}#{self.fragment}" if bar else ""


class DecisionsLink(StatusPageLink):
    name = "Decisions"
    fragment = "decisions"
    tasks = frozenset({_NAMES_BAR, "predict_signals", "filter_signals", "size_positions", "record_cycle"})


class OrdersLink(StatusPageLink):
    name = "Orders"
    fragment = "orders"
    tasks = frozenset({"size_positions", "place_brackets", "record_cycle"})


def status_page_url() -> str:
    """Where a browser reaches the status page: the configured outside address, else this machine's own."""
    return f"{load_settings().status_page_url.rstrip('/')}/"
