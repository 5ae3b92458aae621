"""Endpoints about fees, limits and the wallet: what clients ask when they start."""

from __future__ import annotations

from typing import Any

from tradewind.paper import params as p
from tradewind.paper.endpoints import Call, Security, endpoint
from tradewind.paper.rules_endpoints import chosen_symbols, rules_of, symbol_filters
from tradewind.paper.trade_endpoints import discount, rate
from tradewind.paper.views import text

_USER = Security.USER_DATA


# ---------------------------------------------------------------------------------------------------------------- fees
@endpoint("GET", "/api/v3/account/commission", _USER, weight=20, required=("symbol",), symbol=p.symbol)
def account_commission(call: Call) -> dict[str, Any]:
    rules = rules_of(call, call.params["symbol"])
    found = call.exchange.engine.book.accounts[call.account_id]
    none = {"maker": rate(0), "taker": rate(0), "buyer": rate(0), "seller": rate(0)}
    return {
        "symbol": rules.symbol,
        "standardCommission": {**none, "maker": rate(found.maker_fee_ppm), "taker": rate(found.taker_fee_ppm)},
        "specialCommission": none,
        "taxCommission": none,
        "discount": discount(),
    }


@endpoint("GET", "/api/v3/rateLimit/order", _USER, weight=40)
def order_rate_limits(call: Call) -> list[dict[str, Any]]:
    short, day = call.limiter.order_counts(call.account_id, call.wall_ms)
    limits = call.limiter.limits
    return [
        {"rateLimitType": "ORDERS", "interval": interval, "intervalNum": number, "limit": most, "count": count}
        for interval, number, most, count in (
            ("SECOND", 10, limits.orders_per_10s, short),
            ("DAY", 1, limits.orders_per_day, day),
        )
    ]


@endpoint("GET", "/api/v3/myFilters", _USER, weight=40, required=("symbol",), symbol=p.symbol)
def my_filters(call: Call) -> dict[str, Any]:
    rules = rules_of(call, call.params["symbol"])
    return {"exchangeFilters": [], "symbolFilters": symbol_filters(rules), "assetFilters": []}


# -------------------------------------------------------------------------------------------------------------- wallet
@endpoint("GET", "/sapi/v1/system/status")
def system_status(_: Call) -> dict[str, Any]:
    return {"status": 0, "msg": "normal"}


@endpoint("GET", "/sapi/v1/spot/delist-schedule", _USER, weight=100)
def delist_schedule(_: Call) -> list[dict[str, Any]]:
    """Nothing is announced here: an operator's `delist` acts at once."""
    return []


@endpoint("GET", "/sapi/v1/account/status", _USER)
def account_status(_: Call) -> dict[str, Any]:
    return {"data": "Normal"}


@endpoint("GET", "/sapi/v1/account/apiTradingStatus", _USER)
def api_trading_status(call: Call) -> dict[str, Any]:
    return {
        "data": {"isLocked": False, "plannedRecoverTime": 0, "triggerCondition": {}, "updateTime": call.now_ms},
    }


@endpoint("GET", "/sapi/v1/asset/tradeFee", _USER, symbol=p.symbol)
def trade_fee(call: Call) -> list[dict[str, Any]]:
    engine = call.exchange.engine
    symbols = chosen_symbols(call, required=False)
    found = engine.book.accounts[call.account_id]
    return [
        {
            "symbol": s,
            "makerCommission": f"{found.maker_fee_ppm / 1e6:g}",
            "takerCommission": f"{found.taker_fee_ppm / 1e6:g}",
        }
        for s in symbols
    ]


@endpoint("GET", "/sapi/v1/capital/config/getall", _USER, weight=10)
def all_coins(call: Call) -> list[dict[str, Any]]:
    """Assets with their networks; nothing can be deposited or withdrawn here."""
    return [
        {
            "coin": asset,
            "name": asset,
            "depositAllEnable": False,
            "withdrawAllEnable": False,
            "trading": True,
            "free": text(free),
            "locked": text(locked),
            "freeze": "0",
            "withdrawing": "0",
            "ipoing": "0",
            "ipoable": "0",
            "storage": "0",
            "isLegalMoney": False,
            "networkList": [],
        }
        for asset, (free, locked) in call.exchange.balances(call.account_id).items()
    ]


@endpoint("GET", "/sapi/v1/account/apiRestrictions", _USER)
def api_restrictions(call: Call) -> dict[str, Any]:
    assert call.key is not None
    return {
        "ipRestrict": False,
        "createTime": 0,
        "enableReading": True,
        "enableSpotAndMarginTrading": call.key.can_trade,
        "enableWithdrawals": False,
        "enableInternalTransfer": False,
        "permitsUniversalTransfer": False,
        "enableVanillaOptions": False,
        "enableMargin": False,
        "enableFutures": False,
        "enablePortfolioMarginTrading": False,
        "enableFixApiTrade": False,
        "enableFixReadOnly": False,
    }


_MAYBE_SIGNED: dict[str, p.Parser] = {
    "recvWindow": p.receive_window,
    "timestamp": p.moment,
    "signature": lambda _, text: text,
}


@endpoint("GET", "/sapi/v1/margin/allPairs", Security.KEYED, symbol=p.symbol, shared=_MAYBE_SIGNED)
@endpoint("GET", "/sapi/v1/margin/isolated/allPairs", Security.KEYED, weight=10, symbol=p.symbol, shared=_MAYBE_SIGNED)
def margin_pairs(_: Call) -> list[dict[str, Any]]:
    """No symbol can be traded on margin; clients ask for the list before they believe that."""
    return []


@endpoint(
    "GET",
    "/sapi/v1/capital/deposit/hisrec",
    _USER,
    coin=p.symbol,
    status=p.number,
    startTime=p.moment,
    endTime=p.moment,
    offset=p.number,
    limit=p.limit(1000),
    txId=lambda _, text: text,
    includeSource=p.boolean,
)
@endpoint(
    "GET",
    "/sapi/v1/capital/withdraw/history",
    _USER,
    weight=10,
    coin=p.symbol,
    withdrawOrderId=lambda _, text: text,
    status=p.number,
    startTime=p.moment,
    endTime=p.moment,
    offset=p.number,
    limit=p.limit(1000),
    idList=lambda _, text: text,
)
def no_transfers(_: Call) -> list[dict[str, Any]]:
    """Nothing was ever deposited or withdrawn: an account begins with what it was given."""
    return []


@endpoint("POST", "/sapi/v3/asset/getUserAsset", _USER, weight=5, asset=p.symbol, needBtcValuation=p.boolean)
def user_assets(call: Call) -> list[dict[str, Any]]:
    """What the account holds, without what it does not; nothing is valued in BTC."""
    wanted = call.params.get("asset")
    return [
        {
            "asset": asset,
            "free": text(free),
            "locked": text(locked),
            "freeze": "0",
            "withdrawing": "0",
            "ipoable": "0",
            "btcValuation": "0",
        }
        for asset, (free, locked) in call.exchange.balances(call.account_id).items()
        if (free or locked) and wanted in (None, asset)
    ]
