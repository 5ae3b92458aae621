"""The operator's side: clock, accounts, faults, shocks, state. Loopback only, with a token of its own."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from decimal import Decimal, InvalidOperation
from typing import Any

from tradewind.core.matching_rules import atoms
from tradewind.core.matching_types import Fill, Order
from tradewind.errors import BadInput
from tradewind.paper.archive import Page
from tradewind.paper.clock import MarketClock
from tradewind.paper.exchange import ApiKey, PaperExchange
from tradewind.paper.faults import Faults
from tradewind.paper.intervals import INTERVAL_MS
from tradewind.paper.intervention_api import COMMANDS, intervene
from tradewind.paper.market_view import Shock
from tradewind.paper.views import order_view, text

Body = dict[str, Any]
AdminHandler = Callable[[PaperExchange, Faults, Body], Awaitable[Any]]


async def handle(exchange: PaperExchange, faults: Faults, method: str, path: str, body: Body) -> tuple[int, Any]:
    """(HTTP status, answer) of an admin call. Bad input answers 400 and says what is wrong."""
    handler = _ROUTES.get((method, path))
    command = path.removeprefix("/__admin/")
    if handler is None and not (method == "POST" and command in COMMANDS):
        known = [*(f"{m} {p}" for m, p in _ROUTES), *(f"POST /__admin/{name}" for name in COMMANDS)]
        return 404, {"error": f"no admin call {method} {path}; there are {', '.join(known)}"}
    try:
        if handler is None:
            return 200, await intervene(exchange, command, body, exchange.now_ms(_wall_ms()))
        return 200, await handler(exchange, faults, body)
    except (BadInput, ValueError, TypeError, InvalidOperation, KeyError, OverflowError) as error:
        return 400, {"error": f"{type(error).__name__}: {error}"}


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


# --------------------------------------------------------------------------------------------------------------- clock
async def _get_clock(exchange: PaperExchange, _: Faults, __: Body) -> Body:
    wall_ms = _wall_ms()
    return {
        "mode": exchange.clock.mode,
        "market_ms": exchange.now_ms(wall_ms),
        "wall_ms": wall_ms,
        "speed": exchange.clock.speed,
    }


async def _set_clock(exchange: PaperExchange, faults: Faults, body: Body) -> Body:
    """{"set_ms": n} freezes · {"step_ms": n} or {"step_bars": n, "timeframe": t} · {"speed": x} · {"mode": "real"}."""
    _require_made_market(exchange)
    wall_ms = _wall_ms()
    now_ms = exchange.now_ms(wall_ms)
    given = set(body) - {"timeframe"}
    if len(given) != 1:
        raise BadInput("give exactly one of set_ms, step_ms, step_bars (with timeframe), speed, mode")
    name = given.pop()
    if name == "set_ms":
        clock = MarketClock.frozen(int(body["set_ms"]), wall_ms)
    elif name in ("step_ms", "step_bars"):
        length = 1 if name == "step_ms" else INTERVAL_MS.get(str(body.get("timeframe", "15m")), 0)
        step_ms = int(body[name]) * length
        if step_ms <= 0:
            raise BadInput("a step must be positive, in a known timeframe")
        clock = MarketClock.frozen(now_ms + step_ms, wall_ms)
    elif name == "speed":
        speed = float(body["speed"])
        if not 0 <= speed <= 100_000:
            raise BadInput("speed must lie in 0..100000")
        clock = exchange.clock.at_speed(speed, wall_ms)
    elif name == "mode" and body["mode"] == "real":
        clock = MarketClock(wall_ms, wall_ms)
    elif name == "mode" and body["mode"] == "stepped":
        clock = MarketClock.frozen(now_ms, wall_ms)
    else:
        raise BadInput("mode must be 'real' or 'stepped'")
    exchange.set_clock(clock, wall_ms)
    await exchange.commit()
    return await _get_clock(exchange, faults, {})


def _require_made_market(exchange: PaperExchange) -> None:
    if exchange.market.name == "public":
        raise BadInput("this market is the real one: its time runs with the wall and its prices cannot be moved")


# ------------------------------------------------------------------------------------------------------------ accounts
async def _create_account(exchange: PaperExchange, _: Faults, body: Body) -> Body:
    """{"balances": {"USDT": "10000"}, "account_id"?, "api_key"?, "api_secret"?, "futures_balances"?, ...}.

    A repeated call with the same account id, key and secret answers as the first did, and changes nothing.
    """
    known = {"balances", "futures_balances", "account_id", "api_key", "api_secret", "can_trade"}
    known |= {"maker_fee_ppm", "taker_fee_ppm"}
    unknown = set(body) - known
    if unknown:
        raise BadInput(f"an account has no field {sorted(unknown)[0]!r}")
    balances = {str(a): Decimal(str(v)) for a, v in dict(body.get("balances") or {"USDT": "10000"}).items()}
    wallet = Decimal(str(dict(body.get("futures_balances") or {}).get(exchange.futures.quote, 0)))
    if not all(v.is_finite() for v in (*balances.values(), wallet)) or wallet < 0:
        raise BadInput("a balance must be a finite number")
    account_id, existing = body.get("account_id"), None
    if account_id in exchange.accounts:
        existing = next((k for k in exchange.keys.values() if k.account_id == account_id), None)
        if existing is None or body.get("api_key") != existing.api_key or body.get("api_secret") != existing.api_secret:
            raise BadInput(f"account {account_id} exists; its key is known to whoever made it")
    key = existing or exchange.create_account(
        balances,
        account_id,
        body.get("api_key"),
        body.get("api_secret"),
        can_trade=bool(body.get("can_trade", True)),
        maker_fee_ppm=body.get("maker_fee_ppm"),
        taker_fee_ppm=body.get("taker_fee_ppm"),
    )
    if wallet and existing is None:
        exchange.futures.deposit(key.account_id, atoms(wallet), exchange.now_ms(_wall_ms()))
    await exchange.commit()
    return asdict(key)


async def _create_key(exchange: PaperExchange, _: Faults, body: Body) -> Body:
    """{"account_id", "can_trade"?}: one more key for an account."""
    if body.get("account_id") not in exchange.accounts:
        raise BadInput(f"there is no account {body.get('account_id')!r}")
    fresh = PaperExchange.make_key(str(body["account_id"]), bool(body.get("can_trade", True)))
    exchange.add_key(fresh)
    await exchange.commit()
    return asdict(fresh)


async def _get_state(exchange: PaperExchange, _: Faults, __: Body) -> Body:
    """Everything, for tests: balances, orders, lists and trades by account, archived ones too."""
    engine = exchange.engine
    await exchange.commit()
    accounts = {}
    for account_id in list(exchange.accounts):
        orders, fills = await _history(exchange, account_id)
        accounts[account_id] = {
            "balances": {
                a: {"free": text(f), "locked": text(n)} for a, (f, n) in exchange.balances(account_id).items()
            },
            "orders": [order_view(o, engine.rules[o.symbol]) for o in orders],
            "fills": [asdict(f) for f in fills],
        }
    return {
        "market": exchange.market.identity,
        "processed_ms": exchange.processed_ms,
        "halted": sorted(engine.halted),
        "shocks": [asdict(s) for s in exchange.view.shocks],
        "fees_collected": {a: n for a, n in engine.book.fees_collected.items()},
        "accounts": accounts,
    }


async def _history(exchange: PaperExchange, account_id: str) -> tuple[list[Order], list[Fill]]:
    """All orders of an account by id, and all its trades."""
    older: list[Order] = []
    older_fills: list[Fill] = []
    if exchange.archive is not None:
        for symbol in exchange.engine.rules:
            older += await exchange.archive.orders(account_id, symbol, Page())
            older_fills += await exchange.archive.fills(account_id, symbol, Page())
    recent = [o for o in exchange.engine.orders.values() if o.account_id == account_id]
    orders = {o.order_id: o for o in (*older, *recent)}
    recent_fills = [f for (owner, _), fills in exchange.fills.items() if owner == account_id for f in fills]
    fills = {(f.symbol, f.trade_id): f for f in (*older_fills, *recent_fills)}
    return [orders[i] for i in sorted(orders)], list(fills.values())


# ----------------------------------------------------------------------------------------------------------- accidents
async def _list_faults(_: PaperExchange, faults: Faults, __: Body) -> Body:
    return {"rules": [r.as_row() for r in faults.rules]}


async def _add_fault(_: PaperExchange, faults: Faults, body: Body) -> Body:
    return faults.add(body).as_row()


async def _remove_faults(_: PaperExchange, faults: Faults, body: Body) -> Body:
    """{"id": n} removes one, {} all."""
    return {"removed": faults.remove(int(body["id"]) if "id" in body else None)}


async def _shock(exchange: PaperExchange, _: Faults, body: Body) -> Body:
    """{"symbol": "BTCUSDT" | "all", "frac": -0.05, "at_ms"?}: prices are multiplied by 1 + frac from then on."""
    _require_made_market(exchange)
    frac = float(body["frac"])
    if not -0.95 <= frac <= 10:
        raise BadInput("frac must lie in -0.95..10; -0.05 is a fall of 5 %")
    symbol = str(body.get("symbol", "all"))
    if symbol != "all" and symbol not in exchange.engine.rules:
        raise BadInput(f"there is no symbol {symbol!r}; write it as BTCUSDT")
    now_ms = exchange.now_ms(_wall_ms())
    exchange.advance(now_ms)
    at_ms = int(body.get("at_ms", now_ms))
    if at_ms < now_ms:
        raise BadInput("at_ms is in the past of the market's clock: history is not rewritten")
    shock = Shock(at_ms, "*" if symbol == "all" else symbol, 1 + frac)
    exchange.add_shock(shock)
    if at_ms == now_ms:
        exchange.show_prices(exchange.engine.rules, now_ms)
    await exchange.commit()
    return asdict(shock)


_ROUTES: dict[tuple[str, str], AdminHandler] = {
    ("GET", "/__admin/clock"): _get_clock,
    ("POST", "/__admin/clock"): _set_clock,
    ("POST", "/__admin/accounts"): _create_account,
    ("POST", "/__admin/keys"): _create_key,
    ("GET", "/__admin/state"): _get_state,
    ("GET", "/__admin/faults"): _list_faults,
    ("POST", "/__admin/faults"): _add_fault,
    ("DELETE", "/__admin/faults"): _remove_faults,
    ("POST", "/__admin/shock"): _shock,
}

__all__ = ["ApiKey", "handle"]
