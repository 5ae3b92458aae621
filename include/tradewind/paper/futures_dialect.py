"""Binance's words on the futures side, and the table entry that tells every refusal in them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, Final

from tradewind.core.matching_rules import SymbolRules
from tradewind.core.matching_types import Refusal, RejectReason
from tradewind.paper.dialect import ApiError, bad_symbol, refusal
from tradewind.paper.endpoints import Call, Handler, Security, endpoint
from tradewind.paper.futures_exchange import FuturesExchange
from tradewind.paper.params import Parser

CONDITIONAL_TYPES: Final = ("STOP", "STOP_MARKET", "TAKE_PROFIT", "TAKE_PROFIT_MARKET", "TRAILING_STOP_MARKET")
ORDER_TYPES: Final = ("LIMIT", "MARKET", *CONDITIONAL_TYPES)
TIMES_IN_FORCE: Final = ("GTC", "IOC", "FOK", "GTX")
_NOT_RECORDED: Final = "The order will not be recorded in the order history"
_TEXTS: Final[Mapping[RejectReason, tuple[int, str]]] = {
    RejectReason.MARKET_CLOSED: (-4140, "Invalid symbol status for opening position."),
    RejectReason.CANCEL_ONLY: (-4141, "Symbol is closed."),
    RejectReason.INSUFFICIENT_MARGIN: (-2019, "Margin is insufficient."),
    RejectReason.INSUFFICIENT_BALANCE: (-2018, "Balance is insufficient."),
    RejectReason.DUPLICATE_CLIENT_ID: (-4116, "ClientOrderId is duplicated."),
    RejectReason.WOULD_TRIGGER: (-2021, "Order would immediately trigger."),
    RejectReason.WOULD_TAKE: (
        -5022,
        f"Due to the order could not be executed as maker, the Post Only order will be rejected. {_NOT_RECORDED}",
    ),
    RejectReason.FOK_UNFILLED: (
        -5021,
        f"Due to the order could not be filled immediately, the FOK order has been rejected. {_NOT_RECORDED}",
    ),
    RejectReason.NO_LIQUIDITY: (-4131, "The counterparty's best price does not meet the PERCENT_PRICE filter limit."),
    RejectReason.REDUCE_ONLY: (-2022, "ReduceOnly Order is rejected."),
    RejectReason.POSITION_LIMIT: (-2027, "Exceeded the maximum allowable position at current leverage."),
    RejectReason.FILTER_PRICE: (-4014, "Price not increased by tick size."),
    RejectReason.FILTER_PERCENT_PRICE: (-4016, "Price is higher than mark price multiplier cap."),
    RejectReason.FILTER_LOT_SIZE: (-4005, "Quantity greater than max quantity."),
    RejectReason.FILTER_MARKET_LOT_SIZE: (-4005, "Quantity greater than max quantity."),
    RejectReason.FILTER_NOTIONAL: (
        -4164,
        "Order's notional must be no smaller than 5 (unless you choose reduce only).",
    ),
    RejectReason.FILTER_MAX_ORDERS: (-2025, "Reach max open order limit."),
    RejectReason.FILTER_MAX_ALGO_ORDERS: (-4045, "Reach max stop order limit."),
    RejectReason.FILTER_TRAILING_DELTA: (-1130, "Data sent for parameter 'callbackRate' is not valid."),
    RejectReason.BAD_COMPOSITION: (-1106, "Parameter sent when not required."),
}


def told(rejected: Refusal) -> ApiError:
    """The engine's refusal in the words of the futures side."""
    if rejected.reason is RejectReason.FILTER_LOT_SIZE and rejected.detail:
        return ApiError(-4023, "Qty not increased by step size.")
    known = _TEXTS.get(rejected.reason)
    return ApiError(*known) if known is not None else refusal(rejected)


def futures_endpoint(
    method: str,
    path: str,
    security: Security = Security.NONE,
    weight: Any = 1,
    required: tuple[str, ...] = (),
    shared: Mapping[str, Parser] | None = None,
    **own: Parser,
) -> Callable[[Handler], Handler]:
    """Like `endpoint`; a refusal of the engine is told in the words of the futures side."""

    def register(handler: Handler) -> Handler:
        @wraps(handler)
        def handle(call: Call) -> Any:
            try:
                return handler(call)
            except Refusal as rejected:
                raise told(rejected) from None

        endpoint(method, path, security, weight, required, shared, **own)(handle)
        return handle

    return register


def desk(call: Call) -> FuturesExchange:
    """The futures side of the exchange that was called."""
    return call.exchange.futures


def futures_rules(call: Call, symbol: str) -> SymbolRules:
    """The rules of a listed contract. Raises ApiError -1121."""
    if not call.exchange.is_listed(symbol):
        raise bad_symbol()
    return desk(call).engine.rules[symbol]


def listed(call: Call) -> list[str]:
    """The contracts that can be asked about, in the market's order."""
    return [symbol for symbol in desk(call).engine.rules if call.exchange.is_listed(symbol)]
