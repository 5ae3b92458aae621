"""The life of an order, the ids it is known by, and what may be concluded when nobody knows what became of it.

::

    PLANNED ──► SENT ──► WORKING ──► PARTIAL ──► FILLED
       │         │          │           │
       │         ├──────────┴───────────┴──────► REJECTED · CANCELLED · EXPIRED   (final, like FILLED)
       │         │          │           │
       │         └──────────┴───────────┴──► UNKNOWN ──► any of the above but PLANNED and SENT
       └──► CANCELLED · EXPIRED · REJECTED     (never left the house)

PLANNED is committed before anything is sent; SENT is committed right before the request leaves, so that a task killed
between the two lines leaves an order that must be asked for by its id, never one that is silently sent twice.

An unknown outcome is resolved by asking the exchange for the client order id. That it does not know the id proves
absence only after the request can no longer be accepted: its timestamp + recvWindow + 5 s. A proven absent entry is
EXPIRED and never sent again; an absent stop, target or exit is EXPIRED too, and the need behind it is met by a new
order of the next generation.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from .types import ExchangeOrder, Order, OrderRole, OrderState

FINAL: Final = frozenset({OrderState.FILLED, OrderState.REJECTED, OrderState.CANCELLED, OrderState.EXPIRED})
LIVE: Final = frozenset(OrderState) - FINAL
AT_EXCHANGE: Final = frozenset({OrderState.WORKING, OrderState.PARTIAL})
UNDECIDED: Final = frozenset({OrderState.SENT, OrderState.UNKNOWN})  # the exchange may or may not hold it

ALLOWED_MOVES: Final[Mapping[OrderState, frozenset[OrderState]]] = {
    OrderState.PLANNED: frozenset({OrderState.SENT, OrderState.REJECTED, OrderState.CANCELLED, OrderState.EXPIRED}),
    OrderState.SENT: FINAL | AT_EXCHANGE | {OrderState.UNKNOWN},
    OrderState.WORKING: FINAL | {OrderState.PARTIAL, OrderState.UNKNOWN},
    OrderState.PARTIAL: FINAL | {OrderState.UNKNOWN},
    OrderState.UNKNOWN: FINAL | AT_EXCHANGE,
    OrderState.FILLED: frozenset(),
    OrderState.REJECTED: frozenset(),
    OrderState.CANCELLED: frozenset(),
    OrderState.EXPIRED: frozenset(),
}

ID_PREFIX: Final = "tw"
ADOPTED: Final = "adopted-"  # how the ids of positions begin that a person opened
ABSENCE_MARGIN_S: Final = 5.0
LIST: Final = "list"

_LEG_LETTERS: Final[Mapping[str, str]] = {
    OrderRole.ENTRY.value: "e",
    OrderRole.STOP.value: "s",
    OrderRole.TARGET.value: "t",
    OrderRole.EXIT.value: "x",
    LIST: "l",
}
_OUR_ID: Final = re.compile(r"^tw[estxl][0-9a-f]{32}$")


class ForbiddenMove(ValueError):
    """An observation contradicts what the ledger holds as final: reconcile before anything else."""


def is_final(state: OrderState) -> bool:
    """Nothing more can happen to the order."""
    return state in FINAL


def is_allowed(current: OrderState, to: OrderState) -> bool:
    """May the ledger move an order from `current` to `to`?"""
    return to in ALLOWED_MOVES[current]


def next_state(current: OrderState, observed: OrderState) -> OrderState:
    """The state after the exchange was seen to hold the order in `observed`.

    Late news (an observation that lies behind what is known already) changes nothing. Raises ForbiddenMove when two
    final states contradict each other, or when the exchange holds what was only PLANNED: the ledger has then lost the
    step in which it was sent.
    """
    if observed is current or is_allowed(current, observed):
        return observed
    if not is_final(observed) and current is not OrderState.PLANNED:
        return current
    raise ForbiddenMove(f"the ledger holds the order as {current.value}, the exchange says {observed.value}")


# ------------------------------------------------------------------------------------------------------------------ ids
def _digest(*parts: object) -> str:
    # A separator that no part contains keeps ("a", "bc") and ("ab", "c") apart.
    return hashlib.sha256("\x1f".join(map(str, parts)).encode()).hexdigest()


def _bar_ms(bar: datetime) -> int:
    if bar.tzinfo is None:
        raise ValueError(f"a bar needs a time zone to name an order: {bar!r}")
    return round(bar.timestamp() * 1000)


def intent_id(account: str, strategy_version: str, symbol: str, bar: datetime) -> str:
    """The name of the entry decided for one symbol and bar, and of the position it opens: readable and unique."""
    digest = _digest("intent", account, strategy_version, symbol, _bar_ms(bar))
    return f"{symbol.replace('/', '').replace(':', '-')}-{bar.astimezone(UTC):%Y%m%dT%H%M}-{digest[:12]}"


def client_order_id(
    account: str, strategy_version: str, symbol: str, bar: datetime, lot: int, leg: OrderRole, generation: int
) -> str:
    """The id an order is sent under: derived, so that a repeated task finds its own order instead of sending another.

    "tw", a letter for the leg, 128 bits in hex: 35 characters of Binance's ``[a-zA-Z0-9-_]{1,36}``. `bar` is the
    decision bar's open; any time zone names the same moment.
    """
    digest = _digest(account, strategy_version, symbol, _bar_ms(bar), lot, leg.value, generation)
    return f"{ID_PREFIX}{_LEG_LETTERS[leg.value]}{digest[:32]}"


def list_client_id(account: str, strategy_version: str, symbol: str, bar: datetime, lot: int, generation: int) -> str:
    """The id of the order list of one lot and generation, made like `client_order_id`."""
    digest = _digest(account, strategy_version, symbol, _bar_ms(bar), lot, LIST, generation)
    return f"{ID_PREFIX}{_LEG_LETTERS[LIST]}{digest[:32]}"


def is_ours(client_id: str | None) -> bool:
    """Was this order or list id derived here? Anything else belongs to a person or another program."""
    return client_id is not None and _OUR_ID.match(client_id) is not None


# ----------------------------------------------------------------------------------------------------- unknown outcomes
@dataclass(frozen=True, slots=True)
class Resolution:
    """What may be concluded about an order whose outcome was unknown.

    `state` is None while the answer must be awaited. `next_generation` is set when the order certainly never arrived
    and its need (protecting or leaving a position that is still held) must be met by a new order.
    """

    state: OrderState | None
    next_generation: int | None
    reason: str


def absence_proven(sent_at: datetime, now: datetime, recv_window_s: float) -> bool:
    """Can a request signed at `sent_at` no longer be accepted? Only then does an unknown-id answer mean absence."""
    return now > sent_at + timedelta(seconds=recv_window_s + ABSENCE_MARGIN_S)


def resolve(order: Order, found: ExchangeOrder | None, now: datetime, recv_window_s: float) -> Resolution:
    """Conclude from the exchange's answer to `find_order`; `found` is None when it does not know the id.

    `now` must be wall time, like the request's timestamp: a stepped market's clock proves nothing about the network.
    """
    if found is not None:
        return Resolution(next_state(order.state, found.state), None, "found by its client order id")
    if order.state is OrderState.PLANNED:
        return Resolution(OrderState.EXPIRED, _successor(order), "planned, never sent")
    asked_from = order.sent_at if order.sent_at is not None else order.planned_at
    if not absence_proven(asked_from, now, recv_window_s):
        return Resolution(None, None, "not known yet: the request may still arrive")
    return Resolution(OrderState.EXPIRED, _successor(order), "absent after its time to arrive had passed")


def _successor(order: Order) -> int | None:
    return None if order.role is OrderRole.ENTRY else order.generation + 1
