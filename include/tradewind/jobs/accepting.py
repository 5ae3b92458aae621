"""A person explains what exchange and ledger disagree on: a transfer, a sale of their own, or a purchase to look after.

Both are audited, and neither moves anything at the exchange but the protection of what is adopted.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any, Final

from tradewind.core.brackets import is_tradable
from tradewind.core.orders import ADOPTED
from tradewind.core.ports import Ports
from tradewind.core.positions import round_to_tick, sign_of
from tradewind.core.reconcile import DifferenceKind
from tradewind.core.types import (
    Fill,
    Instrument,
    MarketStatus,
    Minimums,
    Order,
    OrderRole,
    OrderState,
    Position,
    PositionStatus,
    RegimeFamily,
    Side,
)
from tradewind.errors import BadInput, LockNotAcquired
from tradewind.jobs.equity import mark, quote_asset
from tradewind.jobs.protection import converge_protection
from tradewind.jobs.reconciling import compare, record
from tradewind.jobs.settling import ingest_fills, price_of, refresh
from tradewind.jobs.tending import foreign_fills, instruments_of, is_anybody_at_work

ZERO: Final = Decimal(0)
_BALANCES: Final = (DifferenceKind.BALANCE_DEFICIT, DifferenceKind.BALANCE_SURPLUS)
# How far back a purchase that is to be adopted may lie.
_PURCHASE_WINDOW: Final = timedelta(days=7)


def unexplained(ports: Ports) -> dict[str, Decimal]:
    """What the account holds more (or, negative, less) of than baseline and fills explain, by asset.

    Raises LockNotAcquired while a task is at work on a position: what is half done looks like a difference.
    """
    if is_anybody_at_work(ports):
        raise LockNotAcquired("a task is at work on a position: try again in a few seconds")
    report = compare(ports, instruments_of(ports))
    return {found.subject: Decimal(found.exchange) - Decimal(found.ledger) for found in report.of(*_BALANCES)}


def accept_difference(ports: Ports, asset: str, reason: str, actor: str, source: str = "command") -> dict[str, Any]:
    """Take one asset's difference as explained: from now on the account is expected to hold what it holds.

    In the quote currency it is money that trading gains or gives up: sized on, and no gain and no loss.

    Raises BadInput where nothing is to be explained, or where less is there than our positions need: what is gone then
    was ours, and no words bring it back.
    """
    if not reason.strip():
        raise BadInput('an explanation needs words, such as ./tradewind accept USDT --reason "withdrew 500"')
    store = ports.trading_store
    accepted = store.accepted_differences().get(asset, ZERO)
    found = unexplained(ports)
    if asset not in found:
        raise BadInput(f"{asset} needs no explanation; what does: {_listed(found) or 'nothing'}")
    quantity = found[asset]
    if (store.baseline() or {}).get(asset, ZERO) + quantity < 0:
        raise BadInput(
            f"{-quantity} {asset} are missing and less was held before: part of it is the ledger's. "
            "Buy it back at the exchange, or flatten, which closes what is left"
        )
    # What was there before the transfer: earlier equity is scaled by it, so that a loss stays the share that it was.
    equity = mark(ports).reading if asset == quote_asset(ports) else None
    store.accept_difference(asset, quantity, reason, ports.wall.now(), actor=actor, accepted=accepted, equity=equity)
    store.audit(actor, "accept", "accepted", {"asset": asset, "quantity": quantity, "reason": reason}, source=source)
    clean = record(ports, compare(ports, instruments_of(ports), foreign_fills(ports)))
    return {"asset": asset, "quantity": str(quantity), "clean": clean}


def _listed(found: dict[str, Decimal]) -> str:
    return ", ".join(f"{quantity:+f} {asset}" for asset, quantity in sorted(found.items()))


# ------------------------------------------------------------------------------------------------------------- adopting
def adopt_purchase(
    ports: Ports, symbol: str, stop_frac: Decimal, actor: str, target_r: Decimal = Decimal(2), source: str = "command"
) -> dict[str, Any]:
    """Take a person's purchase (on futures also a sale) into the ledger as a position, under a stop and a target.

    The stop lies `stop_frac` under the average price paid (over it for a short), the target `target_r` times as far on
    the other side. Raises BadInput unless the newest such trades of the last week add up to exactly what is
    unexplained and the market trades; ProtectionPending where it was adopted and no stop could be placed yet.
    """
    if not ZERO < stop_frac < 1:
        raise BadInput(f"--stop-frac is {stop_frac}: give a share of the price between 0 and 1, such as 0.03")
    instrument = ports.exchange.instruments([symbol]).get(symbol)
    if instrument is None or symbol not in ports.symbols:
        raise BadInput(f"{symbol} is not traded here: name one of {', '.join(ports.symbols)}")
    if (status := ports.exchange.market_status(symbol)) is not MarketStatus.TRADING:
        raise BadInput(
            f"{symbol} is {status.value} at the exchange, and no stop can be placed: adopt it once it trades"
        )
    store = ports.trading_store
    surplus = unexplained(ports).get(instrument.base, ZERO)
    side = Side.SHORT if surplus < 0 and instrument.margin is not None else Side.LONG
    recent = ingest_fills(ports, symbol, since=ports.clock.now() - _PURCHASE_WINDOW)
    opened = _openings(recent, surplus, side, instrument)
    if not opened:
        raise BadInput(
            f"no trades of the last week add up to the {surplus} {instrument.base} that are unexplained; "
            f"./tradewind accept {instrument.base} leaves them yours"
        )
    position = _position_of(ports, opened, symbol, side, stop_frac, target_r, instrument)
    book = price_of(ports, symbol)
    if not is_tradable(abs(surplus), min(position.stop_price, book.bid), instrument):
        raise BadInput(f"{surplus} {instrument.base} are too little for an order: they cannot be protected")
    with store.position_lock(position.position_id) as held:
        if not held:
            raise LockNotAcquired(f"another task is at work on {position.position_id}")
        store.open_position(position, ports.params.position_rules)
        store.plan_orders(_entries_of(ports, position, opened))
        store.insert_fills(opened)
        detail = {"position_id": position.position_id, "quantity": surplus, "stop_price": position.stop_price}
        store.audit(actor, "adopt", "adopted", detail, source=source)
        situation = converge_protection(ports, refresh(ports, position.position_id, instrument, book))
    record(ports, compare(ports, instruments_of(ports), foreign_fills(ports)))
    return {
        "position_id": position.position_id,
        "side": position.side.value,
        "quantity": str(situation.position.quantity),
        "stop": str(position.stop_price),
    }


def _openings(foreign: Sequence[Fill], surplus: Decimal, side: Side, instrument: Instrument) -> list[Fill]:
    """The newest trades on that side that, net of fees in base, brought exactly the surplus; none when no row did."""
    by_buying, left = side is Side.LONG, surplus * sign_of(side)
    found: list[Fill] = []
    for fill in sorted((fill for fill in foreign if fill.is_buy is by_buying), key=lambda fill: fill.at, reverse=True):
        if left <= 0:
            break
        found.append(fill)
        left -= fill.quantity - (fill.fee if fill.fee_asset == instrument.base else ZERO)
    return list(reversed(found)) if found and left == 0 else []


def _position_of(
    ports: Ports,
    opened: Sequence[Fill],
    symbol: str,
    side: Side,
    stop_frac: Decimal,
    target_r: Decimal,
    instrument: Instrument,
) -> Position:
    quantity, sign = sum((fill.quantity for fill in opened), ZERO), sign_of(side)
    price = sum((fill.quantity * fill.price for fill in opened), ZERO) / quantity
    is_long = side is Side.LONG
    stop = round_to_tick(price * (1 - sign * stop_frac), instrument.tick_size, up=not is_long)
    target = round_to_tick(price + (price - stop) * target_r, instrument.tick_size, up=is_long)
    return Position(
        position_id=f"{ADOPTED}{instrument.base}-{opened[0].trade_id}",
        account=ports.account,
        strategy_version=ports.params.strategy_version,
        symbol=symbol,
        side=side,
        family=RegimeFamily.TRENDING,
        status=PositionStatus.OPENING,
        bar=opened[0].at,
        opened_at=None,
        closed_at=None,
        quantity=ZERO,
        entry_quantity=ZERO,
        entry_price=None,
        initial_stop_price=stop,
        stop_price=stop,
        target_price=target,
        # The rules trail by ATR: the person's own distance stands in for it.
        atr_quote=float(abs(price - stop)) / ports.params.trending.stop_atr,
        best_close=None,
        managed_bar=None,
        realised_quote=ZERO,
        fees_quote=ZERO,
        minimums=Minimums.of(instrument),
    )


def _entries_of(ports: Ports, position: Position, opened: Sequence[Fill]) -> list[Order]:
    """One filled entry row for each of the person's orders, under the ids they have at the exchange."""
    orders = []
    for number, name in enumerate(dict.fromkeys(fill.client_order_id for fill in opened)):
        own = [fill for fill in opened if fill.client_order_id == name]
        quantity = sum((fill.quantity for fill in own), ZERO)
        orders.append(
            Order(
                client_order_id=name,
                account=position.account,
                position_id=position.position_id,
                symbol=position.symbol,
                role=OrderRole.ENTRY,
                is_buy=own[0].is_buy,
                lot=0,
                generation=number,
                order_type="MARKET",
                quantity=quantity,
                price=None,
                stop_price=None,
                list_client_id=None,
                state=OrderState.FILLED,
                exchange_order_id=None,
                filled_quantity=quantity,
                planned_at=own[0].at,
                # As if sent: its fills are then taken in again should this be cut short.
                sent_at=own[0].at,
                updated_at=ports.clock.now(),
                reason="opened by hand",
            )
        )
    return orders
