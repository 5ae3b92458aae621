"""Binance's words: error codes, texts and HTTP statuses, and how an engine's refusal is told in them."""

from __future__ import annotations

from typing import Any

from tradewind.core.matching_types import OrderKind, Refusal, RejectReason


class ApiError(Exception):
    """An answer in Binance's error format. `data` and `headers` accompany a few of them."""

    def __init__(
        self, code: int, message: str, status: int = 400, *, data: Any = None, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status
        self.data = data
        self.headers = headers or {}

    def body(self) -> dict[str, Any]:
        body: dict[str, Any] = {"code": self.code, "msg": self.message}
        if self.data is not None:
            body["data"] = self.data
        return body


_TEXTS: dict[RejectReason, tuple[int, str]] = {
    RejectReason.UNKNOWN_SYMBOL: (-1121, "Invalid symbol."),
    RejectReason.MARKET_CLOSED: (-1013, "Market is closed."),
    RejectReason.CANCEL_ONLY: (-2010, "This order type is not possible in this trading phase."),
    RejectReason.INSUFFICIENT_BALANCE: (-2010, "Account has insufficient balance for requested action."),
    RejectReason.DUPLICATE_CLIENT_ID: (-2010, "Duplicate order sent."),
    RejectReason.WOULD_TRIGGER: (-2010, "Order would trigger immediately."),
    RejectReason.WOULD_TAKE: (-2010, "Order would immediately match and take."),
    RejectReason.NO_LIQUIDITY: (-2010, "Order book liquidity is less than symbol minimum quantity."),
    RejectReason.BAD_PRICE_RELATION: (-2010, "The relationship of the prices for the orders is not correct."),
    RejectReason.BAD_COMPOSITION: (-1014, "Unsupported order combination."),
    RejectReason.UNKNOWN_ORDER: (-2011, "Unknown order sent."),
    RejectReason.CANCEL_RESTRICTED: (-2011, "Order was not canceled due to cancel restrictions."),
    RejectReason.AMEND_NO_CHANGE: (-2038, "The requested action would change no state; rejecting."),
    RejectReason.AMEND_INCREASE: (-2038, "Order amend (quantity increase) is not supported."),
    RejectReason.ZERO_NOTIONAL: (-2010, "Price * QTY is zero or less."),
}


def refusal(rejected: Refusal) -> ApiError:
    """The engine's refusal in Binance's words. Filters answer -1013 with the filter's name."""
    known = _TEXTS.get(rejected.reason)
    if known is not None:
        return ApiError(*known)
    return ApiError(-1013, f"Filter failure: {rejected.reason.value}")


def no_such_order() -> ApiError:
    return ApiError(-2013, "Order does not exist.")


def missing(name: str) -> ApiError:
    return ApiError(-1102, f"Mandatory parameter '{name}' was not sent, was empty/null, or malformed.")


def not_required(name: str) -> ApiError:
    return ApiError(-1106, f"Parameter '{name}' sent when not required.")


def one_of(first: str, second: str) -> ApiError:
    return ApiError(-1102, f"Param '{first}' or '{second}' must be sent, but both were empty/null!")


def bad_symbol() -> ApiError:
    return ApiError(-1121, "Invalid symbol.")


ORDER_TYPES = tuple(k.value for k in OrderKind)
STP_MODES = ("NONE", "EXPIRE_TAKER", "EXPIRE_MAKER", "EXPIRE_BOTH", "DECREMENT")
