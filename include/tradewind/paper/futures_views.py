"""Futures orders, positions, wallets, trades and incomes as Binance writes them."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final

from tradewind.core.futures_accounts import FuturesPosition, Income
from tradewind.core.futures_engine import CLOSE_POSITION, REDUCE_ONLY
from tradewind.core.matching_rules import SymbolRules, amount
from tradewind.core.matching_types import Order, OrderKind, OrderSide, OrderStatus
from tradewind.paper.futures_exchange import FuturesExchange, FuturesTrade
from tradewind.paper.views import Scale, text

ALGO: Final = "algo"
"""The tag of orders that were sent to the algo endpoint."""
TYPES: Final = {
    OrderKind.STOP_LOSS: "STOP_MARKET",
    OrderKind.STOP_LOSS_LIMIT: "STOP",
    OrderKind.TAKE_PROFIT: "TAKE_PROFIT_MARKET",
    OrderKind.TAKE_PROFIT_LIMIT: "TAKE_PROFIT",
    OrderKind.LIMIT_MAKER: "LIMIT",
}


def money(atoms: int) -> str:
    """An amount of the settlement asset, which may be negative."""
    return text(amount(atoms))


def is_algo(order: Order) -> bool:
    return bool(dict(order.tags).get(ALGO))


def is_regular(order: Order) -> bool:
    """An order of the matching engine itself: sent there, or placed there when a conditional one triggered."""
    return not is_algo(order) or order.triggered


def type_of(order: Order) -> str:
    if order.trailing_bps:
        return "TRAILING_STOP_MARKET"
    return TYPES.get(order.kind, order.kind.value)


def time_in_force_of(order: Order) -> str:
    return "GTX" if order.kind is OrderKind.LIMIT_MAKER else order.time_in_force.value


def _common(order: Order) -> dict[str, Any]:
    tags = dict(order.tags)
    return {
        "symbol": order.symbol,
        "side": order.side.name,
        "positionSide": "BOTH",
        "timeInForce": time_in_force_of(order),
        "reduceOnly": bool(tags.get(REDUCE_ONLY) or tags.get(CLOSE_POSITION)),
        "closePosition": bool(tags.get(CLOSE_POSITION)),
        "workingType": str(tags.get("workingType", "CONTRACT_PRICE")),
        "priceProtect": bool(tags.get("priceProtect")),
        "priceMatch": "NONE",
        "selfTradePreventionMode": str(tags.get("selfTradePreventionMode", "EXPIRE_MAKER")),
        "goodTillDate": 0,
    }


def average_price(order: Order, rules: SymbolRules) -> str:
    if not order.filled_lots:
        return "0.00"
    price = Decimal(order.filled_quote_atoms) / (order.filled_lots * rules.quote_atoms_per_ticklot) * rules.tick
    return text(price)


def order_view(order: Order, rules: SymbolRules) -> dict[str, Any]:
    """An order of the matching engine."""
    scale = Scale(rules)
    kind = type_of(order)
    placed = {"STOP_MARKET": "MARKET", "TAKE_PROFIT_MARKET": "MARKET", "TRAILING_STOP_MARKET": "MARKET"}
    return {
        **_common(order),
        "orderId": order.order_id,
        "clientOrderId": order.client_id,
        "status": order.status.value,
        "price": scale.price(order.price_ticks),
        "avgPrice": average_price(order, rules),
        "origQty": scale.quantity(order.lots),
        "executedQty": scale.quantity(order.filled_lots),
        "cumQty": scale.quantity(order.filled_lots),
        "cumQuote": money(order.filled_quote_atoms),
        "type": placed.get(kind, "LIMIT" if kind in ("STOP", "TAKE_PROFIT") else kind),
        "origType": kind,
        "stopPrice": scale.price(order.stop_ticks),
        "time": order.created_ms,
        "updateTime": order.updated_ms,
    }


def algo_status(order: Order) -> str:
    """How a conditional order stands: before it triggers it has a life of its own, then the placed order's decides."""
    if order.hangs and order.is_open:
        return "TRIGGERING"
    if order.triggered:
        return "TRIGGERED" if order.is_open else "FINISHED"
    return {OrderStatus.CANCELED: "CANCELED", OrderStatus.REJECTED: "REJECTED", OrderStatus.EXPIRED: "EXPIRED"}.get(
        order.status, "NEW"
    )


def algo_view(order: Order, rules: SymbolRules) -> dict[str, Any]:
    """A conditional order of the algo service."""
    scale = Scale(rules)
    body = {
        **_common(order),
        "algoId": order.order_id,
        "clientAlgoId": order.client_id,
        "algoType": "CONDITIONAL",
        "orderType": type_of(order),
        "quantity": scale.quantity(order.lots),
        "algoStatus": algo_status(order),
        "actualOrderId": str(order.order_id) if order.triggered else "",
        "actualPrice": average_price(order, rules),
        "actualQty": scale.quantity(order.filled_lots),
        "triggerPrice": scale.price(order.stop_ticks),
        "price": scale.price(order.price_ticks),
        "icebergQuantity": None,
        "tpTriggerPrice": "0.000",
        "tpPrice": "0.000",
        "slTriggerPrice": "0.000",
        "slPrice": "0.000",
        "tpOrderType": "",
        "failReason": order.reject_reason,
        "createTime": order.created_ms,
        "updateTime": order.updated_ms,
        "triggerTime": order.working_ms if order.triggered or order.hangs else 0,
    }
    if order.trailing_bps:
        body["callbackRate"] = str(Decimal(order.trailing_bps) / 100)
        body["activatePrice"] = scale.price(order.stop_ticks)
    return body


# ----------------------------------------------------------------------------------------------------------- positions
def entry_price(position: FuturesPosition, rules: SymbolRules) -> str:
    """The average price, to as many digits as give the cost back exactly when it is multiplied by the quantity."""
    if not position.lots:
        return "0.0"
    price = amount(position.cost_atoms) / rules.quantity(position.lots)
    return f"{price:.18f}".rstrip("0").rstrip(".")


def position_numbers(desk: FuturesExchange, account_id: str, symbol: str, now_ms: int) -> dict[str, Any]:
    """The figures of one position that every endpoint has."""
    engine = desk.engine
    rules, position = engine.rules[symbol], desk.account(account_id).position(symbol)
    mark = desk.mark(symbol, now_ms)
    pnl, notional = position.pnl_atoms(mark, rules), position.notional_atoms(mark, rules)
    initial = -(-notional // position.leverage)
    orders = engine.order_margin_atoms(account_id, symbol)
    is_held = position.lots != 0
    return {
        "symbol": symbol,
        "positionSide": "BOTH",
        "positionAmt": f"{rules.quantity(position.lots):f}",
        "unrealizedProfit": money(pnl),
        "isolatedMargin": money(position.margin_atoms + pnl if is_held else 0),
        "notional": money(position.sign * notional),
        "isolatedWallet": money(position.margin_atoms),
        "initialMargin": money(initial + orders),
        "positionInitialMargin": money(initial),
        "openOrderInitialMargin": money(orders),
        "maintMargin": money(position.maintenance_atoms(mark, rules, engine.brackets[symbol]) if is_held else 0),
        "updateTime": position.updated_ms,
    }


def position_risk(desk: FuturesExchange, account_id: str, symbol: str, now_ms: int, *, version: int) -> dict[str, Any]:
    """One position as positionRisk shows it."""
    rules, position = desk.engine.rules[symbol], desk.account(account_id).position(symbol)
    numbers = position_numbers(desk, account_id, symbol, now_ms)
    level = position.liquidation_ticks(rules, desk.engine.brackets[symbol])
    body = {
        **numbers,
        "entryPrice": entry_price(position, rules),
        "breakEvenPrice": entry_price(position, rules),
        "markPrice": Scale(rules).price(desk.mark(symbol, now_ms)),
        "unRealizedProfit": numbers["unrealizedProfit"],
        "liquidationPrice": text(rules.price(level)) if level else "0",
        "marginAsset": desk.quote,
        "adl": 1 if position.lots else 0,
        "bidNotional": "0",
        "askNotional": "0",
    }
    del body["unrealizedProfit"]
    if version == 2:
        largest = next((b for b in desk.brackets[symbol][::-1] if b.leverage >= position.leverage), None)
        body |= {
            "leverage": str(position.leverage),
            "marginType": "isolated",
            "isAutoAddMargin": "false",
            "maxNotionalValue": str(largest.notional_floor if largest else 0),
        }
    return body


# ------------------------------------------------------------------------------------------------- trades and incomes
def trade_view(trade: FuturesTrade, rules: SymbolRules) -> dict[str, Any]:
    scale, fill = Scale(rules), trade.fill
    return {
        "symbol": fill.symbol,
        "id": fill.trade_id,
        "orderId": fill.order_id,
        "side": fill.side.name,
        "price": scale.price(fill.price_ticks),
        "qty": scale.quantity(fill.lots),
        "realizedPnl": money(trade.realised_atoms),
        "quoteQty": money(fill.quote_atoms),
        "commission": money(fill.commission_atoms),
        "commissionAsset": fill.commission_asset,
        "time": fill.time_ms,
        "positionSide": "BOTH",
        "buyer": fill.side is OrderSide.BUY,
        "maker": fill.is_maker,
    }


def income_view(income: Income, asset: str) -> dict[str, Any]:
    return {
        "symbol": income.symbol,
        "incomeType": income.kind.value,
        "income": money(income.amount_atoms),
        "asset": asset,
        "info": str(income.trade_id) if income.trade_id else income.kind.value,
        "time": income.time_ms,
        "tranId": income.income_id,
        "tradeId": str(income.trade_id) if income.trade_id else "",
    }
