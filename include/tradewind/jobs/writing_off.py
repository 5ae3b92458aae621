"""A person gives up a holding that cannot be sold: its market is delisted, halted, unpriced, or takes no such order.

Nothing else than this, fills and accepted differences takes anything out of the ledger. The loss is real from then on.
What was held stays in the account as something that is not ours: it is never sold, whether its market comes back or
not, and is no difference, whether the exchange takes it away later or not.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any, Final

from tradewind.core.brackets import MARGIN_STOP_TYPE, MARGIN_TARGET_TYPE
from tradewind.core.ledger import signed_quantity, written_off
from tradewind.core.orders import AT_EXCHANGE, is_final
from tradewind.core.ports import Ports, WriteOff
from tradewind.core.types import MarketStatus, Order, OrderRole, Position
from tradewind.errors import BadInput, LockNotAcquired, StopError
from tradewind.jobs.leaving import cancel_resting
from tradewind.jobs.markets import Markets, read_markets
from tradewind.jobs.reconciling import compare, record
from tradewind.jobs.settling import OVER, say_closed, settle
from tradewind.jobs.tending import foreign_fills, instruments_of, is_too_small

ZERO: Final = Decimal(0)
# A book that is empty for a moment is no reason: a market that trades is waited for so long.
UNPRICED_FOR: Final = timedelta(hours=1)


def write_off(
    ports: Ports,
    position_id: str,
    reason: str,
    actor: str,
    source: str = "command",
    settled_at: Decimal | None = None,
) -> dict[str, Any]:
    """Close a position that cannot be sold, with what it holds; its loss is the cash that its fills moved.

    Its stop and target are cancelled where their market still takes that; where it is gone they are over with it. On
    futures the exchange settles a delisted contract itself: `settled_at` is the price of that settlement. Run again it
    returns what was written off.

    Raises BadInput for what cannot be meant, StopError with the reason where the holding can be sold, and
    LockNotAcquired while a task is at work on the position.
    """
    if not reason.strip():
        raise BadInput('a write-off needs words, such as ./tradewind write-off POSITION_ID --reason "delisted"')
    store = ports.trading_store
    with store.position_lock(position_id) as held:
        if not held:
            raise LockNotAcquired(f"a task is at work on {position_id}: try again in a few seconds")
        given_up = next((one for one in store.write_offs() if one.position_id == position_id), None)
        if given_up is None:
            given_up = _give_up(ports, _live(ports, position_id), reason, actor, source, settled_at)
    clean = record(ports, compare(ports, instruments_of(ports), foreign_fills(ports)))
    return {
        "position_id": position_id,
        "symbol": given_up.symbol,
        "quantity": str(given_up.quantity),
        "cost_quote": str(given_up.cost_quote),
        "clean": clean,
    }


def _live(ports: Ports, position_id: str) -> Position:
    position = ports.trading_store.position(position_id)
    live = ", ".join(p.position_id for p in ports.trading_store.live_positions()) or "nothing"
    if position is None:
        raise BadInput(f"there is no position {position_id} on account {ports.account}; held there: {live}")
    if position.status in OVER:
        raise BadInput(f"{position_id} is {position.status.value} already; held: {live}")
    return position


def _give_up(
    ports: Ports, position: Position, reason: str, actor: str, source: str, settled_at: Decimal | None
) -> WriteOff:
    store = ports.trading_store
    status = ports.exchange.market_status(position.symbol)
    markets = read_markets(ports, [position.symbol])
    if status is not MarketStatus.DELISTED:
        # Of a market that is gone the exchange tells neither orders nor fills.
        instrument = markets.instrument(position.symbol)
        position = settle(ports, position.position_id, instrument, markets.orders).position
        if position.status in OVER:
            raise BadInput(f"{position.position_id} was closed meanwhile ({position.exit_reason}): nothing is given up")
    orders = store.orders_of(position.position_id)
    settled_quote = _settled_quote(position, orders, status, settled_at)
    orders = [order for order in orders if not is_final(order.state)]
    if refusal := _refusal(ports, position, status, markets, orders):
        raise StopError(refusal)
    ended: list[str] = []
    if status is MarketStatus.DELISTED:
        ended = [order.client_order_id for order in orders]
    else:
        cancel_resting(ports, [order for order in orders if order.state in AT_EXCHANGE])
    quantity = signed_quantity(position)
    closed = written_off(position, store.fills_of(position.position_id), settled_quote, ports.clock.now())
    given_up = WriteOff(
        position_id=position.position_id,
        account=ports.account,
        symbol=position.symbol,
        quantity=quantity,
        cost_quote=abs(quantity) * (position.entry_price or ZERO),
        settled_quote=settled_quote,
        reason=reason,
        actor=actor,
        at=ports.wall.now(),
    )
    kept = store.write_off(closed, given_up, ended, source=source)
    say_closed(ports, closed)
    ports.alerts.raise_alert(
        "warning",
        f"written-off-{position.position_id}",
        f"{position.symbol}: {position.quantity} written off",
        f"{actor}: {reason}. {closed.realised_quote:.2f} is the result of {position.position_id}.",
    )
    return kept


def _settled_quote(
    position: Position, orders: Sequence[Order], status: MarketStatus, settled_at: Decimal | None
) -> Decimal:
    """What the exchange paid for a contract that it settled itself; on spot nothing."""
    # The market's own rules may be gone with it: which kind it was is told by the orders sent there.
    if not any(order.order_type in (MARGIN_STOP_TYPE, MARGIN_TARGET_TYPE) for order in orders):
        if settled_at is not None:
            raise BadInput("a settlement price is for futures: on spot nothing is paid for what is delisted")
        return ZERO
    if status is not MarketStatus.DELISTED:
        raise StopError(f"{position.symbol} is {status.value}: the exchange settles a contract when it is delisted")
    if settled_at is None or settled_at <= 0:
        raise BadInput("name the price at which the exchange settled the contract: --settled-at PRICE")
    return signed_quantity(position) * settled_at


def _refusal(ports: Ports, position: Position, status: MarketStatus, markets: Markets, orders: Sequence[Order]) -> str:
    """Why a holding must not be given up, or ""."""
    if status is not MarketStatus.DELISTED and any(order.role is OrderRole.ENTRY for order in orders):
        return f"the entry of {position.position_id} may still fill: ./tradewind flatten cancels it"
    if position.quantity <= 0:
        return f"nothing is held in {position.position_id}"
    if status is not MarketStatus.TRADING:
        return ""
    if position.symbol not in markets.books:
        return _priced_lately(ports, position)
    market, book = markets.instrument(position.symbol), markets.book(position.symbol)
    if is_too_small(position, market, book):
        return ""
    return (
        f"{position.symbol} trades at {book.bid} and takes an order for {position.quantity} {market.base}: "
        "./tradewind flatten sells it, and so will its stop and its rules"
    )


def _priced_lately(ports: Ports, position: Position) -> str:
    """Why a market that trades without a price is waited for, or "" once it had none for long enough."""
    known = ports.trading_store.last_prices([position.symbol]).get(position.symbol)
    moments = [at for at in (position.opened_at, known.at if known is not None else None) if at is not None]
    since = max(moments, default=position.bar)
    if ports.clock.now() - since >= UNPRICED_FOR:
        return ""
    return (
        f"{position.symbol} trades and had a price at {since:%H:%M} UTC: wait for one, or until it had none for "
        f"{UNPRICED_FOR.total_seconds() / 3600:.0f} hour"
    )
