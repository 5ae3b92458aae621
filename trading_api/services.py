"""What a request handler reaches: settings, adapters, Airflow, the checks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar, cast

from flask import current_app, g, has_app_context

from tradewind.settings import Settings
from tradewind.stack.airflow_api import AirflowClient
from tradewind.stack.checks import Checks
from tradewind.wiring import Wiring

if TYPE_CHECKING:
    from tradewind.adapters.database import Database


T = TypeVar("T")


class Services:
    """One a process; each part is made on first use, so that the app starts while the rest of the stack is down."""

    def __init__(self, settings: Settings, wiring: Wiring) -> None:
        self.settings = settings
        self.wiring = wiring
        self._first_use = threading.Lock()
        self._first_urgent_use = threading.Lock()
        self._kept: dict[str, tuple[Hashable, Any]] = {}
        self.checks = Checks(settings, wiring.params.watch_silent_s)

    @property
    def database(self) -> Database:
        """Our database; for a control call through connections that no reader's query occupies."""
        # Two threads at once would otherwise each open a pool.
        if has_app_context() and "actor" in g:
            with self._first_urgent_use:
                return self.wiring.urgent_database
        with self._first_use:
            return self.wiring.database

    @property
    def account(self) -> str:
        return self.wiring.account

    def kept(self, name: str, key: Hashable, make: Callable[[], T]) -> T:
        """The value of `name`, made anew only when `key` differs from the one that it was made for."""
        known = self._kept.get(name)
        if known is None or known[0] != key:
            known = self._kept[name] = (key, make())
        return cast(T, known[1])

    @cached_property
    def airflow(self) -> AirflowClient:
        settings = self.settings
        password = settings.airflow_password.get_secret_value()
        return AirflowClient(settings.airflow_url, settings.airflow_username, password, timeout_s=10.0)


def services() -> Services:
    """Those of the current app."""
    return cast(Services, current_app.extensions["tradewind"])
