"""What the private sides of all exchanges share: the key's rights, signed times, best prices, rules, known ids."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from decimal import Decimal
from typing import Any, ClassVar, Final, Generic, TypeVar

from tradewind.adapters.ccxt_client import CcxtClient
from tradewind.adapters.ccxt_key_rights import key_rights
from tradewind.core.ports import KeyRights
from tradewind.core.timeframes import from_ms, to_ms
from tradewind.core.types import BookTop, ExchangeOrder, Instrument, Order
from tradewind.errors import OrderRejected, OutcomeUnknown, RetryError

NO_SUCH_ORDER: Final = frozenset({-2013, -2011})
Client = TypeVar("Client", bound=CcxtClient)


class CcxtTradingBase(ABC, Generic[Client]):
    """The half of `core.ports.TradingExchange` that does not depend on how an exchange takes orders."""

    no_such_order: ClassVar[frozenset[int]] = NO_SUCH_ORDER

    def __init__(self, client: Client, account: str) -> None:
        self._client = client
        self._account = account
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
        """The rules of each market that the exchange lists."""
        return self._client.instruments(symbols)

    # --------------------------------------------------------------------------------------------------------- prices
    @abstractmethod
    def book_tops(self, symbols: Sequence[str]) -> dict[str, BookTop]:
        """Best bid and ask of each market, asked at this moment."""

    def _book_tops(
        self, symbols: Sequence[str], method: str, question: Callable[[list[str]], Mapping[str, Any]]
    ) -> dict[str, BookTop]:
        """The same in Binance's words: `question` makes the parameters that ask for these markets, and perhaps for
        others too; `at` is the exchange's time of the answer."""
        if not symbols:
            return {}
        markets = {self._client.market_id(symbol): symbol for symbol in symbols}
        answers = self._client.read(method, question(list(markets)))
        at = from_ms(self._client.exchange.milliseconds())
        return {
            symbol: BookTop(symbol, Decimal(row["bidPrice"]), Decimal(row["askPrice"]), at)
            for row in (answers if isinstance(answers, list) else [answers])
            if (symbol := markets.get(row["symbol"])) is not None
        }

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
