"""The ports of a job on the futures side of a paper exchange, with real parts throughout."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

from tests.support.paper_server import PaperServerProcess
from tests.support.trading_rig import Rig
from tradewind.adapters.ccxt_client import ClientConfig
from tradewind.adapters.ccxt_exchange import CcxtMarketData
from tradewind.adapters.ccxt_futures import CcxtFuturesTrading
from tradewind.adapters.ccxt_futures_client import CcxtFuturesClient
from tradewind.core.brackets import split_lots
from tradewind.core.orders import intent_id
from tradewind.core.positions import round_to_tick, sign_of
from tradewind.core.types import Decision, Intent, Outcome, Prediction, RegimeFamily, Side
from tradewind.paper.admin import PaperAccount


class FuturesRig(Rig):
    """A rig whose orders go to /fapi."""

    def __init__(
        self, server: PaperServerProcess, database_url: str, paper_account: PaperAccount, **options: Any
    ) -> None:
        timeout_s = options.pop("timeout_s", 10.0)
        super().__init__(server, database_url, paper_account, **options)
        self.client = CcxtFuturesClient(
            ClientConfig(
                market_type="usdm",
                base_url=server.url,
                api_key=paper_account.api_key,
                api_secret=paper_account.api_secret,
                timeout_s=timeout_s,
                weight_per_minute=0.0,
                symbols=self.symbols,
            ),
            leverage=self.params.max_leverage,
        )
        self.market_data = CcxtMarketData(self.client)
        self.exchange = CcxtFuturesTrading(self.client, self.account)  # type: ignore[assignment]

    def decide_side(
        self,
        side: Side,
        symbol: str = "BTC/USDT",
        *,
        notional: Decimal = Decimal(2000),
        stop_frac: Decimal = Decimal("0.02"),
        target_frac: Decimal = Decimal("0.04"),
        two_lots: bool = False,
    ) -> Intent:
        """Commit the decision to enter on a side at the market; stop and target lie these fractions from the price."""
        bar, sign = self.bar(), sign_of(side)
        book = self.exchange.book_tops([symbol])[symbol]
        instrument = self.exchange.instruments([symbol])[symbol]
        reference = book.ask if side is Side.LONG else book.bid

        def at(frac: Decimal) -> Decimal:
            return round_to_tick(reference * (1 + sign * frac), instrument.tick_size, up=False)

        limit, stop, target = at(Decimal("0.002")), at(-stop_frac), at(target_frac)
        quantity = notional / limit // instrument.step_size * instrument.step_size
        geometry = self.params.trending
        lots = split_lots(quantity, side, reference, limit, stop, geometry, self.params, instrument)
        if not two_lots or len(lots) == 1:
            lots = (replace(lots[-1], lot=0, quantity=quantity, target_price=target),)
        version = self.params.strategy_version
        intent = Intent(
            intent_id=intent_id(self.account, version, symbol, bar),
            account=self.account,
            strategy_version=version,
            symbol=symbol,
            side=side,
            bar=bar,
            entry_limit_price=limit,
            stop_price=stop,
            lots=lots,
            atr_quote=float(abs(reference - stop) / Decimal("2.5")),
            risk_quote=quantity * abs(limit - stop),
            notional_quote=quantity * limit,
            expected_r=0.5,
            expires_at=self.clock.now() + timedelta(minutes=3),
        )
        prediction = Prediction(symbol, bar, "rule", RegimeFamily.TRENDING, 0.4, 0.4, 0.2, 0.5, 0.5, "00" * 32)
        decision = Decision(self.account, version, symbol, bar, Outcome.INTENT, "", (), prediction, None, None, intent)
        self.trading_store.insert_decisions([decision])
        return intent

    # ---------------------------------------------------------------------------------------------------- the exchange
    def waiting(self) -> list[Any]:
        """The account's conditional orders, as the exchange itself holds them."""
        found: list[Any] = self.client.read("fapiprivate_get_openalgoorders")
        return found

    def position_quantity(self, symbol: str = "BTC/USDT") -> Decimal:
        """The signed quantity that the exchange says is held."""
        rows = self.client.read("fapiprivatev3_get_positionrisk", {"symbol": self.client.market_id(symbol)})
        return sum((Decimal(row["positionAmt"]) for row in rows), Decimal(0))

    def wallet(self) -> Decimal:
        (row,) = self.client.read("fapiprivatev3_get_balance")
        return Decimal(row["balance"])
