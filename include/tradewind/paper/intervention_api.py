"""The operator's side, second part: what real exchanges do to their markets and accounts, each on command.

Symbols are written BTCUSDT, `market` is "spot" (the default) or "futures", amounts are strings. A fault rule of
action `command_before` or `command_after` carries the same bodies, so that any of it may happen at any call.
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable, Mapping
from dataclasses import asdict
from decimal import Decimal
from typing import Any, Final

from tradewind.core.futures_accounts import IncomeKind
from tradewind.core.matching import Engine
from tradewind.core.matching_rules import atoms
from tradewind.core.matching_types import NewOrder, Order, OrderKind, OrderSide, OrderStatus, Refusal, TimeInForce
from tradewind.errors import BadInput
from tradewind.paper.exchange import FEE_ASSET, PaperExchange
from tradewind.paper.views import order_view

Body = dict[str, Any]
Command = Callable[[PaperExchange, Body, int], Body]

_FEE_KEYS: Final = ("maker_ppm", "taker_ppm")


async def intervene(exchange: PaperExchange, name: str, body: Body, now_ms: int) -> Body:
    """Carry a command out on the market as it is now, and write down what it changed.

    Raises BadInput for what it does not understand, and where the engine refuses.
    """
    exchange.advance(now_ms)
    try:
        answer = COMMANDS[name](exchange, body, now_ms)
    except Refusal as refused:
        raise BadInput(f"refused: {refused}") from None
    await exchange.commit()
    return answer


def _symbol(exchange: PaperExchange, body: Body) -> str:
    symbol = str(body["symbol"])
    if symbol not in exchange.engine.rules:
        raise BadInput(f"there is no symbol {symbol!r}; write it as BTCUSDT")
    return symbol


def _account(exchange: PaperExchange, body: Body) -> str:
    account_id = str(body["account_id"])
    if account_id not in exchange.accounts:
        raise BadInput(f"there is no account {account_id!r}")
    return account_id


def _engine(exchange: PaperExchange, body: Body) -> Engine:
    market = body.get("market", "spot")
    if market not in ("spot", "futures"):
        raise BadInput("market must be 'spot' or 'futures'")
    return exchange.engine if market == "spot" else exchange.futures.engine


# ------------------------------------------------------------------------------------------------------------- markets
def _status(exchange: PaperExchange, body: Body, now_ms: int) -> Body:
    """{"symbol", "status"}: TRADING, HALT, BREAK or CANCEL_ONLY; what rests stays and can be cancelled."""
    symbol = _symbol(exchange, body)
    exchange.conditions.set_status(symbol, str(body["status"]))
    exchange.keep_conditions()
    exchange.show_prices([symbol], now_ms)
    return {"symbol": symbol, "status": exchange.conditions.status(symbol)}


def _delist(exchange: PaperExchange, body: Body, now_ms: int) -> Body:
    """{"symbol", "vanishes"?: true}: orders expire, futures are settled; it is unknown or stays as BREAK with zeros."""
    exchange.delist(_symbol(exchange, body), now_ms, vanishes=bool(body.get("vanishes", True)))
    return {"delisted": sorted(exchange.conditions.delisted)}


def _calm(exchange: PaperExchange, _: Body, now_ms: int) -> Body:
    """{}: every market trades again as it was made, a delisted one too; orders that were ended stay so."""
    exchange.conditions.calm()
    exchange.keep_conditions()
    exchange.show_prices(exchange.engine.rules, now_ms)
    return {}


def _book(exchange: PaperExchange, body: Body, now_ms: int) -> Body:
    """{"symbol", "shape": "empty" | "zero" | "no_bids" | "no_asks" | "crossed" | null}: until it is changed."""
    symbol = _symbol(exchange, body)
    exchange.conditions.bend(symbol, body["shape"])
    exchange.keep_conditions()
    exchange.show_prices([symbol], now_ms)
    return {"symbol": symbol, "shape": body["shape"]}


def _rules(exchange: PaperExchange, body: Body, _: int) -> Body:
    """{"symbol", "rules": {"tick"?, "step"?, "min_notional"?, "min_quantity"?, "max_quantity"?, ...}}: from now on."""
    symbol = _symbol(exchange, body)
    exchange.conditions.change_rules(symbol, {str(k): str(v) for k, v in dict(body["rules"]).items()})
    exchange.keep_conditions()
    return {"symbol": symbol, "rules": exchange.conditions.rules.get(symbol, {})}


def _price_range(exchange: PaperExchange, body: Body, _: int) -> Body:
    """{"symbol", "down", "up"}: takers trade within these multiples of the average price; without them at any."""
    symbol = _symbol(exchange, body)
    limits = (str(Decimal(str(body["down"]))), str(Decimal(str(body["up"])))) if "down" in body else None
    exchange.conditions.limit_range(symbol, limits)
    exchange.keep_conditions()
    return {"symbol": symbol, "range": limits}


def _hang(exchange: PaperExchange, body: Body, now_ms: int) -> Body:
    """{"symbol", "hangs": bool, "releases"?: bool}: futures stops that trigger hang; `releases` lets hung ones go."""
    symbol = _symbol(exchange, body)
    hanging, engine = exchange.conditions.hanging, exchange.futures.engine
    (hanging.add if body.get("hangs", True) else hanging.discard)(symbol)
    exchange.conditions.apply()
    exchange.keep_conditions()
    hung = [order for order in engine.orders.values() if order.symbol == symbol and order.hangs and order.is_open]
    if body.get("releases"):
        for order in hung:
            engine.release(order, now_ms)
    return {"symbol": symbol, "hung": [order.client_id for order in hung]}


# -------------------------------------------------------------------------------------------------------------- orders
def _resting(exchange: PaperExchange, body: Body) -> list[Order]:
    """The open orders that a body names: of a symbol or of all, of an account or of all, by client ids or side."""
    engine = _engine(exchange, body)
    symbol = _symbol(exchange, body) if "symbol" in body else None
    accounts = [_account(exchange, body)] if "account_id" in body else sorted(exchange.accounts)
    found = [order for account_id in accounts for order in engine.open_orders(account_id, symbol)]
    if "client_ids" in body:
        found = [order for order in found if order.client_id in body["client_ids"]]
    if "types" in body:
        found = [order for order in found if order.kind.value in body["types"]]
    return found


def _expire(exchange: PaperExchange, body: Body, now_ms: int) -> Body:
    """{"symbol"?, "account_id"?, "types"?, "share"?: 1, "seed"?: 0, "status"?}: the exchange ends resting orders.

    Maintenance does so with EXPIRED, self-trade prevention with EXPIRED_IN_MATCH; a list goes with its order. `share`
    draws by the seed which of them are met.
    """
    engine, rng = _engine(exchange, body), random.Random(int(body.get("seed", 0)))
    status = OrderStatus(body.get("status", "EXPIRED"))
    if status not in (OrderStatus.EXPIRED, OrderStatus.EXPIRED_IN_MATCH):
        raise BadInput("status must be EXPIRED or EXPIRED_IN_MATCH")
    share = float(body.get("share", 1))
    chosen = [order for order in _resting(exchange, body) if rng.random() < share]
    for order in chosen:
        if order.is_open:
            engine.expire(order, now_ms, status)
    return {"expired": [order.client_id for order in chosen]}


def _fill(exchange: PaperExchange, body: Body, now_ms: int) -> Body:
    """{"symbol", "account_id", "client_ids"?, "types"?, "frac"}: somebody takes a share of what rests with a limit.

    As at Binance the first trade of a leg, however small, ends the other leg of its pair.
    """
    engine, filled = _engine(exchange, body), []
    for order in _resting(exchange, body):
        lots = int(order.remaining_lots * float(body["frac"]))
        if order.kind.has_price and not order.awaits_trigger and not order.is_dormant and lots:
            engine.fill_resting(order, lots, now_ms)
            filled.append(order.client_id)
    return {"filled": filled}


def _trade(exchange: PaperExchange, body: Body, now_ms: int) -> Body:
    """{"account_id", "symbol", "side", "type", "quantity", "price"?, "market"?, "self_trade"?}: a person's own order.

    Its client id is one that Binance's web page would give.
    """
    account_id, symbol, engine = _account(exchange, body), _symbol(exchange, body), _engine(exchange, body)
    if engine is exchange.futures.engine:
        exchange.futures.account(account_id)
    rules, kind = engine.rules[symbol], OrderKind(body.get("type", "MARKET"))
    new = NewOrder(
        symbol, OrderSide[body["side"]], kind, f"web_{secrets.token_hex(12)}",
        rules.lots(Decimal(str(body["quantity"]))), rules.ticks(Decimal(str(body["price"]))) if "price" in body else 0,
        time_in_force=TimeInForce(body.get("time_in_force", "GTC")),
        tags=(("selfTradePreventionMode", str(body.get("self_trade", "NONE"))),),
    )  # fmt: skip
    (exchange if engine is exchange.engine else exchange.futures).refresh(symbol, now_ms)
    return order_view(engine.place(account_id, new, now_ms), rules)


# --------------------------------------------------------------------------------------------------------------- money
def _fees(exchange: PaperExchange, body: Body, _: int) -> Body:
    """{"account_id", "maker_ppm", "taker_ppm", "symbol"?, "market"?} or {"account_id", "in_bnb": bool}: a fee tier."""
    account_id = _account(exchange, body)
    data = exchange.accounts[account_id]
    if "in_bnb" in body:
        data["fee_asset"] = FEE_ASSET if body["in_bnb"] else ""
    if any(key in body for key in _FEE_KEYS):
        maker, taker = (int(body[key]) for key in _FEE_KEYS)
        if not 0 <= maker <= 100_000 or not 0 <= taker <= 100_000:
            raise BadInput("a fee must lie in 0..100000 ppm")
        tier = data
        if _engine(exchange, body) is exchange.futures.engine:
            exchange.futures.account(account_id)
            held = exchange.futures.engine.book.accounts[account_id]
            own = {"maker_fee_ppm": held.maker_fee_ppm, "taker_fee_ppm": held.taker_fee_ppm}
            tier = data.setdefault("futures", own)
        if "symbol" in body:
            tier.setdefault("symbol_fees", {})[_symbol(exchange, body)] = [maker, taker]
        else:
            tier["maker_fee_ppm"], tier["taker_fee_ppm"] = maker, taker
    exchange.keep_account(account_id)
    return dict(data)


def _transfer(exchange: PaperExchange, body: Body, now_ms: int) -> Body:
    """{"account_id", "asset", "amount", "market"?}: a deposit, or (negative) a withdrawal of what is free."""
    account_id, asset = _account(exchange, body), str(body["asset"])
    value = Decimal(str(body["amount"]))
    moved = atoms(abs(value)) * (1 if value > 0 else -1)
    if not value.is_finite() or not moved:
        raise BadInput("the amount must be a finite number other than zero")
    if _engine(exchange, body) is exchange.futures.engine:
        if asset != exchange.futures.quote:
            raise BadInput(f"the futures wallet holds {exchange.futures.quote}")
        exchange.futures.deposit(account_id, moved, now_ms)
        return {"account_id": account_id, "asset": asset, "amount": str(value)}
    return asdict(exchange.transfer(account_id, asset, moved, now_ms))


def _income(exchange: PaperExchange, body: Body, now_ms: int) -> Body:
    """{"account_id", "kind", "amount", "symbol"?: ""}: a movement of the futures wallet that no trade caused."""
    account_id, value = _account(exchange, body), Decimal(str(body["amount"]))
    exchange.futures.account(account_id)
    moved = atoms(abs(value)) * (1 if value > 0 else -1)
    symbol = _symbol(exchange, body) if body.get("symbol") else ""
    exchange.futures.engine.credit(account_id, symbol, IncomeKind(body["kind"]), moved, now_ms)
    return {"account_id": account_id, "kind": body["kind"], "amount": str(value)}


COMMANDS: Final[Mapping[str, Command]] = {
    "status": _status,
    "delist": _delist,
    "calm": _calm,
    "book": _book,
    "rules": _rules,
    "price_range": _price_range,
    "hang": _hang,
    "expire": _expire,
    "fill": _fill,
    "trade": _trade,
    "fees": _fees,
    "transfer": _transfer,
    "income": _income,
}
