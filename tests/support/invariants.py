"""The invariants of the chaos tests, asked of a running stack: the exchange's own word against the ledger's."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

import numpy as np

from tradewind.core.brackets import floor_to_step, is_tradable
from tradewind.core.orders import AT_EXCHANGE, is_final
from tradewind.core.timeframes import ceil_ms, closed_until_ms, columns, timeframe_ms, to_ms
from tradewind.jobs.reconciling import asset_flows
from tradewind.wiring import Wiring

# The deadline of protection, the watch's next look, and the time its own work takes.
NAKED_BOUND_S = 10.0
_ZERO = Decimal(0)


def judge(ports: Wiring, since: datetime) -> dict[str, Any]:
    """By invariant the words for what breaks it, empty lists when nothing does; and what was counted."""
    orders = _exchange_orders(ports)
    return {
        "broken": {
            "ledger equals exchange": _unequal(ports),
            "no order doubled": _doubled(ports, orders),
            "nothing naked beyond the bound": _naked(ports, orders),
            "no fill lost": _lost_fills(ports, since),
            "every order decided": _undecided(ports),
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


def _unequal(ports: Wiring) -> list[str]:
    baseline, flows = ports.trading_store.baseline() or {}, asset_flows(ports)
    held = ports.exchange.balances()
    words = []
    for asset in {*baseline, *flows}:
        expected = baseline.get(asset, _ZERO) + flows.get(asset, _ZERO)
        actual = held[asset].total if asset in held else _ZERO
        if expected != actual:
            words.append(f"{asset}: {actual} there, {expected} in the ledger")
    record = ports.trading_store.last_reconciliation()
    if record is None or not record.clean:
        words.append(f"reconciliation is not clean: {record and record.report}")
    return words


def _doubled(ports: Wiring, orders: list[dict[str, Any]]) -> list[str]:
    ids = [order["clientOrderId"] for order in orders]
    words = [f"{name} is there {ids.count(name)} times" for name in {*ids} if ids.count(name) > 1]
    rows = ports.database.rows("SELECT intent_id FROM decisions WHERE intent_id IS NOT NULL")
    wanted: dict[str, Decimal] = {}
    for intent in (ports.trading_store.intent(row["intent_id"]) for row in rows):
        wanted[intent.symbol] = wanted.get(intent.symbol, _ZERO) + intent.quantity
    for symbol in ports.symbols:
        bought = sum((Decimal(o["executedQty"]) for o in orders if o["pair"] == symbol and o["side"] == "BUY"), _ZERO)
        if bought > wanted.get(symbol, _ZERO):
            words.append(f"{symbol}: bought {bought} for intents of {wanted.get(symbol, _ZERO)}")
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
        bare = floor_to_step(own - guarded, instruments[symbol].step_size)
        if is_tradable(bare, position.stop_price, instruments[symbol]):
            words.append(f"{symbol}: {bare} held without a stop")
    for span in ports.trading_store.unprotected_spans():
        if span.ended_at is None or (span.seconds or 0.0) > NAKED_BOUND_S:
            words.append(f"{span.position_id}: {span.cause} for {span.seconds} s")
    return words


def _lost_fills(ports: Wiring, since: datetime) -> list[str]:
    known = {row["trade_id"] for row in ports.database.rows("SELECT trade_id FROM fills")}
    found = [fill for symbol in ports.symbols for fill in ports.exchange.fills_since(symbol, since)]
    return [f"{fill.trade_id} of {fill.symbol}" for fill in found if fill.trade_id not in known]


def _undecided(ports: Wiring) -> list[str]:
    rows = ports.database.rows("SELECT client_order_id FROM orders")
    orders = [ports.trading_store.order(row["client_order_id"]) for row in rows]
    return [
        f"{order.role.value} {order.client_order_id} is {order.state.value}"
        for order in orders
        if order is not None and not is_final(order.state) and order.state not in AT_EXCHANGE
    ]


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
