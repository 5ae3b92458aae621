"""What an exchange's answer means: ccxt's exceptions, the HTTP status and the error code mapped to our tree.

Reading and sending are judged differently. A failed read may be repeated. A failed send is refused only when the
exchange said so: a 4xx answer with an error code of its own, or nothing sent at all. Everything else is OutcomeUnknown.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import ParamSpec, TypeVar

import ccxt

from tradewind.errors import (
    AuthenticationFailed,
    BadInput,
    ClockSkewed,
    ExchangeMaintenance,
    ExchangeUnreachable,
    InsufficientBalance,
    NotSupported,
    OrderRejected,
    OutcomeUnknown,
    RateLimited,
    TradewindError,
    UnknownSymbol,
)

# Binance answers these with a 4xx or 5xx although the order may have been executed; so may bitget the positive ones
# (timed out, system abnormal, an error of a service behind, unknown), which no other exchange uses.
_EXECUTION_UNKNOWN_CODES = frozenset({-1000, -1001, -1006, -1007, -1008, 40010, 40015, 40725, 45001})
P = ParamSpec("P")
T = TypeVar("T")
# What code raises that takes an answer for something it is not: empty, another form, no number.
UNREADABLE = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError)
# Refusals by a market's rules (ticks, steps, limits, the market itself), which may have changed since they were read:
# Binance spot and futures, okx, bybit, bitget.
_RULE_CODES = frozenset(
    {-1013, -1111, -1121, -4001, -4002, -4003, -4004, -4005, -4013, -4014, -4023, -4140, -4141, -4164}
    | {51000, 51001, 51020, 51021, 51027, 51028, 51120, 51121, 51201, 51202, 51203}
    | {170105, 170121, 170124, 170131, 170132, 170133, 170134, 170135, 170136, 170137, 170140}
    | {40034, 40309, 40808, 43005, 43006, 43007, 45110, 45111, 45115}
)
_CLOCK_SKEW_CODE = -1021
_QUERY = re.compile(r"\?\S*")
# Some exchanges refuse under HTTP 200: only what ccxt recognises as one of these is certain not to have been done.
_CERTAIN_REFUSALS = (
    ccxt.InvalidOrder,
    ccxt.InsufficientFunds,
    ccxt.BadRequest,
    ccxt.AuthenticationError,
    ccxt.OperationRejected,
)


def readable(method: Callable[P, T]) -> Callable[P, T]:
    """The reading method with ExchangeUnreachable for an answer that it cannot read."""

    @wraps(method)
    def guarded(*args: P.args, **options: P.kwargs) -> T:
        try:
            return method(*args, **options)
        except UNREADABLE as error:
            raise ExchangeUnreachable(f"{method.__name__}: the answer cannot be read ({error!r:.200})") from error

    return guarded


@dataclass(slots=True)
class CallRecord:
    """What happened on the wire during one call of one thread."""

    sent: bool = False  # the request was handed to the socket
    status: int | None = None  # the answer's HTTP status; None when no answer came
    body: str = ""
    retry_after_s: float | None = None

    @property
    def code(self) -> int | None:
        """The exchange's own error code, where it carries one: `code`, bybit's `retCode`, okx's inner `sCode`."""
        try:
            answer = json.loads(self.body)
            rows = answer.get("data")
            inner = rows[0].get("sCode") if isinstance(rows, list) and rows and isinstance(rows[0], dict) else None
            return int(inner or answer.get("retCode") or answer["code"])
        except (ValueError, TypeError, KeyError, AttributeError):
            return None


def is_rule_refusal(code: int | None) -> bool:
    """May a refusal with this code mean that a market's rules are no longer those that were read?"""
    return code in _RULE_CODES


def read_error(error: ccxt.BaseError, record: CallRecord, what: str) -> TradewindError:
    """The error of a call that changes nothing."""
    text = _describe(error, record, what)
    return _answered(error, record, text) or _refused(error, record, text)


def send_error(error: ccxt.BaseError, record: CallRecord, what: str, client_order_id: str) -> TradewindError:
    """The error of a call that may have changed something."""
    text = _describe(error, record, what)
    if not record.sent:
        return _refused(error, record, text)
    limited = record.status == 200 and isinstance(error, ccxt.RateLimitExceeded)
    if record.status in (418, 429) or limited:
        return RateLimited(text, record.retry_after_s or 1.0)
    code = record.code
    if code == _CLOCK_SKEW_CODE or (record.status == 200 and isinstance(error, ccxt.InvalidNonce)):
        return ClockSkewed(f"{text}: the clock's offset is measured again before the next call")
    answered = record.status is not None and 400 <= record.status < 500 and code is not None
    answered = answered or (record.status == 200 and isinstance(error, _CERTAIN_REFUSALS))
    if not answered or code in _EXECUTION_UNKNOWN_CODES or isinstance(error, ccxt.OperationFailed):
        return OutcomeUnknown(text, client_order_id)
    return _refused(error, record, text)


def _answered(error: ccxt.BaseError, record: CallRecord, text: str) -> TradewindError | None:
    """The transient errors of a read, or None when the error is a refusal."""
    if record.status in (418, 429) or isinstance(error, ccxt.DDoSProtection | ccxt.RateLimitExceeded):
        return RateLimited(text, record.retry_after_s or 1.0)
    if isinstance(error, ccxt.InvalidNonce):
        return ClockSkewed(f"{text}: the clock's offset is measured again before the next call")
    if isinstance(error, ccxt.OnMaintenance | ccxt.MarketClosed):
        return ExchangeMaintenance(text)
    if record.status == 200 and not record.code and type(error) is ccxt.ExchangeError:
        return ExchangeUnreachable(text)  # neither an answer nor a refusal: what gateways say
    if isinstance(error, ccxt.OperationFailed) or record.status is None or record.status >= 500:
        return ExchangeUnreachable(text) if record.sent or isinstance(error, ccxt.OperationFailed) else None
    return None


def _refused(error: ccxt.BaseError, record: CallRecord, text: str) -> TradewindError:
    if isinstance(error, ccxt.AuthenticationError):
        return AuthenticationFailed(f"{text}: check TRADEWIND_EXCHANGE_API_KEY, its secret and its permissions")
    if isinstance(error, ccxt.InsufficientFunds):
        return InsufficientBalance(text, record.code)
    if isinstance(error, ccxt.BadSymbol):
        return UnknownSymbol(text)
    if isinstance(error, ccxt.NotSupported):
        return NotSupported(text)
    if isinstance(error, ccxt.MarketClosed | ccxt.OnMaintenance):
        return ExchangeMaintenance(text)
    if isinstance(error, ccxt.InvalidOrder | ccxt.OperationRejected) or record.code is not None:
        return OrderRejected(text, record.code)
    return BadInput(text)


def _describe(error: ccxt.BaseError, record: CallRecord, what: str) -> str:
    """One line: what was asked, how it ended. Query strings are cut, because they carry signatures."""
    try:
        said = str(json.loads(record.body)["msg"])
    except (ValueError, TypeError, KeyError):
        said = _QUERY.sub("", str(error).splitlines()[0] if str(error) else "")[:200]
    status = "" if record.status is None else f" HTTP {record.status}"
    return f"{what}:{status} {type(error).__name__}: {said}"
