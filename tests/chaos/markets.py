"""The two markets that faults strike in: how a rig trades there, and what the exchange itself says of the account."""

from __future__ import annotations

from collections.abc import Mapping
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
from tradewind.core.types import Intent, Side
from tradewind.paper.admin import PaperAccount

SYMBOL = "BTC/USDT"
SYMBOLS = (SYMBOL, "ETH/USDT")
# Shorter than the paper exchange hangs, so that an answer that hangs is an answer that never comes.
CALL_TIMEOUT_S = 1.0
_FAR = Decimal("0.05")
_ANY_STATUS = ("NEW", "PARTIALLY_FILLED", "PENDING_NEW", "FILLED", "CANCELED", "EXPIRED", "REJECTED")
_ZERO = Decimal(0)


@dataclass(frozen=True)
class Placed:
    """An order as the exchange holds it; `opens` says that it opens or enlarges the position."""

    client_id: str
    opens: bool
    executed: Decimal
    at_ms: int


class SpotMarket:
    """Spot: long alone, order lists, and coins that were there before the system's first start."""

    path: ClassVar[str] = "/api/v3/*"
    entry_path: ClassVar[str] = "/api/v3/order*"
    # Whoever sells too much sells from this.
    held_before: ClassVar[Mapping[str, str]] = {"USDT": "10000", "BTC": "0.5", "ETH": "2"}
    side: ClassVar[Side] = Side.LONG

    def account(self, exchange: PaperServerProcess) -> PaperAccount:
        return exchange.create_account(**self.held_before)

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
        decided: Intent = rig.decide(two_lots=True, stop_frac=_FAR, target_frac=_FAR)
        return decided

    # ---------------------------------------------------------------------------------------------- the exchange's word
    def held(self, truth: Any) -> Decimal:
        """What the trade holds, over what was there before; below zero where too much was sold."""
        base = SYMBOL.split("/")[0]
        held: Decimal = truth.holds(base) - Decimal(self.held_before[base])
        return held

    def guarded(self, truth: Any) -> Decimal:
        """The quantity that stops rest for."""
        stops = [order for order in truth.exchange_orders(["NEW"]) if order["type"] == "STOP_LOSS"]
        return sum((Decimal(order["origQty"]) - Decimal(order["executedQty"]) for order in stops), _ZERO)

    def resting(self, truth: Any) -> list[Any]:
        found: list[Any] = truth.exchange_orders()
        return found

    def placed(self, truth: Any) -> list[Placed]:
        """Every order that the account ever had here."""
        return [_placed(order, opening="BUY") for order in truth.exchange_orders(_ANY_STATUS)]


class FuturesMarket(SpotMarket):
    """USDⓈ-M futures on one side: conditional orders apart from the book, and nothing held before but money."""

    path = "/fapi/*"
    entry_path = "/fapi/v1/order"
    held_before: ClassVar[Mapping[str, str]] = {"USDT": "10000"}

    def __init__(self, side: Side) -> None:
        self.side = side  # type: ignore[misc]  # each instance trades one side

    def account(self, exchange: PaperServerProcess) -> PaperAccount:
        return exchange.admin.create_account({"USDT": "1000"}, futures_balances=dict(self.held_before))

    def observer(self, exchange: PaperServerProcess, ledger_url: str, account: PaperAccount) -> Rig:
        return FuturesRig(exchange, ledger_url, account, symbols=SYMBOLS)

    def wire(self, rig: Rig, url: str, redis_url: str, account: PaperAccount) -> None:
        config = self._config(url, account, market_type="usdm")
        client = CcxtFuturesClient(config, Redis.from_url(redis_url), rig.params.max_leverage)
        rig.client = client
        rig.exchange = CcxtFuturesTrading(client, rig.account)  # type: ignore[assignment]
        rig.market_data = CcxtMarketData(client)

    def decide(self, rig: Any) -> Intent:
        decided: Intent = rig.decide_side(self.side, two_lots=True, stop_frac=_FAR, target_frac=_FAR)
        return decided

    def held(self, truth: Any) -> Decimal:
        quantity: Decimal = truth.position_quantity(SYMBOL)
        return quantity if self.side is Side.LONG else -quantity

    def guarded(self, truth: Any) -> Decimal:
        stops = [order for order in truth.waiting() if order["orderType"] == "STOP_MARKET"]
        return sum((Decimal(order["quantity"]) for order in stops), _ZERO)

    def resting(self, truth: Any) -> list[Any]:
        return [*truth.client.read("fapiprivate_get_openorders"), *truth.waiting()]

    def placed(self, truth: Any) -> list[Placed]:
        market = {"symbol": truth.client.market_id(SYMBOL)}
        opening = "BUY" if self.side is Side.LONG else "SELL"
        orders = truth.client.read("fapiprivate_get_allorders", market)
        waiting = truth.client.read("fapiprivate_get_allalgoorders", market)
        return [_placed(order, opening) for order in orders] + [
            Placed(str(order["clientAlgoId"]), False, _ZERO, int(order["createTime"])) for order in waiting
        ]


def _placed(order: Mapping[str, Any], opening: str) -> Placed:
    client_id = str(order["clientOrderId"])
    return Placed(client_id, order["side"] == opening, Decimal(order["executedQty"]), int(order["time"]))
