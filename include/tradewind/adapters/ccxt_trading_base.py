"""What the private sides of all exchanges share: the key's rights, signed times, best prices, rules, known ids."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import datetime
from functools import wraps
from typing import Any, ClassVar, Final, Generic, TypeVar

from tradewind.adapters.ccxt_client import CcxtClient
from tradewind.adapters.ccxt_errors import UNREADABLE, readable
from tradewind.adapters.ccxt_exchange import CcxtMarketData
from tradewind.adapters.ccxt_fees import AccountFees
from tradewind.adapters.ccxt_key_rights import key_rights
from tradewind.core.ports import BracketLegs, KeyRights
from tradewind.core.timeframes import to_ms
from tradewind.core.types import BookTop, ExchangeOrder, Instrument, MarketStatus, Order
from tradewind.errors import OrderRejected, OutcomeUnknown, RetryError, UnknownSymbol

# -2026: archived, which is done with orders that ended without an execution.
NO_SUCH_ORDER: Final = frozenset({-2013, -2011, -2026})
Client = TypeVar("Client", bound=CcxtClient)
_Method = Callable[..., Any]
_READS: Final = frozenset({"balances", "open_orders", "fills_since", "payments_since", "find_order", "_told_status"})
_SENDS: Final = frozenset({"send_bracket", "send_protection", "send_order", "cancel_list", "cancel_order"})


class CcxtTradingBase(ABC, Generic[Client]):
    """The half of `core.ports.TradingExchange` that does not depend on how an exchange takes orders.

    An answer that is empty or of another form than the documented one raises ExchangeUnreachable from what reads, and
    OutcomeUnknown from what sends: the methods of subclasses are guarded as they are defined.
    """

    no_such_order: ClassVar[frozenset[int]] = NO_SUCH_ORDER
    statuses: ClassVar[Mapping[str, MarketStatus]]  # the exchange's words; every other one means HALTED

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for names, guard in ((_READS, readable), (_SENDS, _answered)):
            for name in names & set(vars(cls)):
                setattr(cls, name, guard(vars(cls)[name]))

    def __init__(self, client: Client, account: str) -> None:
        self._client = client
        self._account = account
        self._prices = CcxtMarketData(client)
        self._fees = AccountFees(client)
        self._client_ids: dict[tuple[str, str], str] = {}  # (symbol, exchange order id) -> client order id

    @property
    def recv_window_s(self) -> float:
        return self._client.config.recv_window_ms / 1000

    def key_rights(self) -> KeyRights:
        """What the exchange says this key may do."""
        return key_rights(self._client)

    def signed_at(self, moment: datetime) -> AbstractContextManager[None]:
        """Within, sends carry this timestamp of the machine's clock and are refused when they leave too late."""
        return self._client.signed_at(to_ms(moment))

    def instruments(self, symbols: Sequence[str]) -> dict[str, Instrument]:
        """The rules of each market that the exchange lists, with the fees of the account where it tells them."""
        found = self._client.instruments(symbols)
        for symbol, rates in self._fees.of(list(found)).items():
            found[symbol] = replace(
                found[symbol], maker_fee_frac=rates.maker_frac, taker_fee_frac=rates.taker_frac, fees_are_own=True
            )
        return found

    # -------------------------------------------------------------------------------------------------------- markets
    def book_tops(self, symbols: Sequence[str]) -> dict[str, BookTop]:
        """Best bid and ask of each market that has a price, asked at this moment."""
        return self._prices.book_tops(symbols)

    def market_status(self, symbol: str) -> MarketStatus:
        """What may be done in a market, asked at this moment; a word of the exchange's that is new means HALTED."""
        if not self._client.listed([symbol]):
            self._client.doubt_rules()
        market = next(iter(self._client.listed([symbol])), None)
        try:
            told = None if market is None else self._told_status(market)
        except UnknownSymbol:
            told = None
        return MarketStatus.DELISTED if told is None else self.statuses.get(told, MarketStatus.HALTED)

    @abstractmethod
    def _told_status(self, market: str) -> str | None:
        """The exchange's own word for the status of one of its markets; None when it does not list it."""

    # --------------------------------------------------------------------------------------------------------- orders
    @abstractmethod
    def find_order(self, symbol: str, client_order_id: str, known: Order | None = None) -> ExchangeOrder | None:
        """The order of that id, or None when the exchange answers that it does not know it."""

    def _ask(self, method: str, params: Mapping[str, Any]) -> Any:
        """One order or list as the exchange tells it; None when it answers that it knows none."""
        try:
            return self._client.read(method, params)
        except OrderRejected as error:
            if error.code not in self.no_such_order:
                raise
            return None

    def _must_find(self, symbol: str, client_order_id: str, known: Order | None = None) -> ExchangeOrder:
        """The order behind an answer that said it exists. Raises OutcomeUnknown when it cannot be shown."""
        try:
            found = self.find_order(symbol, client_order_id, known)
        except RetryError as error:
            raise OutcomeUnknown(f"the exchange holds it and does not say more: {error}", client_order_id) from None
        if found is None:
            raise OutcomeUnknown("the exchange acted on an order whose id it does not know", client_order_id)
        return found

    def _remember(self, order: ExchangeOrder) -> ExchangeOrder:
        self._client_ids[order.symbol, order.exchange_order_id] = order.client_order_id
        return order


def _answered(method: _Method) -> _Method:
    """The method of a send with OutcomeUnknown for an answer that cannot be read."""

    @wraps(method)
    def guarded(self: Any, *args: Any, **options: Any) -> Any:
        try:
            return method(self, *args, **options)
        except UNREADABLE as error:
            words = f"{method.__name__}: the answer cannot be read ({error!r:.200})"
            raise OutcomeUnknown(words, _name_of(args)) from error

    return guarded


def _name_of(args: Sequence[Any]) -> str:
    """The client order id that a send or a cancel is about."""
    first = args[0]
    if isinstance(first, BracketLegs):
        return first.entry.client_order_id
    return first.client_order_id if isinstance(first, Order) else str(args[1])
