"""What exchanges share that take a stop and a target with the entry itself, and act on a send after answering it.

Their answer to a send says that it was accepted, not what became of it: the order is read afterwards, by our id. Stop
and target are the exchange's own orders. One of theirs stands for both of our legs: the ledger keeps its id with a
letter for the leg, and `Lookup` asks the ledger which legs of ours such ids are.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from decimal import Decimal
from typing import Any, ClassVar, Final

from tradewind.adapters.ccxt_client import CcxtClient
from tradewind.adapters.ccxt_trading_base import CcxtTradingBase
from tradewind.core.orders import is_final
from tradewind.core.ports import BracketLegs
from tradewind.core.types import ExchangeOrder, Instrument, Order, OrderRole, OrderState, Payment
from tradewind.errors import NotSupported, OrderRejected, OutcomeUnknown, RetryError, StopError

Lookup = Callable[[str, Sequence[str]], Mapping[str, str]]  # (symbol, exchange's ids) -> our ids, by the ledger
Request = tuple[str, dict[str, Any]]  # ccxt's implicit method and its parameters
STOP: Final = "s"
TARGET: Final = "t"
_LOOKS: Final = 8
_PAUSE_S: Final = 0.15
_LEG_STARTS: Final = {"tws": STOP, "twt": TARGET}


class CcxtAttachedTrading(CcxtTradingBase[CcxtClient]):
    """The half of `core.ports.TradingExchange` that bybit and okx share, and bitget, whose entry goes alone."""

    duplicate: ClassVar[frozenset[int]]

    def __init__(self, client: CcxtClient, account: str, lookup: Lookup) -> None:
        super().__init__(client, account)
        self._lookup = lookup

    # ------------------------------------------------------------------------------------------------- each in its way
    @abstractmethod
    def _entry_request(self, legs: BracketLegs) -> Request:
        """An entry with its stop and target, filled whole or not at all."""

    @abstractmethod
    def _order_request(self, order: Order) -> Request:
        """An order on its own: a fill-or-kill limit, a market order, or a stop."""

    # ---------------------------------------------------------------------------------------------------------- sends
    def send_bracket(self, legs: BracketLegs, instrument: Instrument) -> list[ExchangeOrder]:
        """The entry, and the stop and target that the exchange places with its fill, as far as they show already."""
        entry = legs.entry
        if not entry.is_buy:
            raise NotSupported(f"{entry.symbol}: a spot market cannot be sold short")
        self._send_once(self._entry_request(legs), entry)
        with _sent(entry):
            report = self._settled(entry)
            if is_final(report.state) and report.filled_quantity == 0:
                return [report, *(_never_placed(leg, report.at) for leg in (legs.stop, legs.target))]
            found = [self.find_order(leg.symbol, leg.client_order_id, leg) for leg in (legs.stop, legs.target)]
        return [report, *(leg for leg in found if leg is not None)]

    def send_order(self, order: Order, instrument: Instrument) -> ExchangeOrder:
        """One order on its own; see `_order_request`."""
        self._send_once(self._order_request(order), order)
        with _sent(order):
            return self._settled(order)

    def _send_once(self, request: Request, order: Order) -> None:
        """Send it; that it is there already is as good."""
        method, params = request
        try:
            self._client.send(method, params, client_order_id=order.client_order_id)
        except OrderRejected as error:
            if error.code not in self.duplicate:
                raise

    def _settled(self, order: Order) -> ExchangeOrder:
        """The order once it rests or is over. Raises OutcomeUnknown when it does not show at all."""
        report: ExchangeOrder | None = None
        for number in range(_LOOKS):
            if number:
                time.sleep(_PAUSE_S)
            report = self.find_order(order.symbol, order.client_order_id, order)
            if report is not None and (is_final(report.state) or order.role is OrderRole.STOP):
                break
        if report is None:
            raise OutcomeUnknown("accepted, and not to be seen yet", order.client_order_id)
        return report

    # -------------------------------------------------------------------------------------------------------- queries
    def payments_since(self, since: datetime) -> list[Payment]:
        """None: on spot nothing but trades and transfers moves a balance."""
        return []

    def _legs_known(self, symbol: str, exchange_id: str) -> dict[str, str]:
        """Our ids of the stop and the target that one order of the exchange stands for, by the ledger."""
        known = self._lookup(symbol, [f"{exchange_id}:{STOP}", f"{exchange_id}:{TARGET}"])
        return {name.rpartition(":")[2]: client_id for name, client_id in known.items()}


def leg_of(client_order_id: str) -> str | None:
    """STOP or TARGET by our id; None for entries, exits and whatever is not ours."""
    return _LEG_STARTS.get(client_order_id[:3])


def own_part(known: Order | None) -> str | None:
    """The exchange's own id of the order that a leg is part of, once it was seen."""
    return None if known is None or not known.exchange_order_id else known.exchange_order_id.rpartition(":")[0]


def leg_report(
    *, client_id: str, leg: str, exchange_id: str, symbol: str, state: OrderState, row_quantity: Any, filled: Decimal,
    price: Any, at: datetime,
) -> ExchangeOrder:  # fmt: skip
    """One of our legs out of an order of the exchange's that stands for both."""
    level = Decimal(str(price)) if price not in (None, "", "0") else None
    return ExchangeOrder(
        client_order_id=client_id,
        exchange_order_id=f"{exchange_id}:{leg}",
        list_client_id=None,
        symbol=symbol,
        is_buy=False,
        order_type="MARKET",
        state=state,
        quantity=Decimal(str(row_quantity or 0)),
        filled_quantity=filled,
        price=None,
        stop_price=level,
        at=at,
    )


def _never_placed(leg: Order, at: datetime) -> ExchangeOrder:
    """A leg of an entry that ended without a fill."""
    return ExchangeOrder(
        leg.client_order_id, "", leg.list_client_id, leg.symbol, leg.is_buy, leg.order_type, OrderState.EXPIRED,
        leg.quantity, Decimal(0), leg.price, leg.stop_price, at,
    )  # fmt: skip


@contextmanager
def _sent(order: Order) -> Iterator[None]:
    """What cannot be read after a send is an unknown outcome, never a refusal."""
    try:
        yield
    except (RetryError, StopError) as error:
        raise OutcomeUnknown(f"accepted; what became of it was not told: {error}", order.client_order_id) from None
