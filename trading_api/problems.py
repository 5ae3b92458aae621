"""Errors as RFC 9457 problems: a status, a title, words for a person, the request's id, and nothing of the inside."""

from __future__ import annotations

import logging
import re
import uuid
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import psycopg
import structlog
from apiflask import APIFlask, HTTPError
from flask import Response, current_app, g, json, request
from flask.json.provider import DefaultJSONProvider
from psycopg_pool import PoolTimeout
from werkzeug.exceptions import HTTPException
from werkzeug.http import HTTP_STATUS_CODES

from tradewind.errors import BadInput, ReconcileError, RetryError, StopError, TradewindError

_log = logging.getLogger(__name__)

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class ExactJson(DefaultJSONProvider):
    """Money as strings, times as ISO 8601 in UTC with a `Z`."""

    sort_keys = False

    @staticmethod
    def default(o: Any) -> Any:
        if isinstance(o, Decimal):
            return f"{o:f}"
        if isinstance(o, datetime):
            return o.astimezone(UTC).isoformat().replace("+00:00", "Z")
        if isinstance(o, date):
            return o.isoformat()
        return DefaultJSONProvider.default(o)


def install(app: APIFlask) -> None:
    """Give every request an id and every error the same form."""
    app.before_request(_take_request_id)
    app.after_request(_show_request_id)
    app.error_processor(_from_api)
    app.register_error_handler(HTTPException, _from_http)
    app.register_error_handler(TradewindError, _from_ours)
    app.register_error_handler(psycopg.Error, _from_store)
    app.register_error_handler(PoolTimeout, _from_store)
    app.register_error_handler(Exception, _from_defect)


def problem(status: int, detail: str, *, errors: Any = None, headers: Any = None) -> Response:
    """One problem as a response."""
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTP_STATUS_CODES.get(status, "Error"),
        "status": status,
        "detail": detail,
        "instance": request.path,
        "request_id": g.get("request_id", ""),
    }
    if errors:
        body["errors"] = errors
    response = current_app.response_class(json.dumps(body), status=status, mimetype="application/problem+json")
    response.headers.extend(headers or {})
    return response


def _take_request_id() -> None:
    given = request.headers.get("X-Request-ID", "")
    g.request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(request_id=g.request_id)


def _show_request_id(response: Response) -> Response:
    response.headers["X-Request-ID"] = g.get("request_id", "")
    return response


def _from_api(error: HTTPError) -> Response:
    return problem(error.status_code, error.message or "", errors=error.detail or None, headers=error.headers)


def _from_http(error: HTTPException) -> Response:
    if isinstance(error.response, Response):
        return error.response
    status = error.code or 500
    headers = {name: value for name, value in error.get_headers() if name in ("Allow", "Retry-After", "Location")}
    return problem(status, error.description or HTTP_STATUS_CODES.get(status, ""), headers=headers)


def _from_ours(error: TradewindError) -> Response:
    """Retry: 503. Stop: 409, or 422 when the input was at fault. Reconcile: 409."""
    if isinstance(error, RetryError):
        return problem(503, str(error), headers={"Retry-After": "5"})
    if isinstance(error, BadInput):
        return problem(422, str(error))
    if isinstance(error, StopError | ReconcileError):
        return problem(409, str(error))
    return _from_defect(error)


def _from_store(error: Exception) -> Response:
    if isinstance(error, psycopg.OperationalError | PoolTimeout):
        _log.warning("PostgreSQL does not answer: %s", type(error).__name__)
        return problem(503, "PostgreSQL does not answer. See /api/ready.", headers={"Retry-After": "5"})
    return _from_defect(error)


def _from_defect(error: Exception) -> Response:
    _log.error("request %s failed", g.get("request_id", ""), exc_info=error)
    return problem(500, "This is a defect of ours; the log has it under the request id.")
