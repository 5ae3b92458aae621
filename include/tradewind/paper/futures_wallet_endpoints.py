"""Futures endpoints about the wallet: balances, the account's sums, incomes, transfers."""

from __future__ import annotations

from typing import Any, Final

from tradewind.core.futures_accounts import IncomeKind
from tradewind.core.matching_rules import atoms
from tradewind.core.matching_types import Refusal, RejectReason
from tradewind.paper import params as p
from tradewind.paper.dialect import ApiError, missing
from tradewind.paper.endpoints import Call, Security, endpoint
from tradewind.paper.futures_dialect import desk, futures_endpoint, listed
from tradewind.paper.futures_views import income_view, money, position_numbers, position_risk

_USER: Final = Security.USER_DATA
_INCOME_TYPES: Final = tuple(kind.value for kind in IncomeKind)


# -------------------------------------------------------------------------------------------------------------- wallet
def _totals(call: Call) -> dict[str, Any]:
    """The wallet's sums in atoms."""
    exchange, now_ms = desk(call), call.now_ms
    engine, account = exchange.engine, exchange.account(call.account_id)
    pnl = initial = maintenance = orders = 0
    for symbol in listed(call):
        rules = engine.rules[symbol]
        orders += engine.order_margin_atoms(call.account_id, symbol)
        position = account.positions.get(symbol)
        if position is None or not position.lots:
            continue
        mark = exchange.mark(symbol, now_ms)
        pnl += position.pnl_atoms(mark, rules)
        initial += -(-position.notional_atoms(mark, rules) // position.leverage)
        maintenance += position.maintenance_atoms(mark, rules, engine.brackets[symbol])
    return {
        "wallet": account.wallet_atoms,
        "cross": account.wallet_atoms - account.margins_atoms,
        "available": max(0, engine.available_atoms(call.account_id)),
        "pnl": pnl,
        "initial": initial,
        "orders": orders,
        "maintenance": maintenance,
        "updated_ms": exchange.touched_ms(call.account_id),
    }


def _balances(call: Call) -> list[dict[str, Any]]:
    t = _totals(call)
    return [
        {
            "accountAlias": "paper",
            "asset": desk(call).quote,
            "balance": money(t["wallet"]),
            "crossWalletBalance": money(t["cross"]),
            "crossUnPnl": money(0),
            "availableBalance": money(t["available"]),
            "maxWithdrawAmount": money(t["available"]),
            "marginAvailable": True,
            "updateTime": t["updated_ms"],
        }
    ]


for _version in ("v2", "v3"):
    futures_endpoint("GET", f"/fapi/{_version}/balance", _USER, weight=5)(_balances)


def _account(call: Call) -> dict[str, Any]:
    exchange, t = desk(call), _totals(call)
    shared = {
        "initialMargin": money(t["initial"] + t["orders"]),
        "maintMargin": money(t["maintenance"]),
        "walletBalance": money(t["wallet"]),
        "unrealizedProfit": money(t["pnl"]),
        "marginBalance": money(t["wallet"] + t["pnl"]),
        "positionInitialMargin": money(t["initial"]),
        "openOrderInitialMargin": money(t["orders"]),
        "crossWalletBalance": money(t["cross"]),
        "crossUnPnl": money(0),
    }
    totals = {f"total{name[0].upper()}{name[1:]}": value for name, value in shared.items()}
    free = {"availableBalance": money(t["available"]), "maxWithdrawAmount": money(t["available"])}
    account = exchange.account(call.account_id)
    involved = [
        symbol
        for symbol in listed(call)
        if (symbol in account.positions and account.positions[symbol].lots)
        or exchange.engine.open_orders(call.account_id, symbol)
    ]
    return {
        **totals,
        **free,
        "assets": [{"asset": exchange.quote, **shared, **free, "updateTime": t["updated_ms"]}],
        "positions": [position_numbers(exchange, call.account_id, symbol, call.now_ms) for symbol in involved],
    }


futures_endpoint("GET", "/fapi/v3/account", _USER, weight=5)(_account)


@futures_endpoint("GET", "/fapi/v2/account", _USER, weight=5)
def account_v2(call: Call) -> dict[str, Any]:
    """The older shape: every symbol, with its leverage and entry price."""
    exchange, body = desk(call), _account(call)
    positions = []
    for symbol in listed(call):
        risk = position_risk(exchange, call.account_id, symbol, call.now_ms, version=2)
        numbers = position_numbers(exchange, call.account_id, symbol, call.now_ms)
        positions.append(
            {
                **numbers,
                "leverage": risk["leverage"],
                "isolated": True,
                "entryPrice": risk["entryPrice"],
                "breakEvenPrice": risk["breakEvenPrice"],
                "maxNotional": risk["maxNotionalValue"],
                "bidNotional": "0",
                "askNotional": "0",
            }
        )
    flags = {"feeTier": 0, "canTrade": True, "canDeposit": True, "canWithdraw": False, "multiAssetsMargin": False}
    return {**flags, "tradeGroupId": -1, "updateTime": 0, **body, "positions": positions}


# ------------------------------------------------------------------------------------------------------------- incomes
@futures_endpoint(
    "GET",
    "/fapi/v1/income",
    _USER,
    weight=30,
    symbol=p.symbol,
    incomeType=p.one(_INCOME_TYPES),
    startTime=p.moment,
    endTime=p.moment,
    page=p.number,
    limit=p.limit(1000),
)
def income(call: Call) -> list[dict[str, Any]]:
    """Movements of the wallet, oldest first; without times the newest."""
    q, exchange = call.params, desk(call)
    call.exchange.collect()
    found = [
        row
        for row in exchange.incomes.get(call.account_id, [])
        if ("symbol" not in q or row.symbol == q["symbol"])
        and ("incomeType" not in q or row.kind.value == q["incomeType"])
        and q.get("startTime", 0) <= row.time_ms <= q.get("endTime", row.time_ms)
    ]
    limit, page = q.get("limit", 100), max(1, q.get("page", 1))
    chosen = found[(page - 1) * limit : page * limit] if "startTime" in q or "page" in q else found[-limit:]
    return [income_view(row, exchange.quote) for row in chosen]


# ----------------------------------------------------------------------------------------------------------- transfers
def _transfer(call: Call, asset: str, to_futures: bool) -> dict[str, Any]:
    exchange, moved = desk(call), atoms(call.params["amount"])
    if asset != exchange.quote or moved <= 0:
        raise ApiError(-9000, "user have no available amount")
    spot = call.exchange.engine.book
    sign = 1 if to_futures else -1
    try:
        if to_futures:
            spot.require_free(call.account_id, asset, moved)
        exchange.deposit(call.account_id, sign * moved, call.now_ms)
    except Refusal as refused:
        if refused.reason in (RejectReason.INSUFFICIENT_BALANCE, RejectReason.INSUFFICIENT_MARGIN):
            raise ApiError(-5013, "Asset transfer failed: insufficient balance") from None
        raise
    spot.deposit(call.account_id, asset, -sign * moved)
    return {"tranId": exchange.engine.next_income_id - 1}


@endpoint(
    "POST",
    "/sapi/v1/futures/transfer",
    _USER,
    required=("asset", "amount", "type"),
    asset=p.symbol,
    amount=p.decimal,
    type=p.number,
)
def futures_transfer(call: Call) -> dict[str, Any]:
    if call.params["type"] not in (1, 2):
        raise missing("type")
    return _transfer(call, call.params["asset"], call.params["type"] == 1)


@endpoint(
    "POST",
    "/sapi/v1/asset/transfer",
    _USER,
    weight=900,
    required=("type", "asset", "amount"),
    type=p.one(("MAIN_UMFUTURE", "UMFUTURE_MAIN")),
    asset=p.symbol,
    amount=p.decimal,
)
def universal_transfer(call: Call) -> dict[str, Any]:
    return _transfer(call, call.params["asset"], call.params["type"] == "MAIN_UMFUTURE")
