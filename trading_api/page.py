"""The status page, its login, and the files it is made of. No request leaves this host."""

from __future__ import annotations

import gzip
import hashlib
import hmac
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

from apiflask import APIBlueprint
from flask import Response, abort, make_response, redirect, render_template, request, url_for

from tradewind.adapters.login_tickets import read_ticket

from . import views
from .audit import record, record_login
from .job_rows import counts_of
from .problems import problem
from .queries import Queries, Snapshot, Window
from .schemas import EARLIEST, LATEST
from .security import csrf_token, end_session, gate, may_see, refused, set_session
from .services import Services, services
from .status import system_status

blueprint = APIBlueprint(
    "page", __name__, template_folder="templates", static_folder=None, enable_openapi=False, url_prefix=""
)

_STATIC = Path(__file__).parent / "static"
_TYPES = {
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
    ".webmanifest": "application/manifest+json",
}


@blueprint.app_context_processor
def _helpers() -> dict[str, Any]:
    return {**views.HELPERS, "static": static_url, "plotly_url": plotly_url, "csrf": csrf_token}


# ---------------------------------------------------------------------------------------------------------------- page
@blueprint.get("/")
@may_see
def index() -> str:
    """The whole page."""
    return render_template("index.html", **page_values())


@blueprint.get("/panels")
@may_see
def panels() -> str:
    """The page's changing part alone, which the script puts in place every few seconds."""
    return render_template("panels.html", **page_values())


def page_values() -> dict[str, Any]:
    """Everything the templates show. Without PostgreSQL the panels that need it stay away."""
    made = services()
    status = system_status(made)
    values: dict[str, Any] = {"status": status, "now": datetime.now(UTC), "refreshed": datetime.now(UTC)}
    if not status["available"]:
        return values
    with made.database.transaction() as connection:
        return values | _panel_values(made, Queries(Snapshot(connection), made.account), status)


def _panel_values(made: Services, queries: Queries, status: dict[str, Any]) -> dict[str, Any]:
    market_now = status["clock"]["market"] or datetime.now(UTC)
    newest_bar = queries.last_decided_bar()
    bar = _wanted_bar() or newest_bar
    params_hash = made.wiring.params.hash
    symbols = made.wiring.symbols
    newest = queries.newest_regimes(symbols, params_hash)
    # A week of steps changes with the newest bars alone.
    steps = made.kept(
        "transitions",
        tuple((row["symbol"], row["bar"]) for row in newest),
        lambda: queries.regime_transitions(symbols, params_hash, 672),
    )
    models = queries.models(Window(limit=4))[:4]
    gates = queries.gates([model["version"] for model in models])
    return {
        "bar": bar,
        "newest_bar": newest_bar,
        "orders": queries.orders_of_bar(bar, 40)
        if bar and bar != newest_bar
        else queries.orders(Window(limit=16), None),
        "decisions": views.decision_table(queries.decisions(Window(limit=200), bar)) if bar else [],
        "funnel": queries.outcomes_since(market_now - timedelta(days=1)),
        "cycles": queries.cycles(24)[::-1],
        "trades": [row for row in queries.positions(Window(limit=12), False)[:12]],
        "regimes": views.regime_rows(symbols, newest, steps),
        "transitions": views.transition_table(steps),
        "articles": queries.articles(10),
        "feeds": queries.feeds(),
        "models": [
            views.model_card(model, [gate for gate in gates if gate["version"] == model["version"]]) for model in models
        ],
        "drift": queries.last_drift(),
        "training": queries.training_runs(3),
        "jobs": [
            views.job_row(
                job, counts_of(made.database, job["job_id"]) if job["state"] in ("running", "failed") else None
            )
            for job in queries.jobs(6)
        ],
        "alerts": queries.alerts(12),
        "audit": queries.audit(15),
        "heartbeats": queries.heartbeats(),
    }


def _wanted_bar() -> datetime | None:
    """The bar whose decisions are asked for, as Airflow's links name it; what is no moment is as good as nothing."""
    try:
        moment = datetime.fromisoformat(request.args.get("bar", "").replace(" ", "+"))
    except ValueError:
        return None
    return moment if moment.tzinfo is not None and EARLIEST <= moment < LATEST else None


# --------------------------------------------------------------------------------------------------------------- login
@blueprint.get("/login")
def login_form() -> Any:
    """The form; or, with a ticket of `./tradewind up`, the session itself."""
    ticket = request.args.get("ticket", "")
    if not ticket:
        return render_template("login.html", failed=False)
    made = services()
    number = read_ticket(made.settings.api_session_key.get_secret_value(), ticket)
    if number is None or not record_login(made, number):
        refused("login")
        return render_template("login.html", failed="This link was used already, or it is too old."), 401
    # A page of our own goes on to "/": the browser sends a Strict cookie only on requests that start here.
    return set_session(make_response(render_template("signed_in.html")))


@blueprint.post("/login")
def login() -> Any:
    """Exchange the read token for the cookie."""
    given = request.form.get("token", "")
    if not given or not gate().is_read_token(given.strip()):
        refused("login")
        return render_template("login.html", failed="That is not the read token."), 401
    record(services(), "reader", "login", "done", {})
    return set_session(make_response(redirect(url_for("page.index"), 303)))


@blueprint.post("/logout")
@may_see
def logout() -> Response:
    """Take the cookie back; a form of another site has no word that proves it comes from the page."""
    if not hmac.compare_digest(request.form.get("csrf", "").encode(), csrf_token().encode()):
        refused("logout")
        abort(problem(403, "Sign out on the page itself."))
    record(services(), "reader", "logout", "done", {})
    return end_session(make_response(redirect(url_for("page.login_form"), 303)))


# --------------------------------------------------------------------------------------------------------------- files
@cache
def _file(name: str) -> tuple[bytes, bytes, str, str]:
    """Body, the same gzip-compressed, media type and a short hash of one file of ours, or of plotly's wheel."""
    source = files("plotly.package_data") / "plotly.min.js" if name == "plotly.js" else _STATIC / name
    body = source.read_bytes()
    return body, gzip.compress(body, 6), _TYPES[Path(name).suffix], hashlib.sha256(body).hexdigest()[:12]


def static_url(name: str) -> str:
    """The address of a file, changing with its content, so that it may be cached for ever."""
    return url_for("page.static_file", name=name, v=_file(name)[3])


def plotly_url() -> str:
    return url_for("page.static_file", name="plotly.js", v=version("plotly"))


@blueprint.get("/static/<name>")
def static_file(name: str) -> Response:
    """One of the page's files; they hold nothing secret, so no token is asked."""
    if name != "plotly.js" and name not in _names():
        abort(problem(404, "There is no such file."))
    body, packed, media_type, _ = _file(name)
    if "gzip" in request.headers.get("Accept-Encoding", ""):
        response = Response(packed, mimetype=media_type)
        response.headers["Content-Encoding"] = "gzip"
    else:
        response = Response(body, mimetype=media_type)
    response.headers["Vary"] = "Accept-Encoding"
    response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
    return response


@cache
def _names() -> frozenset[str]:
    return frozenset(path.name for path in _STATIC.iterdir() if path.suffix in _TYPES)
