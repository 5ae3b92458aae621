"""Endpoints about fees, limits and the wallet: what clients ask when they start."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from tradewind.core.matching_rules import amount
from tradewind.paper import params as p
from tradewind.paper.endpoints import Call, Security, endpoint
from tradewind.paper.exchange import FEE_ASSET, Transfer
from tradewind.paper.rules_endpoints import chosen_symbols, rules_of, symbol_filters
from tradewind.paper.trade_endpoints import discount, rate
from tradewind.paper.views import text

_USER = Security.USER_DATA


# ---------------------------------------------------------------------------------------------------------------- fees
@endpoint("GET", "/api/v3/account/commission", _USER, weight=20, required=("symbol",), symbol=p.symbol)
def account_commission(call: Call) -> dict[str, Any]:
    rules = rules_of(call, call.params["symbol"])
    maker, taker = call.exchange.engine.book.accounts[call.account_id].fees_ppm(rules.symbol)
    none = {"maker": rate(0), "taker": rate(0), "buyer": rate(0), "seller": rate(0)}
    return {
        "symbol": rules.symbol,
        "standardCommission": {**none, "maker": rate(maker), "taker": rate(taker)},
        "specialCommission": none,
        "taxCommission": none,
        "discount": discount(call),
    }


def _burns(call: Call) -> dict[str, Any]:
    """Whether fees are paid in BNB, at a discount."""
    in_bnb = bool(call.exchange.engine.book.accounts[call.account_id].fee_asset)
    return {"spotBNBBurn": in_bnb, "interestBNBBurn": False}


@endpoint("GET", "/sapi/v1/bnbBurn", _USER)
def bnb_burn(call: Call) -> dict[str, Any]:
    return _burns(call)


@endpoint("POST", "/sapi/v1/bnbBurn", _USER, spotBNBBurn=p.boolean, interestBNBBurn=p.boolean)
def set_bnb_burn(call: Call) -> dict[str, Any]:
    if "spotBNBBurn" in call.params:
        call.exchange.accounts[call.account_id]["fee_asset"] = FEE_ASSET if call.params["spotBNBBurn"] else ""
        call.exchange.keep_account(call.account_id)
    return _burns(call)


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
    filters = symbol_filters(rules, call.exchange.engine.conditions.grid(rules.symbol))
    return {"exchangeFilters": [], "symbolFilters": filters, "assetFilters": []}


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
    found = call.exchange.engine.book.accounts[call.account_id]
    fees = {s: found.fees_ppm(s) for s in chosen_symbols(call, required=False)}
    return [
        {"symbol": s, "makerCommission": f"{maker / 1e6:g}", "takerCommission": f"{taker / 1e6:g}"}
        for s, (maker, taker) in fees.items()
    ]


@endpoint("GET", "/sapi/v1/capital/config/getall", _USER, weight=10)
def all_coins(call: Call) -> list[dict[str, Any]]:
    """Assets with their networks; only the operator deposits and withdraws here."""
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


def _moved(call: Call, sign: int) -> list[Transfer]:
    """The account's transfers of one direction that were asked for, newest first."""
    q = call.params
    found = [
        t
        for t in call.exchange.transfers
        if t.account_id == call.account_id
        and t.atoms * sign > 0
        and q.get("coin", t.asset) == t.asset
        and q.get("startTime", 0) <= t.time_ms <= q.get("endTime", t.time_ms)
    ][::-1]
    first = q.get("offset", 0)
    return found[first : first + q.get("limit", 1000)]


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
def deposits(call: Call) -> list[dict[str, Any]]:
    return [
        {
            "id": str(t.transfer_id),
            "amount": text(amount(t.atoms)),
            "coin": t.asset,
            "network": "PAPER",
            "status": 1,
            "address": "paper",
            "addressTag": "",
            "txId": f"paper-{t.transfer_id}",
            "insertTime": t.time_ms,
            "transferType": 0,
            "confirmTimes": "1/1",
            "unlockConfirm": 0,
            "walletType": 0,
        }
        for t in _moved(call, 1)
    ]


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
def withdrawals(call: Call) -> list[dict[str, Any]]:
    def moment(time_ms: int) -> str:
        return f"{datetime.fromtimestamp(time_ms // 1000, UTC):%Y-%m-%d %H:%M:%S}"

    return [
        {
            "id": str(t.transfer_id),
            "amount": text(amount(-t.atoms)),
            "transactionFee": "0",
            "coin": t.asset,
            "status": 6,
            "address": "paper",
            "txId": f"paper-{t.transfer_id}",
            "applyTime": moment(t.time_ms),
            "completeTime": moment(t.time_ms),
            "network": "PAPER",
            "transferType": 0,
            "confirmNo": 1,
            "walletType": 0,
        }
        for t in _moved(call, -1)
    ]


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
