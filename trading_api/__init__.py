"""The status app: what the system is doing, and the few controls a person has over it.

`create_app` is the whole face: `python -m trading_api` serves it (`serve`), tests pass their own settings and wiring.
Reading needs the read token, control the control token besides; see `security`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from apiflask import APIFlask

from tradewind.settings import Settings, load_settings
from tradewind.wiring import Wiring
from trading_api import control, page, problems, read, security
from trading_api.services import Services

__all__ = ["create_app"]


def create_app(
    settings: Settings | None = None, wiring: Wiring | None = None, config: Mapping[str, Any] | None = None
) -> APIFlask:
    """Build the app. It starts, and says what is wrong, also while PostgreSQL or anything else is down.

    Parameters
    ----------
    settings : of this deployment; read from the environment by default.
    wiring : adapters; built from the settings by default.
    config : Flask configuration that a test overrides, such as `TESTING` or `REFUSALS_PER_MINUTE`.

    Raises
    ------
    BadSetting : a token is missing.
    """
    settings = settings or load_settings()
    services = Services(settings, wiring or Wiring(settings))
    app = APIFlask(__name__, title="Tradewind", version="1", spec_path="/api/openapi.json", docs_path=None)
    app.config.update(
        MAX_CONTENT_LENGTH=64 * 1024,
        STRANGER_REQUESTS_PER_MINUTE=1200,
        READER_REQUESTS_PER_MINUTE=12_000,
        REFUSALS_PER_MINUTE=30,
        JSON_SORT_KEYS=False,
    )
    app.config.update(config or {})
    app.json = problems.ExactJson(app)
    app.description = (
        "Reading takes `Authorization: Bearer <read token>` or the cookie of /login. Control takes the control token "
        "in the header `X-Tradewind-Control`, and from a cookie session `X-CSRF-Token` as well. Errors are "
        "application/problem+json. Money is given as strings, times in UTC."
    )
    app.extensions["tradewind"] = services
    problems.install(app)
    security.install(app, services)
    for blueprint in (read.blueprint, control.blueprint, page.blueprint):
        app.register_blueprint(blueprint)
    return app
