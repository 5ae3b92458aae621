"""Futures endpoints about positions and how they are held: risk, leverage, margin, modes, fees."""

from __future__ import annotations

from typing import Any, Final

from tradewind.core.matching_rules import atoms
from tradewind.core.matching_types import Refusal
from tradewind.paper import params as p
from tradewind.paper.dialect import ApiError
from tradewind.paper.endpoints import Call, Security
from tradewind.paper.futures_dialect import desk, futures_endpoint, futures_rules, listed
from tradewind.paper.futures_views import position_risk

_USER: Final = Security.USER_DATA
_TRADE: Final = Security.TRADE


# ----------------------------------------------------------------------------------------------------------- positions
@futures_endpoint("GET", "/fapi/v3/positionRisk", _USER, weight=5, symbol=p.symbol)
def position_risk_v3(call: Call) -> list[dict[str, Any]]:
    """Only symbols with a position or an open order, as documented."""
    exchange = desk(call)
    account = exchange.account(call.account_id)
    symbols = [futures_rules(call, call.params["symbol"]).symbol] if "symbol" in call.params else listed(call)
    return [
        position_risk(exchange, call.account_id, symbol, call.now_ms, version=3)
        for symbol in symbols
        if (symbol in account.positions and account.positions[symbol].lots)
        or exchange.engine.open_orders(call.account_id, symbol)
    ]


@futures_endpoint("GET", "/fapi/v2/positionRisk", _USER, weight=5, symbol=p.symbol)
def position_risk_v2(call: Call) -> list[dict[str, Any]]:
    exchange = desk(call)
    symbols = [futures_rules(call, call.params["symbol"]).symbol] if "symbol" in call.params else listed(call)
    return [position_risk(exchange, call.account_id, symbol, call.now_ms, version=2) for symbol in symbols]


@futures_endpoint(
    "POST", "/fapi/v1/leverage", _TRADE, required=("symbol", "leverage"), symbol=p.symbol, leverage=p.number
)
def set_leverage(call: Call) -> dict[str, Any]:
    q, exchange = call.params, desk(call)
    rules, leverage = futures_rules(call, q["symbol"]), q["leverage"]
    brackets = exchange.brackets[rules.symbol]
    if not 1 <= leverage <= brackets[0].leverage:
        raise ApiError(-4028, f"Leverage {leverage} is not valid")
    account = exchange.account(call.account_id)
    exchange.refresh(rules.symbol, call.now_ms)
    try:
        exchange.engine.set_leverage(call.account_id, rules.symbol, leverage)
    except Refusal:
        if leverage < account.position(rules.symbol).leverage:
            raise ApiError(
                -4161, "Leverage reduction is not supported in Isolated Margin Mode with open positions."
            ) from None
        raise
    within = [number for number, b in enumerate(brackets) if b.leverage >= leverage]
    above = brackets[within[-1] + 1].notional_floor if within[-1] + 1 < len(brackets) else rules.max_notional * 100
    return {"leverage": leverage, "maxNotionalValue": f"{above:f}", "symbol": rules.symbol}


@futures_endpoint(
    "POST",
    "/fapi/v1/marginType",
    _TRADE,
    required=("symbol", "marginType"),
    symbol=p.symbol,
    marginType=p.one(("ISOLATED", "CROSSED"), -4049, "Invalid margin type."),
)
def set_margin_type(call: Call) -> dict[str, Any]:
    """Margin is isolated here, always: what is asked for is so already, or is not to be had."""
    futures_rules(call, call.params["symbol"])
    if call.params["marginType"] == "ISOLATED":
        raise ApiError(-4046, "No need to change margin type.")
    raise ApiError(-4047, "Margin type cannot be changed: this exchange knows isolated margin only.")


@futures_endpoint(
    "POST",
    "/fapi/v1/positionMargin",
    _TRADE,
    required=("symbol", "amount", "type"),
    symbol=p.symbol,
    positionSide=p.one(("BOTH",), -4061, "Order's position side does not match user's setting."),
    amount=p.decimal,
    type=p.number,
)
def move_margin(call: Call) -> dict[str, Any]:
    q = call.params
    rules = futures_rules(call, q["symbol"])
    if q["type"] not in (1, 2):
        raise ApiError(-1130, "Data sent for parameter 'type' is not valid.")
    desk(call).account(call.account_id)
    desk(call).refresh(rules.symbol, call.now_ms)
    sign = 1 if q["type"] == 1 else -1
    desk(call).engine.move_margin(call.account_id, rules.symbol, sign * atoms(q["amount"]))
    return {"amount": float(q["amount"]), "code": 200, "msg": "Successfully modify position margin.", "type": q["type"]}


@futures_endpoint("GET", "/fapi/v1/positionSide/dual", _USER, weight=30)
def position_side(_: Call) -> dict[str, Any]:
    return {"dualSidePosition": False}


@futures_endpoint(
    "POST", "/fapi/v1/positionSide/dual", _TRADE, required=("dualSidePosition",), dualSidePosition=p.boolean
)
def set_position_side(call: Call) -> dict[str, Any]:
    """One-way mode only."""
    if not call.params["dualSidePosition"]:
        raise ApiError(-4059, "No need to change position side.")
    raise ApiError(-4060, "Invalid position side: this exchange knows the one-way mode only.")


@futures_endpoint("GET", "/fapi/v1/multiAssetsMargin", _USER, weight=30)
def multi_assets(_: Call) -> dict[str, Any]:
    return {"multiAssetsMargin": False}


@futures_endpoint("GET", "/fapi/v1/accountConfig", _USER, weight=5)
def account_config(_: Call) -> dict[str, Any]:
    return {
        "feeTier": 0,
        "canTrade": True,
        "canDeposit": True,
        "canWithdraw": False,
        "dualSidePosition": False,
        "updateTime": 0,
        "multiAssetsMargin": False,
        "tradeGroupId": -1,
    }


@futures_endpoint("GET", "/fapi/v1/symbolConfig", _USER, weight=5, symbol=p.symbol)
def symbol_config(call: Call) -> list[dict[str, Any]]:
    exchange = desk(call)
    symbols = [futures_rules(call, call.params["symbol"]).symbol] if "symbol" in call.params else listed(call)
    risks = [position_risk(exchange, call.account_id, symbol, call.now_ms, version=2) for symbol in symbols]
    return [
        {
            "symbol": risk["symbol"],
            "marginType": "ISOLATED",
            "isAutoAddMargin": False,
            "leverage": int(risk["leverage"]),
            "maxNotionalValue": risk["maxNotionalValue"],
        }
        for risk in risks
    ]


@futures_endpoint("GET", "/fapi/v1/leverageBracket", _USER, symbol=p.symbol)
def leverage_brackets(call: Call) -> Any:
    exchange = desk(call)

    def one(symbol: str) -> dict[str, Any]:
        found = exchange.brackets[symbol]
        caps = [b.notional_floor for b in found[1:]] + [found[-1].notional_floor * 10]
        return {
            "symbol": symbol,
            "notionalCoef": 1.0,
            "brackets": [
                {
                    "bracket": number + 1,
                    "initialLeverage": b.leverage,
                    "notionalCap": int(cap),
                    "notionalFloor": int(b.notional_floor),
                    "maintMarginRatio": float(b.rate),
                    "cum": float(b.amount),
                }
                for number, (b, cap) in enumerate(zip(found, caps, strict=True))
            ],
        }

    if "symbol" in call.params:
        return [one(futures_rules(call, call.params["symbol"]).symbol)]
    return [one(symbol) for symbol in listed(call)]


@futures_endpoint("GET", "/fapi/v1/commissionRate", _USER, weight=20, required=("symbol",), symbol=p.symbol)
def commission_rate(call: Call) -> dict[str, Any]:
    rules = futures_rules(call, call.params["symbol"])
    desk(call).account(call.account_id)
    fees = desk(call).engine.book.accounts[call.account_id]
    maker, taker = (f"{ppm / 1_000_000:.6f}" for ppm in fees.fees_ppm(rules.symbol))
    return {"symbol": rules.symbol, "makerCommissionRate": maker, "takerCommissionRate": taker}
