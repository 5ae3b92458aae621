"""What must hold whatever happens, in words and in one place: the exchange's own word against the ledger's.

1. No order is doubled: no id twice, never more entered than decided, never more sold than bought.
2. What rests covers every open position, unless its symbol cannot be traded; bare time is bounded.
3. What protects is never made smaller while it could not be placed again.
4. No position leaves the ledger without fills, a recorded write-off or a difference that a person accepted.
5. Ledger and exchange agree to the last digit, for every asset, and reconciliation says so.
6. No fill is lost, every order is decided in the end.
7. Equity with transfers removed moves by results alone.
8. A breach latches, whatever was paid in or out before; and the latch never opens by itself.
9. One symbol's trouble never blinds the account: the watch goes on reading.

The chaos tests ask after each fault; the day's run asks of a running stack.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from datetime import datetime
from decimal import Decimal
from typing import Any

import numpy as np

from tradewind.core.brackets import floor_to_step, is_tradable
from tradewind.core.orders import AT_EXCHANGE, is_final
from tradewind.core.ports import Ports, UnprotectedSpan
from tradewind.core.timeframes import ceil_ms, closed_until_ms, columns, timeframe_ms, to_ms
from tradewind.core.types import Instrument, PositionStatus
from tradewind.jobs.equity import mark_equity
from tradewind.jobs.reconciling import asset_flows
from tradewind.wiring import Wiring

# The deadline of protection, the watch's next look, and the time its own work takes.
NAKED_BOUND_S = 10.0
OVER = (PositionStatus.CLOSED, PositionStatus.DUST)
_ZERO = Decimal(0)
_WRITTEN_OFF = "SELECT coalesce(sum(abs(quantity)), 0) AS gone FROM write_offs WHERE account = %s AND position_id = %s"
_POSITIONS = "SELECT position_id, symbol, status, entry_price, stop_price FROM positions WHERE account = %s"
_FILLS_OF = """
SELECT f.symbol, f.is_buy, f.quantity, f.price, f.fee, f.fee_asset
FROM fills f JOIN orders o USING (account, client_order_id)
WHERE o.account = %s AND o.position_id = %s
"""


# ---------------------------------------------------------------------------------------------------- 1: nothing twice
def doubled(client_ids: Collection[str], entered: Decimal, wanted: Decimal, what: str = "") -> list[str]:
    """Ids that are there twice, and what was entered beyond what was decided."""
    words = [f"{name} is there {n} times" for name in {*client_ids} if (n := list(client_ids).count(name)) > 1]
    return words + ([f"{what}entered {entered} of {wanted}"] if entered > wanted else [])


# ------------------------------------------------------------------------------------------------- 2, 3: what protects
def bare(held: Decimal, guarded: Decimal, price: Decimal, instrument: Instrument) -> Decimal:
    """What is held without a stop, as far as an order could hold it by today's rules."""
    quantity = floor_to_step(held - guarded, instrument.step_size)
    return quantity if is_tradable(quantity, price, instrument) else _ZERO


def bare_too_long(spans: Iterable[UnprotectedSpan], bound_s: float, closed_s: float = 0.0) -> list[str]:
    """Bare spans over the bound, less the time in which the symbol could not be traded; and those that never ended."""
    words = []
    for span in spans:
        if span.ended_at is None:
            words.append(f"{span.position_id}: a span is open: {span.cause}")
        elif (span.seconds or 0.0) - closed_s > bound_s:
            words.append(f"{span.position_id}: {span.cause} for {span.seconds:.1f} s")
    return words


def shrunk(before: Decimal, after: Decimal, held: Decimal) -> list[str]:
    """Protection of what is still held that was taken away while the symbol could not be traded."""
    return [f"stops rested for {before}, now for {after}, of {held} held"] if after < min(before, held) else []


# ------------------------------------------------------------------------------------------------ 4: nothing forgotten
def forgotten(ports: Ports, account: str, rules_of: Callable[[str], Instrument | None]) -> list[str]:
    """Positions that the ledger has ended although fills and write-offs leave something to sell of them, by today's
    rules; `rules_of` answers None for a symbol that is not listed.
    """
    words = []
    rows = ports.database.rows(  # type: ignore[attr-defined]
        "SELECT position_id, symbol, side, status, entry_price, stop_price FROM positions WHERE account = %s",
        (account,),
    )
    for row in rows:
        if row["status"] not in OVER:
            continue
        left = _left_of(ports, account, row["position_id"]) - written_off(ports, account, row["position_id"])
        instrument = rules_of(row["symbol"])
        if instrument is None:
            words += [f"{row['symbol']}: {left} forgotten in a market that is not listed"] if left else []
        elif bare(left, _ZERO, row["entry_price"] or row["stop_price"], instrument):
            words.append(f"{row['symbol']}: {row['status']} with {left} bought and not sold")
    return words


def _left_of(ports: Ports, account: str, position_id: str) -> Decimal:
    """What a position's fills leave of it, net of fees in its base; never below zero."""
    left = _ZERO
    for fill in ports.database.rows(_FILLS_OF, (account, position_id)):  # type: ignore[attr-defined]
        base = fill["symbol"].split("/")[0]
        left += fill["quantity"] if fill["is_buy"] else -fill["quantity"]
        left -= fill["fee"] if fill["fee_asset"] == base and fill["is_buy"] else _ZERO
    return abs(left)


def written_off(ports: Ports, account: str, position_id: str) -> Decimal:
    """What a person wrote off of a position."""
    return Decimal(ports.database.rows(_WRITTEN_OFF, (account, position_id))[0]["gone"])  # type: ignore[attr-defined]


# --------------------------------------------------------------------------------------------- 5, 6: what both must say
def unequal(ports: Ports, holds: Callable[[str], Decimal]) -> list[str]:
    """Assets of which the exchange holds another amount than the ledger, and a reconciliation that is not clean."""
    baseline, flows = ports.trading_store.baseline() or {}, asset_flows(ports)
    words = []
    for asset in sorted({*baseline, *flows}):
        expected, actual = baseline.get(asset, _ZERO) + flows.get(asset, _ZERO), holds(asset)
        if expected != actual:
            words.append(f"{asset}: {actual} there, {expected} in the ledger")
    record = ports.trading_store.last_reconciliation()
    if record is None or not record.clean:
        words.append(f"reconciliation is not clean: {record and record.report}")
    return words


def lost_fills(known: Collection[str], fills: Iterable[Any]) -> list[str]:
    return [f"{fill.trade_id} of {fill.symbol}" for fill in fills if fill.trade_id not in known]


def undecided(orders: Iterable[Any]) -> list[str]:
    return [
        f"{order.role.value} {order.client_order_id} is {order.state.value}"
        for order in orders
        if order is not None and not is_final(order.state) and order.state not in AT_EXCHANGE
    ]


# --------------------------------------------------------------------------------------------------------- 7, 8: equity
def drifted(ports: Ports, started_quote: Decimal, results_quote: Decimal, tolerance_quote: Decimal) -> list[str]:
    """Equity that moved otherwise than by results, transfers removed.

    `results_quote` is what trading brought by the exchange's word: cash moved by fills, fees, and what is held marked.
    """
    quote = ports.symbols[0].split("/")[1]
    transfers = ports.trading_store.accepted_differences().get(quote, _ZERO)
    moved = mark_equity(ports) - transfers - started_quote
    if abs(moved - results_quote) <= tolerance_quote:
        return []
    return [f"equity moved by {moved:.4f} without transfers, results are {results_quote:.4f}"]


# ------------------------------------------------------------------------------------------------------ a running stack
def judge(ports: Wiring, since: datetime) -> dict[str, Any]:
    """By invariant the words for what breaks it, empty lists when nothing does; and what was counted."""
    orders = _exchange_orders(ports)
    return {
        "broken": {
            "ledger equals exchange": unequal(ports, _holder(ports)),
            "no order doubled": _doubled(ports, orders),
            "nothing naked beyond the bound": _naked(ports, orders),
            "no fill lost": _lost_fills(ports, since),
            "every order decided": _undecided(ports),
            "no position forgotten": forgotten(
                ports, ports.account, lambda symbol: ports.exchange.instruments([symbol]).get(symbol)
            ),
            "candles complete and true": _candles(ports, since),
        },
        "counted": {
            "orders at the exchange": len(orders),
            "fills": len(ports.database.rows("SELECT 1 FROM fills")),
            "positions": len(ports.database.rows("SELECT 1 FROM positions")),
            "candles": ports.database.rows("SELECT count(*) AS n FROM candles")[0]["n"],
            "longest without a stop, s": max(
                (span.seconds for span in ports.trading_store.unprotected_spans() if span.seconds is not None),
                default=0.0,
            ),
        },
    }


def _exchange_orders(ports: Wiring) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for symbol in ports.symbols:
        answer = ports.client.read("private_get_allorders", {"symbol": ports.client.market_id(symbol), "limit": 1000})
        found += [order | {"pair": symbol} for order in answer]
    return found


def _holder(ports: Wiring) -> Callable[[str], Decimal]:
    held = ports.exchange.balances()
    return lambda asset: held[asset].total if asset in held else _ZERO


def _doubled(ports: Wiring, orders: list[dict[str, Any]]) -> list[str]:
    words = doubled([order["clientOrderId"] for order in orders], _ZERO, _ZERO)
    rows = ports.database.rows("SELECT intent_id FROM decisions WHERE intent_id IS NOT NULL")
    wanted: dict[str, Decimal] = {}
    for intent in (ports.trading_store.intent(row["intent_id"]) for row in rows):
        wanted[intent.symbol] = wanted.get(intent.symbol, _ZERO) + intent.quantity
    for symbol in ports.symbols:
        bought = sum((Decimal(o["executedQty"]) for o in orders if o["pair"] == symbol and o["side"] == "BUY"), _ZERO)
        words += doubled([], bought, wanted.get(symbol, _ZERO), f"{symbol}: ")
    return words


def _naked(ports: Wiring, orders: list[dict[str, Any]]) -> list[str]:
    words = []
    instruments = ports.exchange.instruments(ports.symbols)
    held, baseline = ports.exchange.balances(), ports.trading_store.baseline() or {}
    for position in ports.trading_store.live_positions():
        symbol = position.symbol
        base = symbol.split("/")[0]
        stops = [o for o in orders if o["pair"] == symbol and o["type"] == "STOP_LOSS" and o["status"] == "NEW"]
        guarded = sum((Decimal(o["origQty"]) - Decimal(o["executedQty"]) for o in stops), _ZERO)
        own = (held[base].total if base in held else _ZERO) - baseline.get(base, _ZERO)
        if quantity := bare(own, guarded, position.stop_price, instruments[symbol]):
            words.append(f"{symbol}: {quantity} held without a stop")
    return words + bare_too_long(ports.trading_store.unprotected_spans(), NAKED_BOUND_S)


def _lost_fills(ports: Wiring, since: datetime) -> list[str]:
    known = {row["trade_id"] for row in ports.database.rows("SELECT trade_id FROM fills")}
    return lost_fills(known, [fill for symbol in ports.symbols for fill in ports.exchange.fills_since(symbol, since)])


def _undecided(ports: Wiring) -> list[str]:
    rows = ports.database.rows("SELECT client_order_id FROM orders")
    return undecided([ports.trading_store.order(row["client_order_id"]) for row in rows])


def _candles(ports: Wiring, since: datetime) -> list[str]:
    """Nothing missing up to the newest bar but one, which its collection may still ask for, and nothing invented."""
    words = []
    for timeframe in ("15m", "1h"):
        start_ms = ceil_ms(to_ms(since), timeframe)
        end_ms = closed_until_ms(to_ms(ports.clock.now()), timeframe) - timeframe_ms(timeframe)
        wanted = {(symbol, timeframe): (start_ms, end_ms) for symbol in ports.symbols}
        missing = ports.market_store.find_gaps(wanted)
        words += [f"{gap.symbol} {timeframe}: bars missing from {gap.start_ms}" for gap in missing]
        stored = ports.market_store.read_bars(ports.symbols, timeframe, start_ms, end_ms)
        for symbol in ports.symbols:
            true = ports.market_data.candles(symbol, timeframe, start_ms, end_ms, bulk=True)
            pairs = zip(columns(stored[symbol]), columns(true), strict=True)
            if not all(np.array_equal(mine, theirs) for mine, theirs in pairs):
                words.append(f"{symbol} {timeframe}: stored bars differ from the exchange's")
    return words
