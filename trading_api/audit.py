"""Who did what, also what was refused: one row each."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import psycopg
from flask import g, request
from psycopg.types.json import Jsonb
from psycopg_pool import PoolTimeout

from tradewind.errors import TradewindError

from .services import Services

_log = logging.getLogger(__name__)

_INSERT = """
    INSERT INTO audit (actor, action, outcome, detail, request_id, source) VALUES (%s, %s, %s, %s, %s, %s)"""
_INSERT_LOGIN = f"""{_INSERT}
    ON CONFLICT ((detail ->> 'login_ticket')) WHERE detail ? 'login_ticket' DO NOTHING"""


def source() -> str:
    """Where the present request comes from, as audit rows name it."""
    return f"api {request.remote_addr or '-'} request {g.get('request_id', '')}"


def record(
    made: Services, actor: str, action: str, outcome: str, detail: Mapping[str, Any], *, must: bool = False
) -> None:
    """Write the row, and the log line that stands in for it when PostgreSQL is down.

    `must`: raise StoreUnavailable instead, where the row is what somebody acts on.
    """
    _log.info("audit: %s %s %s from %s", actor, action, outcome, source())
    kept = Jsonb({"account": made.account, **detail})
    try:
        made.database.execute(_INSERT, (actor, action, outcome, kept, g.get("request_id", ""), source()))
    except (psycopg.OperationalError, PoolTimeout, TradewindError) as error:
        if must:
            raise
        _log.error("audit row lost, PostgreSQL does not answer: %s", type(error).__name__)


def record_login(made: Services, ticket: str) -> bool:
    """Write the row of a login by ticket; False if there is one already, or PostgreSQL does not answer.

    The row is what uses the ticket up, so that of two at once one signs in.
    """
    values = ("reader", "login", "done", Jsonb({"login_ticket": ticket}), g.get("request_id", ""), source())
    try:
        return made.database.execute(_INSERT_LOGIN, values) == 1
    except TradewindError as error:
        _log.error("no login by link, PostgreSQL does not answer: %s", type(error).__name__)
        return False
