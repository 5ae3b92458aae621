"""The read side of the API: health, readiness, status, lists, exports."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from typing import Any

from apiflask import APIBlueprint, FileSchema
from flask import Response, abort, request

from . import schemas
from .job_rows import with_progress
from .problems import ExactJson, problem
from .queries import Queries, Row, Window
from .security import may_read
from .services import services
from .status import breaker_quote, system_status

blueprint = APIBlueprint("read", __name__, url_prefix="/api", tag="Read")

READERS: list[Any] = [{"ReadToken": []}, {"Session": []}]
_PROBLEMS: Any = {
    401: {"description": "No valid token.", "content": {"application/problem+json": {"schema": schemas.Problem}}},
    422: {"description": "A value is out of range."},
    429: {"description": "Too many requests."},
    503: {"description": "A part of the stack does not answer."},
}
_EXPORT_CHUNK = 1000
_CSV = FileSchema(type="string")


def queries() -> Queries:
    """Those of the current app's account."""
    made = services()
    return Queries(made.database, made.account)


def _rows(window: Window, rows: list[Row]) -> Response:
    """One page, with an ETag so that an unchanged one costs no transfer."""
    more = len(rows) > window.limit
    body = {
        "items": rows[: window.limit],
        "limit": window.limit,
        "offset": window.offset,
        "next_offset": window.offset + window.limit if more else None,
    }
    return tagged(body)


def tagged(body: Any) -> Response:
    """JSON with an ETag; 304 when the client has it already."""
    response = Response(ExactJson.dumps(_json(), body), mimetype="application/json")
    response.headers["Cache-Control"] = "private, no-cache"
    response.add_etag()
    return response.make_conditional(request)  # type: ignore[return-value]


def _json() -> ExactJson:
    from flask import current_app

    provider = current_app.json
    assert isinstance(provider, ExactJson)  # create_app sets it
    return provider


def _window(query: dict[str, Any]) -> Window:
    return Window(query["limit"], query["offset"], query["start"], query["end"], query["symbol"])


# -------------------------------------------------------------------------------------------------------------- health
@blueprint.get("/health")
@blueprint.output(schemas.Health)
@blueprint.doc(summary="Is this process alive", responses={429: "Too many requests."})
def health() -> dict[str, str]:
    return {"status": "ok"}


@blueprint.get("/ready")
@blueprint.output(schemas.Ready)
@blueprint.doc(
    summary="Do PostgreSQL, Redis, Airflow, the exchange and the risk watch answer",
    responses={503: "Not ready; `failed` names the parts.", 429: "Too many requests."},
)
def ready() -> tuple[dict[str, Any], int]:
    checks = services().checks.as_dicts()
    failed = [check["name"] for check in checks if not check["ok"]]
    return {"ready": not failed, "failed": failed, "checks": checks}, 503 if failed else 200


@blueprint.get("/system-status")
@may_read
@blueprint.output(schemas.SystemStatus)
@blueprint.doc(summary="Everything at a glance", security=READERS, responses=_PROBLEMS)
def status() -> Response:
    return tagged(system_status(services()))


# --------------------------------------------------------------------------------------------------------------- lists
@blueprint.get("/positions")
@may_read
@blueprint.input(schemas.PositionsQuery, location="query")
@blueprint.output(schemas.Rows)
@blueprint.doc(summary="Positions, newest first", security=READERS, responses=_PROBLEMS)
def positions(query_data: dict[str, Any]) -> Response:
    window = _window(query_data)
    return _rows(window, queries().positions(window, query_data["live"]))


@blueprint.get("/orders")
@may_read
@blueprint.input(schemas.OrdersQuery, location="query")
@blueprint.output(schemas.Rows)
@blueprint.doc(summary="Orders, newest first", security=READERS, responses=_PROBLEMS)
def orders(query_data: dict[str, Any]) -> Response:
    window = _window(query_data)
    states = [query_data["state"]] if query_data["state"] else None
    return _rows(window, queries().orders(window, states))


@blueprint.get("/decisions")
@may_read
@blueprint.input(schemas.DecisionsQuery, location="query")
@blueprint.output(schemas.Rows)
@blueprint.doc(
    summary="Decisions with prediction, every filter's verdict and the size, newest first",
    security=READERS,
    responses=_PROBLEMS,
)
def decisions(query_data: dict[str, Any]) -> Response:
    window = _window(query_data)
    return _rows(window, queries().decisions(window, query_data["bar"], query_data["outcome"]))


@blueprint.get("/equity")
@may_read
@blueprint.input(schemas.EquityQuery, location="query")
@blueprint.output(schemas.EquityAnswer)
@blueprint.doc(
    summary="Marked equity and the openings the breaker compares with", security=READERS, responses=_PROBLEMS
)
def equity(query_data: dict[str, Any]) -> Response:
    reads = queries()
    start, end, points = query_data["start"], query_data["end"], query_data["points"]
    last, links = reads.last_equity(), reads.links()
    # One mark is kept a minute, so a chart of a year is drawn from all of them once a minute, for whoever looks.
    minute = last["at"].replace(second=0, microsecond=0) if last else None
    key = (start, end, points, minute, links)
    return tagged(
        {
            "marks": services().kept("equity", key, lambda: reads.equity(links, start, end, points)),
            "day_opens": [
                {**row, "breaker_quote": breaker_quote(row["equity_quote"], services())}
                for row in reads.day_opens(links, start, end)
            ],
            "breaker_frac": -services().wiring.params.max_daily_loss_frac,
        }
    )


@blueprint.get("/candles")
@may_read
@blueprint.input(schemas.CandlesQuery, location="query")
@blueprint.output(schemas.CandlesAnswer)
@blueprint.doc(summary="Bars of one series with what was traded on them", security=READERS, responses=_PROBLEMS)
def candles(query_data: dict[str, Any]) -> Response:
    reads = queries()
    symbol, timeframe = query_data["symbol"], query_data["timeframe"]
    bars = reads.candles(symbol, timeframe, query_data["end"], query_data["limit"])
    fills: list[Row] = []
    stops: list[Row] = []
    if bars:
        start: datetime = bars[0]["open_time"]
        fills = reads.fills(Window(limit=1000, start=start, symbol=symbol))
        stops = _stop_lines(reads, symbol, start)
    return tagged({"symbol": symbol, "timeframe": timeframe, "bars": bars, "fills": fills, "stops": stops})


def _stop_lines(reads: Queries, symbol: str, since: datetime) -> list[Row]:
    """Where the stops of each position rested and when, from its stop orders."""
    window = Window(limit=1000, start=since - timedelta(days=2), symbol=symbol)
    return [
        {
            "position_id": order["position_id"],
            "price": order["stop_price"],
            "from": order["planned_at"],
            "state": order["state"],
            "to": order["updated_at"],
        }
        for order in reads.orders(window, None)
        if order["role"] == "stop" and order["stop_price"] is not None
    ]


@blueprint.get("/models")
@may_read
@blueprint.input(schemas.WindowQuery, location="query")
@blueprint.output(schemas.Rows)
@blueprint.doc(summary="Model versions with their gates, the champion first", security=READERS, responses=_PROBLEMS)
def models(query_data: dict[str, Any]) -> Response:
    window = _window(query_data)
    reads = queries()
    rows = reads.models(window)
    gates = reads.gates([row["version"] for row in rows])
    for row in rows:
        row["gates"] = [gate for gate in gates if gate["version"] == row["version"]]
    return _rows(window, rows)


@blueprint.get("/models/<version>")
@may_read
@blueprint.output(schemas.Model)
@blueprint.doc(
    summary="One model version with its whole manifest",
    security=READERS,
    responses={**_PROBLEMS, 404: "No such version."},
)
def model(version: str) -> Response:
    reads = queries()
    row = reads.model(version) if version.isprintable() else None
    if row is None:
        abort(problem(404, "There is no model of that version."))
    return tagged({**row, "gates": reads.gates([row["version"]])})


@blueprint.get("/regimes")
@may_read
@blueprint.input(schemas.WindowQuery, location="query")
@blueprint.output(schemas.Rows)
@blueprint.doc(summary="Regimes by bar, newest first", security=READERS, responses=_PROBLEMS)
def regimes(query_data: dict[str, Any]) -> Response:
    window = _window(query_data)
    return _rows(window, queries().regimes(window, None))


@blueprint.get("/sentiment")
@may_read
@blueprint.input(schemas.WindowQuery, location="query")
@blueprint.output(schemas.Rows)
@blueprint.doc(summary="Decayed news scores, newest first", security=READERS, responses=_PROBLEMS)
def sentiment(query_data: dict[str, Any]) -> Response:
    window = _window(query_data)
    return _rows(window, queries().sentiment(window))


@blueprint.get("/jobs/<job_id>")
@may_read
@blueprint.output(schemas.Job)
@blueprint.doc(
    summary="Progress of a job that the API started", security=READERS, responses={**_PROBLEMS, 404: "No such job."}
)
def job(job_id: str) -> Response:
    row = queries().job(job_id) if job_id.isprintable() else None
    if row is None:
        abort(problem(404, "There is no job of that id."))
    row = with_progress(services(), row)
    if row["kind"] == "resume_trading" and row["state"] == "failed":
        row["error"] = queries().resume_refusal(str(row["params"].get("request"))) or row["error"]
    return tagged(row)


# ------------------------------------------------------------------------------------------------------------- exports
TRADE_COLUMNS = (
    "position_id", "symbol", "side", "family", "status", "strategy_version", "bar", "opened_at", "closed_at",
    "entry_quantity", "entry_price", "initial_stop_price", "realised_quote", "realised_r", "fees_quote", "exit_reason",
)  # fmt: skip
FILL_COLUMNS = (
    "at", "symbol", "trade_id", "client_order_id", "position_id", "role", "is_buy", "quantity", "price", "fee",
    "fee_asset", "is_maker",
)  # fmt: skip
FEE_COLUMNS = ("day", "symbol", "fee_asset", "fee", "turnover_quote", "fills")


@blueprint.get("/export/trades.csv")
@may_read
@blueprint.input(schemas.ExportQuery, location="query")
@blueprint.output(_CSV, content_type="text/csv")
@blueprint.doc(summary="Ended positions as CSV", security=READERS, responses=_PROBLEMS)
def export_trades(query_data: dict[str, Any]) -> Response:
    reads = queries()
    return _export("trades", TRADE_COLUMNS, query_data, lambda window: reads.positions(window, False))


@blueprint.get("/export/fills.csv")
@may_read
@blueprint.input(schemas.ExportQuery, location="query")
@blueprint.output(_CSV, content_type="text/csv")
@blueprint.doc(summary="Fills as CSV", security=READERS, responses=_PROBLEMS)
def export_fills(query_data: dict[str, Any]) -> Response:
    return _export("fills", FILL_COLUMNS, query_data, queries().fills)


@blueprint.get("/export/fees.csv")
@may_read
@blueprint.input(schemas.ExportQuery, location="query")
@blueprint.output(_CSV, content_type="text/csv")
@blueprint.doc(summary="Fees a day, symbol and asset as CSV", security=READERS, responses=_PROBLEMS)
def export_fees(query_data: dict[str, Any]) -> Response:
    return _export("fees", FEE_COLUMNS, query_data, queries().fees)


def _export(
    name: str, columns: tuple[str, ...], query: dict[str, Any], read: Callable[[Window], list[Row]]
) -> Response:
    """All rows of the range, streamed page by page. The first page is read before answering, so that errors show."""
    first = read(Window(_EXPORT_CHUNK, 0, query["start"], query["end"], query["symbol"]))

    def pages() -> Iterator[list[Row]]:
        rows, offset = first, 0
        while True:
            yield rows[:_EXPORT_CHUNK]
            if len(rows) <= _EXPORT_CHUNK:
                return
            offset += _EXPORT_CHUNK
            rows = read(Window(_EXPORT_CHUNK, offset, query["start"], query["end"], query["symbol"]))

    response = Response(_csv(columns, pages()), mimetype="text/csv")
    response.headers["Content-Disposition"] = f'attachment; filename="tradewind-{name}.csv"'
    return response


def _csv(columns: tuple[str, ...], pages: Iterable[list[Row]]) -> Iterator[str]:
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(columns)
    for rows in pages:
        for row in rows:
            writer.writerow([_cell(row[column]) for column in columns])
        yield buffer.getvalue()
        buffer.seek(0)
        buffer.truncate()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    text = str(value) if isinstance(value, str) else str(ExactJson.default(value))
    # A spreadsheet would run what starts like a formula; a negative number is none.
    return f"'{text}" if isinstance(value, str) and text[:1] in "=+-@\t\r" else text
