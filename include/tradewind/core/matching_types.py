"""The records of order matching: orders, lists, fills, and why an order is refused.

Inside matching everything is an integer: prices in ticks, quantities in lots, money in atoms: 10⁻⁸ of an asset, or less
where a market needs it. `Decimal` appears only in `matching_rules`, at the edge. Times are epoch milliseconds that the
caller passes in.

The life of an order::

    PENDING_NEW ──► NEW ──► PARTIALLY_FILLED ──► FILLED
         │           │              │
         ├──► REJECTED, EXPIRED     └──► CANCELED, EXPIRED, EXPIRED_IN_MATCH (it would have met its own account)
         └──► CANCELED
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum, StrEnum

NO_LIST = -1
NO_MATCH = -1
NEVER_MS = -1


class OrderSide(IntEnum):
    """The sign of the base quantity an order moves."""

    BUY = 1
    SELL = -1


class OrderKind(StrEnum):
    """What an order waits for and how it is priced; the properties are plain attributes, read millions of times."""

    is_contingent: bool
    """Waits for a trigger price before it works."""
    is_stop: bool
    has_price: bool
    has_time_in_force: bool

    LIMIT = "LIMIT"
    LIMIT_MAKER = "LIMIT_MAKER"
    MARKET = "MARKET"
    STOP_LOSS = "STOP_LOSS"
    STOP_LOSS_LIMIT = "STOP_LOSS_LIMIT"
    TAKE_PROFIT = "TAKE_PROFIT"
    TAKE_PROFIT_LIMIT = "TAKE_PROFIT_LIMIT"

    def __init__(self, name: str) -> None:
        self.is_contingent = name.startswith(("STOP_LOSS", "TAKE_PROFIT"))
        self.is_stop = name.startswith("STOP_LOSS")
        self.has_price = "LIMIT" in name
        self.has_time_in_force = self.has_price and name != "LIMIT_MAKER"


class TimeInForce(StrEnum):
    GTC = "GTC"
    IOC = "IOC"
    FOK = "FOK"


class OrderStatus(StrEnum):
    is_open: bool

    PENDING_NEW = "PENDING_NEW"
    NEW = "NEW"
    PARTIALLY_FILLED = "PARTIALLY_FILLED"
    FILLED = "FILLED"
    CANCELED = "CANCELED"
    EXPIRED = "EXPIRED"
    EXPIRED_IN_MATCH = "EXPIRED_IN_MATCH"
    REJECTED = "REJECTED"

    def __init__(self, name: str) -> None:
        self.is_open = name in ("PENDING_NEW", "NEW", "PARTIALLY_FILLED")


class ListKind(StrEnum):
    """How the orders of a list depend on each other.

    OCO: two legs, one cancels the other. OTO: a working order, then a pending one. OTOCO: a working order, then an OCO
    pair. OPO and OPOCO: the same two, with the pending quantity taken from what the working order bought.
    """

    has_working_leg: bool
    is_sized_from_proceeds: bool

    OCO = "OCO"
    OTO = "OTO"
    OTOCO = "OTOCO"
    OPO = "OPO"
    OPOCO = "OPOCO"

    def __init__(self, name: str) -> None:
        self.has_working_leg = name != "OCO"
        self.is_sized_from_proceeds = name.startswith("OPO")


class RejectReason(StrEnum):
    """Why a command was refused. Nothing has changed when one is given."""

    UNKNOWN_SYMBOL = "unknown symbol"
    MARKET_CLOSED = "market is closed"
    CANCEL_ONLY = "orders can be cancelled alone"
    INSUFFICIENT_BALANCE = "insufficient balance"
    DUPLICATE_CLIENT_ID = "duplicate client id"
    WOULD_TRIGGER = "would trigger immediately"
    WOULD_TAKE = "would immediately match and take"
    NO_LIQUIDITY = "no liquidity"
    BAD_PRICE_RELATION = "prices of the legs are in the wrong relation"
    BAD_COMPOSITION = "unsupported combination of parameters"
    UNKNOWN_ORDER = "unknown order"
    CANCEL_RESTRICTED = "cancel restrictions"
    AMEND_NO_CHANGE = "nothing would change"
    AMEND_INCREASE = "an order can only be reduced"
    ZERO_NOTIONAL = "price times quantity is zero"
    FILTER_PRICE = "PRICE_FILTER"
    FILTER_PERCENT_PRICE = "PERCENT_PRICE_BY_SIDE"
    FILTER_LOT_SIZE = "LOT_SIZE"
    FILTER_MARKET_LOT_SIZE = "MARKET_LOT_SIZE"
    FILTER_NOTIONAL = "NOTIONAL"
    FILTER_ICEBERG_PARTS = "ICEBERG_PARTS"
    FILTER_MAX_ORDERS = "MAX_NUM_ORDERS"
    FILTER_MAX_ALGO_ORDERS = "MAX_NUM_ALGO_ORDERS"
    FILTER_MAX_ORDER_LISTS = "MAX_NUM_ORDER_LISTS"
    FILTER_TRAILING_DELTA = "TRAILING_DELTA"
    INSUFFICIENT_MARGIN = "margin is insufficient"
    POSITION_LIMIT = "position over the limit of its leverage"
    REDUCE_ONLY = "would not reduce the position"
    FOK_UNFILLED = "cannot be filled whole at once"


class Refusal(Exception):
    """A command was refused before it changed anything."""

    def __init__(self, reason: RejectReason, detail: str = "") -> None:
        super().__init__(detail or reason.value)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class NewOrder:
    """What a client asks for. Unused fields stay at zero.

    `lots` is 0 for a market order by `quote_atoms` and for a pending leg that is sized from proceeds.
    `trailing_bps` is the trailing distance in basis points of the price.
    """

    symbol: str
    side: OrderSide
    kind: OrderKind
    client_id: str
    lots: int = 0
    price_ticks: int = 0
    stop_ticks: int = 0
    trailing_bps: int = 0
    quote_atoms: int = 0
    iceberg_lots: int = 0
    time_in_force: TimeInForce = TimeInForce.GTC
    tags: tuple[tuple[str, str | int], ...] = ()
    """Labels the client gave (strategy id, self-trade prevention mode), carried and never read here."""


@dataclass(frozen=True, slots=True)
class Amendment:
    """One reduction of an order: who it was, who it became, and how much it asked for before and after."""

    execution_id: int
    client_id_before: str
    client_id_after: str
    lots_before: int
    lots_after: int
    time_ms: int


@dataclass(slots=True)
class Order:
    """An order in the engine. Only the engine writes to it."""

    order_id: int
    account_id: str
    symbol: str
    side: OrderSide
    kind: OrderKind
    client_id: str
    lots: int
    price_ticks: int
    stop_ticks: int
    trailing_bps: int
    quote_atoms: int
    iceberg_lots: int
    time_in_force: TimeInForce
    tags: tuple[tuple[str, str | int], ...]
    status: OrderStatus
    created_ms: int
    updated_ms: int
    list_id: int = NO_LIST
    working_ms: int = NEVER_MS
    filled_lots: int = 0
    filled_quote_atoms: int = 0
    triggered: bool = False
    trailing_ms: int = NEVER_MS
    trailing_extreme_ticks: int = 0
    reject_reason: str = ""
    """Why it was refused, or why the exchange ended it."""
    reserve_ticks: int = 0
    """The price that a buying order without a price or stop price is paid at: the last one when it was placed."""
    amendments: tuple[Amendment, ...] = ()
    prevented_lots: int = 0
    """What self-trade prevention took from it."""
    prevented_match_id: int = NO_MATCH
    hangs: bool = False
    """Its trigger price was met and nothing came of it: it neither waits nor works, and cannot be cancelled."""

    @property
    def remaining_lots(self) -> int:
        return self.lots - self.filled_lots - self.prevented_lots

    @property
    def is_open(self) -> bool:
        return self.status.is_open

    @property
    def awaits_trigger(self) -> bool:
        return not self.triggered and self.kind.is_contingent

    @property
    def is_dormant(self) -> bool:
        """No price can move it: its list has not placed it yet, or it hangs."""
        return self.status is OrderStatus.PENDING_NEW or self.hangs


@dataclass(slots=True)
class OrderList:
    """A list of dependent orders. `order_ids` are in the order of the request: working, above, below."""

    list_id: int
    account_id: str
    symbol: str
    kind: ListKind
    client_id: str
    order_ids: tuple[int, ...]
    created_ms: int
    updated_ms: int
    is_done: bool = False
    is_activated: bool = False
    """The pending legs have been placed (for OCO: from the start)."""
    proceeds_atoms: int = 0
    """Base atoms held back for the pending legs of OPO and OPOCO while the working order fills."""

    @property
    def pending_ids(self) -> tuple[int, ...]:
        return self.order_ids[1:] if self.kind.has_working_leg else self.order_ids


@dataclass(frozen=True, slots=True)
class Fill:
    """One trade of one order. Its commission is in atoms of the received asset, or of the one that fees are paid in."""

    trade_id: int
    order_id: int
    list_id: int
    account_id: str
    symbol: str
    side: OrderSide
    price_ticks: int
    lots: int
    quote_atoms: int
    commission_atoms: int
    commission_asset: str
    is_maker: bool
    time_ms: int


@dataclass(frozen=True, slots=True)
class PreventedMatch:
    """Two orders of one account that would have met. A quantity is 0 for the order that the mode leaves alone."""

    match_id: int
    account_id: str
    symbol: str
    taker_order_id: int
    maker_order_id: int
    mode: str
    price_ticks: int
    taker_lots: int
    maker_lots: int
    time_ms: int


@dataclass(slots=True)
class Balance:
    """Holdings of one asset in atoms; `locked` is the part that open orders reserve. 0 <= locked <= total."""

    total: int = 0
    locked: int = 0

    @property
    def free(self) -> int:
        return self.total - self.locked


@dataclass(slots=True)
class Account:
    account_id: str
    maker_fee_ppm: int
    taker_fee_ppm: int
    balances: dict[str, Balance] = field(default_factory=dict)
    symbol_fees: dict[str, tuple[int, int]] = field(default_factory=dict)
    """(maker, taker) of the symbols whose tier is not the account's."""
    fee_asset: str = ""
    """The asset that fees are paid in, at a discount, as far as some of it is free; "" for the received one."""

    def fees_ppm(self, symbol: str) -> tuple[int, int]:
        """(maker, taker) in a symbol."""
        return self.symbol_fees.get(symbol, (self.maker_fee_ppm, self.taker_fee_ppm))

    def balance(self, asset: str) -> Balance:
        """The balance of an asset, made empty when it was never held."""
        found = self.balances.get(asset)
        if found is None:
            found = self.balances[asset] = Balance()
        return found
