"""The table of endpoints: what each path takes, what it costs, who may call it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from tradewind.paper import params
from tradewind.paper.books import Bent
from tradewind.paper.exchange import ApiKey, PaperExchange
from tradewind.paper.limits import RateLimiter
from tradewind.paper.params import Params, Parser


class Security(Enum):
    NONE = "NONE"
    KEYED = "MARKET_DATA"
    USER_DATA = "USER_DATA"
    TRADE = "TRADE"

    @property
    def is_signed(self) -> bool:
        return self in (Security.USER_DATA, Security.TRADE)


@dataclass(slots=True)
class Call:
    """One authenticated, parsed request. Handlers add answer headers and may set another status."""

    exchange: PaperExchange
    limiter: RateLimiter
    params: Params
    wall_ms: int
    now_ms: int
    key: ApiKey | None = None
    headers: dict[str, str] = field(default_factory=dict)
    status: int = 200
    take_cap_frac: float | None = None
    """Fault injection: the share of an order that may fill at once."""
    rejected_leg: int | None = None
    """Fault injection: the pending leg of a list that is refused when it should be placed."""
    bent_books: dict[str, Bent] = field(default_factory=dict)
    """Fault injection: books that are bent in this answer alone; "*" means every symbol's."""

    @property
    def account_id(self) -> str:
        assert self.key is not None
        return self.key.account_id

    def bent(self, symbol: str) -> Bent | None:
        """How the symbol's book is bent, in this answer or for longer."""
        return self.bent_books.get(symbol) or self.bent_books.get("*") or self.exchange.conditions.book_of(symbol)


Handler = Callable[[Call], Any]
Weight = int | Callable[[Mapping[str, str]], int]


@dataclass(frozen=True, slots=True)
class Endpoint:
    handler: Handler
    security: Security
    weight: Weight
    params: Mapping[str, Parser]
    required: tuple[str, ...]
    mutates: bool


ENDPOINTS: dict[tuple[str, str], Endpoint] = {}

_SIGNED: dict[str, Parser] = {
    "recvWindow": params.receive_window,
    "timestamp": params.moment,
    "signature": lambda _, text: text,
}


def endpoint(
    method: str,
    path: str,
    security: Security = Security.NONE,
    weight: Weight = 1,
    required: tuple[str, ...] = (),
    shared: Mapping[str, Parser] | None = None,
    **own: Parser,
) -> Callable[[Handler], Handler]:
    """Register a handler for a path; `own` and `shared` name its parameters and how each is read."""

    def register(handler: Handler) -> Handler:
        known = {**(shared or {}), **own, **(_SIGNED if security.is_signed else {})}
        ENDPOINTS[(method, path)] = Endpoint(handler, security, weight, known, required, method != "GET")
        return handler

    return register
