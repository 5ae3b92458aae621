"""Exchange against ledger, both ways: a list of differences, each with what follows from it.

The ledger is what our orders and fills say; the exchange is what it reports now. Whatever the account held at the first
reconciliation is a baseline: it is subtracted before anything is compared, and never ours to sell. The report is clean
when nothing in it blocks entries; what heals by itself (a fill to insert, a state to move) is healed by the caller, who
then asks again.

The readings cannot be taken in one instant: a fill between two of them looks like a difference. The caller reads fills
last before balances, and believes a balance difference only when it stands in two readings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final

from .brackets import ZERO, is_tradable
from .orders import AT_EXCHANGE, is_ours
from .protection import spare
from .types import Balance, ExchangeOrder, Fill, Instrument, Order, OrderRole, OrderState, Position, PositionStatus

# Some units of the eighth decimal, in which exchanges keep balances: each of them rounds commissions in its own way.
ROUNDING: Final = Decimal("0.00000005")


class DifferenceKind(StrEnum):
    UNKNOWN_ORDER = "unknown_order"  # our prefix, not in our ledger
    FOREIGN_ORDER = "foreign_order"  # somebody else's, in one of our markets
    UNRESOLVED_ORDER = "unresolved_order"  # the ledger says SENT or UNKNOWN
    LOST_ORDER = "lost_order"  # the ledger says it works, the exchange does not list it
    ORDER_MOVED = "order_moved"  # both know it, its state or filled quantity differs
    MISSING_FILL = "missing_fill"  # the exchange executed our order, the ledger has no such fill
    FOREIGN_FILL = "foreign_fill"  # an execution in one of our markets that no order of ours made
    BALANCE_DEFICIT = "balance_deficit"  # less there than baseline and ledger explain
    BALANCE_SURPLUS = "balance_surplus"  # more there than they explain: a deposit, or somebody's purchase
    UNPROTECTED_POSITION = "unprotected_position"  # held quantity without a resting stop
    OVERPROTECTED_POSITION = "overprotected_position"  # stops for more than is ours: they would sell the baseline
    UNREADABLE_MARKET = "unreadable_market"  # a position in one that the exchange does not list or answer for


class Consequence(StrEnum):
    REPORT = "report"  # worth knowing, nothing follows
    HEAL = "heal"  # the ledger takes the exchange's word: insert, move
    ASK = "ask"  # ask for the order by its client id and resolve it
    PROTECT = "protect"  # place, shrink or replace the protection
    BLOCK = "block"  # a person must look; no entries until then


CONSEQUENCES: Mapping[DifferenceKind, Consequence] = {
    DifferenceKind.UNKNOWN_ORDER: Consequence.BLOCK,
    DifferenceKind.FOREIGN_ORDER: Consequence.BLOCK,
    DifferenceKind.UNRESOLVED_ORDER: Consequence.ASK,
    DifferenceKind.LOST_ORDER: Consequence.ASK,
    DifferenceKind.ORDER_MOVED: Consequence.HEAL,
    DifferenceKind.MISSING_FILL: Consequence.HEAL,
    DifferenceKind.FOREIGN_FILL: Consequence.REPORT,
    DifferenceKind.BALANCE_DEFICIT: Consequence.BLOCK,
    DifferenceKind.BALANCE_SURPLUS: Consequence.REPORT,
    DifferenceKind.UNPROTECTED_POSITION: Consequence.PROTECT,
    DifferenceKind.OVERPROTECTED_POSITION: Consequence.PROTECT,
    DifferenceKind.UNREADABLE_MARKET: Consequence.BLOCK,
}


@dataclass(frozen=True, slots=True)
class Difference:
    """One disagreement. `subject` is the client order id, trade id, asset or position id it is about."""

    kind: DifferenceKind
    subject: str
    symbol: str
    words: str
    ledger: str = ""
    exchange: str = ""

    @property
    def consequence(self) -> Consequence:
        return CONSEQUENCES[self.kind]

    def to_json(self) -> dict[str, str]:
        return {
            "kind": self.kind.value,
            "consequence": self.consequence.value,
            "subject": self.subject,
            "symbol": self.symbol,
            "words": self.words,
            "ledger": self.ledger,
            "exchange": self.exchange,
        }


@dataclass(frozen=True, slots=True)
class ExchangeView:
    """What the exchange reports of our markets. `fills` reach back at least to the newest one in the ledger."""

    open_orders: Sequence[ExchangeOrder]
    fills: Sequence[Fill]
    balances: Mapping[str, Balance]
    at: datetime


@dataclass(frozen=True, slots=True)
class LedgerView:
    """What the ledger holds. `asset_flows` is what all our fills moved, by asset and net of all fees: base bought less
    base sold, quote received less quote paid, fees in a third asset negative. `baseline` is what the account held
    first, by asset. `fill_ids` are the (symbol, trade id) known; `instruments` cover every traded symbol that the
    exchange lists and answers for. Only `assets` are compared: what else the account holds may move. `written_off` is
    what was given up by asset, negative for a short: there or gone, it is no difference.
    """

    orders: Sequence[Order]
    fill_ids: frozenset[tuple[str, str]]
    asset_flows: Mapping[str, Decimal]
    baseline: Mapping[str, Decimal]
    positions: Sequence[Position]
    instruments: Mapping[str, Instrument]
    assets: frozenset[str]
    tolerances: Mapping[str, Decimal] = field(default_factory=dict)  # where they are wider than ROUNDING
    written_off: Mapping[str, Decimal] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """The report of one comparison, the worst first."""

    differences: tuple[Difference, ...]
    at: datetime

    @property
    def clean(self) -> bool:
        """Nothing but what is only worth knowing: entries are allowed."""
        return all(d.consequence is Consequence.REPORT for d in self.differences)

    def of(self, *kinds: DifferenceKind) -> list[Difference]:
        return [d for d in self.differences if d.kind in kinds]

    def to_json(self) -> dict[str, Any]:
        return {"at": self.at.isoformat(), "clean": self.clean, "differences": [d.to_json() for d in self.differences]}


_SEVERITY = (Consequence.PROTECT, Consequence.BLOCK, Consequence.ASK, Consequence.HEAL, Consequence.REPORT)


def reconcile(exchange: ExchangeView, ledger: LedgerView) -> Reconciliation:
    """Compare both ways. Pure and order-independent: the same two views give the same report."""
    differences = [
        *_compare_orders(exchange, ledger),
        *_compare_fills(exchange, ledger),
        *_compare_balances(exchange, ledger),
        *_compare_protection(exchange, ledger),
    ]
    differences.sort(key=lambda d: (_SEVERITY.index(d.consequence), d.kind.value, d.symbol, d.subject))
    return Reconciliation(tuple(differences), exchange.at)


def _compare_orders(exchange: ExchangeView, ledger: LedgerView) -> list[Difference]:
    found: list[Difference] = []
    known = {order.client_order_id: order for order in ledger.orders}
    listed = {order.client_order_id: order for order in exchange.open_orders}
    for client_id, there in listed.items():
        ours = known.get(client_id)
        if ours is None:
            kind = DifferenceKind.UNKNOWN_ORDER if is_ours(client_id) else DifferenceKind.FOREIGN_ORDER
            words = f"{there.order_type} {there.quantity} of {there.symbol} is open and not in the ledger"
            found.append(Difference(kind, client_id, there.symbol, words, "", there.state.value))
        elif (ours.state, ours.filled_quantity) != (there.state, there.filled_quantity):
            found.append(
                Difference(
                    DifferenceKind.ORDER_MOVED,
                    client_id,
                    there.symbol,
                    "the exchange knows more",
                    f"{ours.state.value} {ours.filled_quantity}",
                    f"{there.state.value} {there.filled_quantity}",
                )
            )
    for client_id, ours in known.items():
        if client_id in listed or ours.symbol not in ledger.instruments:
            continue
        if ours.state in AT_EXCHANGE:
            words = "the ledger says it works, the exchange does not list it"
            found.append(Difference(DifferenceKind.LOST_ORDER, client_id, ours.symbol, words, ours.state.value))
        elif ours.state in (OrderState.SENT, OrderState.UNKNOWN):
            words = "nobody knows what became of it"
            found.append(Difference(DifferenceKind.UNRESOLVED_ORDER, client_id, ours.symbol, words, ours.state.value))
    return found


def _compare_fills(exchange: ExchangeView, ledger: LedgerView) -> list[Difference]:
    found = []
    for fill in exchange.fills:
        if (fill.symbol, fill.trade_id) in ledger.fill_ids:
            continue
        ours = is_ours(fill.client_order_id)
        kind = DifferenceKind.MISSING_FILL if ours else DifferenceKind.FOREIGN_FILL
        words = f"{'buy' if fill.is_buy else 'sell'} {fill.quantity} at {fill.price}"
        found.append(Difference(kind, fill.trade_id, fill.symbol, words, "", fill.client_order_id))
    return found


def expected_balance(asset: str, ledger: LedgerView) -> Decimal:
    """What the account should hold of an asset: baseline plus what our fills moved."""
    return ledger.baseline.get(asset, ZERO) + ledger.asset_flows.get(asset, ZERO)


def _compare_balances(exchange: ExchangeView, ledger: LedgerView) -> list[Difference]:
    found = []
    for asset in sorted(ledger.assets):
        balance = exchange.balances.get(asset)
        actual = balance.total if balance is not None else ZERO
        expected = expected_balance(asset, ledger)
        without = expected - ledger.written_off.get(asset, ZERO)
        expected = min(max(actual, min(expected, without)), max(expected, without))
        difference = actual - expected
        if abs(difference) <= ledger.tolerances.get(asset, ROUNDING):
            continue
        kind = DifferenceKind.BALANCE_DEFICIT if difference < 0 else DifferenceKind.BALANCE_SURPLUS
        words = f"{difference:+f} {asset} is not explained by baseline and fills"
        found.append(Difference(kind, asset, "", words, str(expected), str(actual)))
    return found


def _compare_protection(exchange: ExchangeView, ledger: LedgerView) -> list[Difference]:
    found = []
    listed = {order.client_order_id: order for order in exchange.open_orders}
    for position in ledger.positions:
        if position.status not in (PositionStatus.OPEN, PositionStatus.CLOSING, PositionStatus.OPENING):
            continue
        held = max(position.quantity, ZERO)
        instrument = ledger.instruments.get(position.symbol)
        if instrument is None:
            kind = DifferenceKind.UNREADABLE_MARKET
            words = f"the exchange does not list this market or does not answer for it: {held} held there"
            found.append(Difference(kind, position.position_id, position.symbol, words, str(held)))
            continue
        resting = ZERO
        for order in ledger.orders:
            if order.position_id != position.position_id or order.role is not OrderRole.STOP:
                continue
            there = listed.get(order.client_order_id)
            if there is not None and there.state in AT_EXCHANGE:
                resting += there.quantity - there.filled_quantity
        bare = held - resting
        price = min(position.stop_price, position.entry_price or position.stop_price)
        if is_tradable(bare - bare % instrument.step_size, price, instrument):
            words = f"{bare} of {held} {instrument.base} has no resting stop"
            kind = DifferenceKind.UNPROTECTED_POSITION
        elif -bare > _beside(instrument, exchange, ledger) and position.status is not PositionStatus.OPENING:
            words = f"stops rest for {resting}, held is {held} {instrument.base}"
            kind = DifferenceKind.OVERPROTECTED_POSITION
        else:
            continue
        found.append(Difference(kind, position.position_id, position.symbol, words, str(held), str(resting)))
    return found


def _beside(instrument: Instrument, exchange: ExchangeView, ledger: LedgerView) -> Decimal:
    """Dust of ours beside the positions: a stop that covers it sells nobody's coins."""
    base = instrument.base
    held = sum((p.quantity for p in ledger.positions if p.symbol.split("/")[0] == base), ZERO)
    bought = ledger.asset_flows.get(base, ZERO)
    return spare(exchange.balances.get(base), ledger.baseline.get(base, ZERO), bought, held, instrument)
