"""What a request handler reaches: settings, adapters, Airflow, the checks."""

from __future__ import annotations

import threading
from functools import cached_property
from typing import TYPE_CHECKING, cast

from flask import current_app

from tradewind.settings import Settings
from tradewind.stack.airflow_api import AirflowClient
from tradewind.wiring import Wiring

from .checks import Checks

if TYPE_CHECKING:
    from tradewind.adapters.database import Database


class Services:
    """One a process; each part is made on first use, so that the app starts while the rest of the stack is down."""

    def __init__(self, settings: Settings, wiring: Wiring) -> None:
        self.settings = settings
        self.wiring = wiring
        self._first_use = threading.Lock()
        self.checks = Checks(self)

    @property
    def database(self) -> Database:
        # Two threads at once would otherwise each open a pool.
        with self._first_use:
            return self.wiring.database

    @property
    def account(self) -> str:
        return self.wiring.account

    @cached_property
    def airflow(self) -> AirflowClient:
        return self.airflow_client(timeout_s=10.0)

    def airflow_client(self, timeout_s: float) -> AirflowClient:
        settings = self.settings
        return AirflowClient(
            settings.airflow_url,
            settings.airflow_username,
            settings.airflow_password.get_secret_value(),
            timeout_s=timeout_s,
        )

    def start_background(self) -> None:
        """Send the outbox of alerts, and ping the watchdog outside, from this process; each only where configured."""
        if urls := [url.get_secret_value() for url in self.settings.alert_urls]:
            from tradewind.adapters.alert_dispatcher import AlertDispatcher
            from tradewind.adapters.database import Database

            database = Database(self.settings.database_url.get_secret_value(), max_connections=1)
            AlertDispatcher(database, urls).start()
        if url := self.settings.dead_man_url.get_secret_value():
            from tradewind.adapters.dead_man import DeadManPing

            DeadManPing(url, lambda: all(check.ok for check in self.checks.all())).start()


def services() -> Services:
    """Those of the current app."""
    return cast(Services, current_app.extensions["tradewind"])
