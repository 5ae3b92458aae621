"""The two markets that faults strike in: how a rig trades there, and what the exchange itself says of the account."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, ClassVar

from redis import Redis

from tests.support.futures_rig import FuturesRig
from tests.support.paper_server import PaperServerProcess
from tests.support.trading_rig import Rig
from tradewind.adapters.ccxt_client import CcxtClient, ClientConfig
from tradewind.adapters.ccxt_exchange import CcxtMarketData
from tradewind.adapters.ccxt_futures import CcxtFuturesTrading
from tradewind.adapters.ccxt_futures_client import CcxtFuturesClient
from tradewind.adapters.ccxt_trading import CcxtTrading
from tradewind.core.orders import is_ours
from tradewind.core.types import Intent, Side
from tradewind.paper.admin import PaperAccount

SYMBOLS = ("BTC/USDT", "ETH/USDT", "BNB/USDT")
# Shorter than the paper exchange hangs, so that an answer that hangs is an answer that never comes.
CALL_TIMEOUT_S = 1.0
_FAR = Decimal("0.05")
_OPEN = ("NEW", "PARTIALLY_FILLED", "PENDING_NEW")
_ANY_STATUS = (
    "NEW",
    "PARTIALLY_FILLED",
    "PENDING_NEW",
    "FILLED",
    "CANCELED",
    "EXPIRED",
    "EXPIRED_IN_MATCH",
    "REJECTED",
)
# What a futures wallet earns or pays by trading; everything else that moves it is a transfer.
RESULTS = (
    "REALIZED_PNL", "COMMISSION", "FUNDING_FEE", "INSURANCE_CLEAR", "REFERRAL_KICKBACK", "COMMISSION_REBATE",
    "API_REBATE", "FEE_RETURN", "POSITION_LIMIT_INCREASE_FEE", "DELIVERED_SETTELMENT", "BFUSD_REWARD",
)  # fmt: skip
_ZERO = Decimal(0)


@dataclass(frozen=True)
class Placed:
    """An order as the exchange holds it; `opens` says that it opens or enlarges the position."""

    client_id: str
    opens: bool
    executed: Decimal
    at_ms: int


@dataclass(frozen=True)
class Trade:
    """One trade of ours, as the exchange tells it."""

    is_buy: bool
    quantity: Decimal
    quote_quantity: Decimal
    fee: Decimal
    fee_asset: str

    def base(self, asset: str) -> Decimal:
        """What the position gained of its base: a purchase brings what its fee leaves, a sale takes what it sells."""
        if not self.is_buy:
            return -self.quantity
        return self.quantity - (self.fee if self.fee_asset == asset else _ZERO)


class SpotMarket:
    """Spot: long alone, order lists, and coins that were there before the system's first start."""

    symbol: ClassVar[str] = "BTC/USDT"
    path: ClassVar[str] = "/api/v3/*"
    entry_path: ClassVar[str] = "/api/v3/order*"
    info_path: ClassVar[str] = "/api/v3/exchangeInfo"
    # Whoever sells too much sells from this.
    held_before: ClassVar[Mapping[str, str]] = {"USDT": "10000", "BTC": "0.5", "ETH": "2", "BNB": "5"}
    fees_in_bnb: ClassVar[bool] = False
    # (ticks, steps) of a coarser grid; what MARKET_LOT_SIZE may become; what a person trades.
    coarser_grids: ClassVar[tuple[Sequence[str], Sequence[str]]] = (("0.1", "1", "10"), ("0.0001", "0.001"))
    market_lots: ClassVar[Sequence[str]] = ("0.012", "0.02")
    hand: ClassVar[tuple[str, str]] = ("BTCUSDT", "0.1")
    side: ClassVar[Side] = Side.LONG

    @property
    def base(self) -> str:
        return self.symbol.split("/")[0]

    @property
    def sign(self) -> int:
        return 1 if self.side is Side.LONG else -1

    def account(self, exchange: PaperServerProcess) -> PaperAccount:
        found = exchange.create_account(**self.held_before)
        if self.fees_in_bnb:
            exchange.admin.pay_fees_in_bnb(found)
        return found

    def transfers(self, sign: int) -> list[tuple[str, Decimal]]:
        """(asset, amount) that may come, or that a person may take of their own."""
        if sign > 0:
            return [("USDT", Decimal(40_000)), ("USDT", Decimal("12.34")), (self.base, Decimal("0.25"))]
        return [("USDT", Decimal(6000)), ("USDT", Decimal("0.5")), (self.base, Decimal("0.25")), ("ETH", Decimal(2))]

    def observer(self, exchange: PaperServerProcess, ledger_url: str, account: PaperAccount) -> Rig:
        return Rig(exchange, ledger_url, account, symbols=SYMBOLS)

    def wire(self, rig: Rig, url: str, redis_url: str, account: PaperAccount) -> None:
        """Clients as the running system has them: a shared limit, and calls that time out."""
        rig.client = CcxtClient(self._config(url, account), Redis.from_url(redis_url))
        rig.exchange = CcxtTrading(rig.client, rig.account)
        rig.market_data = CcxtMarketData(rig.client)

    def _config(self, url: str, account: PaperAccount, **options: Any) -> ClientConfig:
        return ClientConfig(
            base_url=url,
            api_key=account.api_key,
            api_secret=account.api_secret,
            timeout_s=CALL_TIMEOUT_S,
            weight_per_minute=1e6,
            symbols=SYMBOLS,
            **options,
        )

    def decide(self, rig: Any) -> Intent:
        decided: Intent = rig.decide(self.symbol, two_lots=True, stop_frac=_FAR, target_frac=_FAR)
        return decided

    # ---------------------------------------------------------------------------------------------- the exchange's word
    def trades(self, truth: Any) -> list[Trade]:
        """Every trade of ours in the symbol, oldest first."""
        asked = {"symbol": truth.client.market_id(self.symbol), "limit": 1000}
        ours = {o["orderId"] for o in truth.client.read("private_get_allorders", asked) if is_ours(o["clientOrderId"])}
        rows = truth.client.read("private_get_mytrades", asked)
        return [
            Trade(
                row["isBuyer"] in (True, "true"), Decimal(row["qty"]), Decimal(row["quoteQty"]),
                Decimal(row["commission"]), row["commissionAsset"],
            )
            for row in rows
            if row["orderId"] in ours
        ]  # fmt: skip

    def held(self, truth: Any) -> Decimal:
        """What the trade holds, by its own trades; below zero where too much was sold."""
        return sum((trade.base(self.base) for trade in self.trades(truth)), _ZERO)

    def result_quote(self, truth: Any, mark: Decimal) -> tuple[Decimal, dict[str, Decimal]]:
        """What the trade has brought, what it holds at this mark, and the fees it paid in other assets."""
        quote, third = self.symbol.split("/")[1], dict[str, Decimal]()
        result = self.held(truth) * mark
        for trade in self.trades(truth):
            result += trade.quote_quantity * (-1 if trade.is_buy else 1)
            if trade.fee_asset == quote:
                result -= trade.fee
            elif trade.fee_asset != self.base or not trade.is_buy:
                third[trade.fee_asset] = third.get(trade.fee_asset, _ZERO) + trade.fee
        return result, third

    def guarded(self, truth: Any) -> Decimal:
        """The quantity that stops rest for."""
        return sum(self.stops(truth), _ZERO)

    def stops(self, truth: Any) -> list[Decimal]:
        """The quantities of the stops that rest."""
        stops = [order for order in self._orders(truth, ["NEW"]) if order["type"] == "STOP_LOSS"]
        return [Decimal(order["origQty"]) - Decimal(order["executedQty"]) for order in stops]

    def resting(self, truth: Any) -> list[Any]:
        return self._orders(truth, _OPEN)

    def placed(self, truth: Any) -> list[Placed]:
        """Every order of ours that the account ever had here."""
        return [_placed(order, opening="BUY") for order in self._orders(truth, _ANY_STATUS)]

    def _orders(self, truth: Any, statuses: Iterable[str]) -> list[Any]:
        found = truth.client.read("private_get_allorders", {"symbol": truth.client.market_id(self.symbol)})
        return [o for o in found if o["status"] in statuses and is_ours(o["clientOrderId"])]


class BnbMarket(SpotMarket):
    """Trading the very coin that fees are paid in."""

    symbol = "BNB/USDT"
    fees_in_bnb = True
    coarser_grids = (("0.1", "1"), ("0.01", "0.1"))
    market_lots = ("1.2", "2")
    hand = ("BNBUSDT", "1")


class FuturesMarket(SpotMarket):
    """USDⓈ-M futures on one side: conditional orders apart from the book, and nothing held before but money."""

    path = "/fapi/*"
    entry_path = "/fapi/v1/order"
    info_path = "/fapi/v1/exchangeInfo"
    held_before: ClassVar[Mapping[str, str]] = {"USDT": "10000"}

    def __init__(self, side: Side) -> None:
        self.side = side  # type: ignore[misc]  # each instance trades one side

    def account(self, exchange: PaperServerProcess) -> PaperAccount:
        return exchange.admin.create_account({"USDT": "1000"}, futures_balances=dict(self.held_before))

    def transfers(self, sign: int) -> list[tuple[str, Decimal]]:
        amounts = (Decimal(40_000), Decimal("12.34")) if sign > 0 else (Decimal(6000), Decimal("0.5"))
        return [("USDT", amount) for amount in amounts]

    def observer(self, exchange: PaperServerProcess, ledger_url: str, account: PaperAccount) -> Rig:
        return FuturesRig(exchange, ledger_url, account, symbols=SYMBOLS)

    def wire(self, rig: Rig, url: str, redis_url: str, account: PaperAccount) -> None:
        config = self._config(url, account, market_type="usdm")
        client = CcxtFuturesClient(config, Redis.from_url(redis_url), rig.params.max_leverage)
        rig.client = client
        rig.exchange = CcxtFuturesTrading(client, rig.account)  # type: ignore[assignment]
        rig.market_data = CcxtMarketData(client)

    def decide(self, rig: Any) -> Intent:
        decided: Intent = rig.decide_side(self.side, self.symbol, two_lots=True, stop_frac=_FAR, target_frac=_FAR)
        return decided

    # ---------------------------------------------------------------------------------------------- the exchange's word
    def held(self, truth: Any) -> Decimal:
        quantity: Decimal = truth.position_quantity(self.symbol)
        return quantity if self.side is Side.LONG else -quantity

    def result_quote(self, truth: Any, mark: Decimal) -> tuple[Decimal, dict[str, Decimal]]:
        """What the wallet gained by results, and the open one at this mark."""
        rows = truth.client.read("fapiprivate_get_income", {"limit": 1000})
        gained = sum((Decimal(row["income"]) for row in rows if row["incomeType"] in RESULTS), _ZERO)
        risk = truth.client.read("fapiprivatev3_get_positionrisk", {"symbol": truth.client.market_id(self.symbol)})
        opened = sum((Decimal(row["positionAmt"]) * (mark - Decimal(row["entryPrice"])) for row in risk), _ZERO)
        return gained + opened, {}

    def stops(self, truth: Any) -> list[Decimal]:
        return [Decimal(order["quantity"]) for order in truth.waiting() if order["orderType"] == "STOP_MARKET"]

    def resting(self, truth: Any) -> list[Any]:
        return [*truth.client.read("fapiprivate_get_openorders"), *truth.waiting()]

    def placed(self, truth: Any) -> list[Placed]:
        market = {"symbol": truth.client.market_id(self.symbol)}
        opening = "BUY" if self.side is Side.LONG else "SELL"
        orders = truth.client.read("fapiprivate_get_allorders", market)
        waiting = truth.client.read("fapiprivate_get_allalgoorders", market)
        ours = [_placed(order, opening) for order in orders if is_ours(order["clientOrderId"])]
        return ours + [
            Placed(str(order["clientAlgoId"]), False, _ZERO, int(order["createTime"]))
            for order in waiting
            if not order["actualOrderId"]  # a triggered one is among the orders, under the same id
        ]


def _placed(order: Mapping[str, Any], opening: str) -> Placed:
    client_id = str(order["clientOrderId"])
    return Placed(client_id, order["side"] == opening, Decimal(order["executedQty"]), int(order["time"]))
