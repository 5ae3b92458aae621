"""What may be asked and what is answered, from which the OpenAPI document is made."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from apiflask import Schema
from apiflask.fields import (
    AwareDateTime,
    Boolean,
    DateTime,
    Dict,
    Float,
    Integer,
    List,
    Nested,
    Raw,
    String,
)
from apiflask.validators import Length, OneOf, Range, Regexp
from marshmallow import ValidationError, validates_schema

SYMBOL = r"^[A-Z0-9]{2,15}/[A-Z0-9]{2,10}$"
# Words of a person: no control characters, which neither PostgreSQL nor a log line can hold.
PLAIN_TEXT = r"^[^\x00-\x1f\x7f\ud800-\udfff]*$"
EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
LATEST = datetime(2100, 1, 1, tzinfo=UTC)


def _moment(description: str, **options: Any) -> AwareDateTime:
    return AwareDateTime(
        format="iso",
        default_timezone=UTC,
        validate=_in_range,
        metadata={"description": f"{description} ISO 8601; UTC where no offset is given."},
        **options,
    )


def _in_range(value: datetime) -> None:
    if not EARLIEST <= value < LATEST:
        raise ValidationError("must lie between 2000 and 2100")


# ------------------------------------------------------------------------------------------------------------- queries
class RangeQuery(Schema):
    start = _moment("The first moment wanted.", data_key="from", load_default=None)
    end = _moment("The first moment no longer wanted.", data_key="to", load_default=None)

    @validates_schema
    def _ordered(self, data: dict[str, Any], **_: Any) -> None:
        start, end = data.get("start"), data.get("end")
        if start and end and start > end:
            raise ValidationError("must not lie after 'to'", "from")


class WindowQuery(RangeQuery):
    limit = Integer(load_default=100, validate=Range(1, 1000))
    offset = Integer(load_default=0, validate=Range(0, 1_000_000))
    symbol = String(load_default=None, validate=Regexp(SYMBOL), metadata={"example": "BTC/USDT"})


class PositionsQuery(WindowQuery):
    live = Boolean(
        load_default=None, metadata={"description": "Only open positions (true) or only ended ones (false)."}
    )


class OrdersQuery(WindowQuery):
    state = String(
        load_default=None,
        validate=OneOf(
            ["planned", "sent", "working", "partial", "filled", "rejected", "cancelled", "expired", "unknown"]
        ),
    )


class DecisionsQuery(WindowQuery):
    bar = _moment("The bar's open time.", load_default=None)
    outcome = String(load_default=None, validate=OneOf(["intent", "declined", "expired", "unavailable"]))


class EquityQuery(RangeQuery):
    points = Integer(load_default=500, validate=Range(2, 5000), metadata={"description": "At most about so many."})


class CandlesQuery(Schema):
    symbol = String(required=True, validate=Regexp(SYMBOL), metadata={"example": "BTC/USDT"})
    timeframe = String(load_default="15m", validate=OneOf(["15m", "1h"]))
    end = _moment("Bars opened before this.", data_key="to", load_default=None)
    limit = Integer(load_default=192, validate=Range(1, 1000))


class ExportQuery(RangeQuery):
    symbol = String(load_default=None, validate=Regexp(SYMBOL), metadata={"example": "BTC/USDT"})


# ------------------------------------------------------------------------------------------------------------- control
class HistoryRequest(Schema):
    symbols = List(
        String(validate=Regexp(SYMBOL), metadata={"example": "BTC/USDT"}),
        load_default=list,
        validate=Length(max=200),
        metadata={"description": "Empty: every configured symbol."},
    )
    timeframes = List(
        String(validate=OneOf(["15m", "1h"])), load_default=lambda: ["15m", "1h"], validate=Length(min=1, max=2)
    )
    start = _moment("The first bar.", data_key="from", load_default=None, allow_none=True)
    end = _moment("The first bar no longer wanted; now when empty.", data_key="to", load_default=None, allow_none=True)

    @validates_schema
    def _ordered(self, data: dict[str, Any], **_: Any) -> None:
        start, end = data.get("start"), data.get("end")
        if start and end and start >= end:
            raise ValidationError("must lie before 'to'", "from")


class TrainRequest(Schema):
    reason = String(load_default="requested", validate=[Length(1, 200), Regexp(PLAIN_TEXT)])


class CycleRequest(Schema):
    bar = _moment(
        "Open time of the bar to decide on; the newest closed one when empty.", load_default=None, allow_none=True
    )


class HaltRequest(Schema):
    reason = String(
        required=True, validate=[Length(1, 300), Regexp(PLAIN_TEXT)], metadata={"example": "looking into fills"}
    )


class EmptyRequest(Schema):
    pass


class IdempotencyHeader(Schema):
    idempotency_key = String(
        data_key="Idempotency-Key",
        load_default=None,
        validate=Regexp(r"^[A-Za-z0-9._:-]{1,128}$"),
        metadata={"description": "The same key starts the same run once, however often it is sent."},
    )


# ------------------------------------------------------------------------------------------------------------- answers
class Problem(Schema):
    type = String(required=True)
    title = String(required=True)
    status = Integer(required=True)
    detail = String(required=True)
    instance = String(required=True)
    request_id = String(required=True)
    errors = Raw()


class Rows(Schema):
    items = List(Dict(), required=True)
    limit = Integer(required=True)
    offset = Integer(required=True)
    next_offset = Integer(required=True, allow_none=True)


class Health(Schema):
    status = String(required=True)


class CheckAnswer(Schema):
    name = String(required=True)
    ok = Boolean(required=True)
    detail = String(required=True)
    value = Float(required=True, allow_none=True)


class DagAnswer(Schema):
    dag_id = String(required=True)
    paused = Boolean(required=True)
    last_state = String(required=True, allow_none=True)
    last_start = DateTime(required=True, allow_none=True)
    failed_24h = Integer(required=True)


class Ready(Schema):
    ready = Boolean(required=True)
    failed = List(String(), required=True)
    checks = List(Nested(CheckAnswer), required=True)


class SystemStatus(Schema):
    available = Boolean(required=True, metadata={"description": "False while PostgreSQL does not answer."})
    deployment = Dict(required=True)
    trading = Dict(required=True)
    equity = Dict(allow_none=True)
    positions = List(Dict())
    last_cycle = Dict(allow_none=True)
    data = List(Dict())
    model = Dict(allow_none=True)
    sentiment = List(Dict())
    dags = List(Nested(DagAnswer), required=True)
    checks = List(Nested(CheckAnswer), required=True)
    problems = List(Dict(), required=True)
    clock = Dict(required=True)


class Model(Schema):
    version = String(required=True)
    state = String(required=True, validate=OneOf(["challenger", "champion", "retired"]))
    trained_from = DateTime(required=True)
    trained_until = DateTime(required=True)
    created_at = DateTime(required=True)
    manifest = Dict(required=True)
    gates = List(Dict(), required=True)


class EquityAnswer(Schema):
    marks = List(Dict(), required=True)
    day_opens = List(Dict(), required=True)
    breaker_frac = Float(required=True)


class CandlesAnswer(Schema):
    symbol = String(required=True)
    timeframe = String(required=True)
    bars = List(Dict(), required=True)
    fills = List(Dict(), required=True)
    stops = List(Dict(), required=True)


class Job(Schema):
    job_id = String(required=True)
    kind = String(required=True)
    state = String(required=True, validate=OneOf(["queued", "running", "done", "failed"]))
    progress_frac = Float(required=True, allow_none=True)
    progress = Dict(allow_none=True)
    params = Dict(required=True)
    dag_id = String(allow_none=True)
    dag_run_id = String(allow_none=True)
    requested_by = String(required=True)
    created_at = DateTime(required=True)
    started_at = DateTime(allow_none=True)
    finished_at = DateTime(allow_none=True)
    error = String(allow_none=True)
    chunks = Integer()
    chunks_done = Integer()
    rows_seen = Integer()
    rows_new = Integer()


class Started(Schema):
    job_id = String(required=True)
    state = String(required=True)
    dag_id = String(required=True)
    dag_run_id = String(required=True)
    href = String(required=True)


class LatchAnswer(Schema):
    mode = String(required=True, validate=OneOf(["active", "reduce_only", "halted"]))
    reason = String(required=True)
    since = DateTime(allow_none=True)
    sequence = Integer(required=True)


class FlattenAnswer(LatchAnswer):
    detail = String(required=True)
    job_id = String(required=True, allow_none=True)
    href = String(required=True, allow_none=True)
