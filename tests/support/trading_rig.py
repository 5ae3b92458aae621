"""The ports of a job over real parts: PostgreSQL, ccxt, and a paper exchange whose market is stepped by hand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from tests.support.paper_server import PaperServerProcess
from tradewind.adapters.alerts import OutboxAlerts
from tradewind.adapters.ccxt_client import CcxtClient, ClientConfig
from tradewind.adapters.ccxt_exchange import CcxtMarketData
from tradewind.adapters.ccxt_trading import CcxtTrading
from tradewind.adapters.clock import PaperClock, WallClock
from tradewind.adapters.database import Database
from tradewind.adapters.market_store import PgMarketStore
from tradewind.adapters.metrics import NullMetrics
from tradewind.adapters.signal_store import PgSignalStore
from tradewind.adapters.trading_store import PgTradingStore
from tradewind.core.brackets import floor_to_step, split_lots
from tradewind.core.orders import intent_id
from tradewind.core.params import StrategyParams
from tradewind.core.timeframes import from_ms, last_closed_open_ms, to_ms
from tradewind.core.types import (
    Decision,
    Instrument,
    Intent,
    Outcome,
    Prediction,
    RegimeFamily,
    RegimeState,
    Side,
)
from tradewind.jobs.fetching import collected_symbols
from tradewind.jobs.market import check_quality
from tradewind.jobs.positions import manage_positions
from tradewind.jobs.safety import open_day, watch_risk_once
from tradewind.paper.admin import PaperAccount

SYMBOLS = ("BTC/USDT", "ETH/USDT")
STEP = timedelta(minutes=15)


class NoModel:
    """A model store without a champion."""

    def champion(self) -> None:
        return None


class RuleModel:
    """Predicts the same for every symbol: a champion whose every answer is an entry."""

    version = "rule"

    def __init__(self, trained_until: datetime) -> None:
        self.trained_until = trained_until

    def predict(
        self, rows: Mapping[str, tuple[datetime, Any]], regimes: Mapping[str, RegimeState]
    ) -> dict[str, Prediction]:
        return {
            symbol: Prediction(symbol, bar, self.version, regimes[symbol].family, 0.7, 0.1, 0.2, 0.5, -0.5, "00" * 32)
            for symbol, (bar, _) in rows.items()
        }


class RuleModels:
    def __init__(self, trained_until: datetime) -> None:
        self._model = RuleModel(trained_until)

    def champion(self) -> RuleModel:
        return self._model


class Rig:
    """Satisfies `core.ports.Ports`; each test has an account and a database of its own."""

    max_capital_quote: Decimal | None = None
    params_error = ""
    model_store: Any = NoModel()

    def __init__(
        self,
        server: PaperServerProcess,
        database_url: str,
        paper_account: PaperAccount,
        *,
        params: StrategyParams | None = None,
        symbols: tuple[str, ...] = SYMBOLS,
        timeout_s: float = 10.0,
    ) -> None:
        self.server = server
        self.admin = server.admin
        self.database_url = database_url
        self.paper_account = paper_account
        self.account = "rig"
        self.symbols = symbols
        self.params = params or StrategyParams()
        self.database = Database(database_url)
        self.clock = PaperClock(server.url, server.token, max_age_s=0.0)
        self.wall = WallClock()
        self.metrics = NullMetrics()
        self.alerts = OutboxAlerts(self.database, self.account)
        self.client = CcxtClient(
            ClientConfig(
                base_url=server.url,
                api_key=paper_account.api_key,
                api_secret=paper_account.api_secret,
                timeout_s=timeout_s,
                weight_per_minute=0.0,
                symbols=symbols,
            )
        )
        self.market_data = CcxtMarketData(self.client)
        self.exchange = CcxtTrading(self.client, self.account)
        self.market_store = PgMarketStore(self.database)
        self.state_store = PgSignalStore(self.database)
        self.trading_store = PgTradingStore(self.database, self.account, self.params.strategy_version)

    def close(self) -> None:
        self.database.close()

    # --------------------------------------------------------------------------------------------------------- market
    def bar(self) -> datetime:
        """The newest closed bar by the market's clock."""
        return from_ms(last_closed_open_ms(to_ms(self.clock.now()), "15m"))

    def collect(self, bars: int = 4) -> None:
        """Store the newest closed bars of every symbol that is collected, and judge them."""
        end = self.bar() + STEP
        series = [
            self.market_data.candles(symbol, "15m", to_ms(end - bars * STEP), to_ms(end))
            for symbol in collected_symbols(self)
        ]
        self.market_store.insert_candles(series)
        check_quality(self)

    def step(self, bars: int = 1) -> None:
        """Move the market on, bar by bar, each collected as it closes."""
        for _ in range(bars):
            self.admin.step(1)
            self.collect()

    def bid(self, symbol: str = "BTC/USDT") -> Decimal:
        return self.exchange.book_tops([symbol])[symbol].bid

    # -------------------------------------------------------------------------------------------------------- trading
    def make_ready(self) -> None:
        """What the running system has: a baseline, a clean reconciliation, a watch that is alive."""
        manage_positions(self)
        open_day(self)
        watch_risk_once(self)

    def decide(
        self,
        symbol: str = "BTC/USDT",
        *,
        notional: Decimal = Decimal(2000),
        stop_frac: Decimal = Decimal("0.01"),
        target_frac: Decimal = Decimal("0.02"),
        two_lots: bool = False,
        bar: datetime | None = None,
    ) -> Intent:
        """Commit the decision to enter at the market; its stop and target lie these fractions from the ask."""
        bar = bar or self.bar()
        book = self.exchange.book_tops([symbol])[symbol]
        instrument: Instrument = self.exchange.instruments([symbol])[symbol]
        tick = instrument.tick_size
        limit = floor_to_step(book.ask * Decimal("1.002"), tick)
        stop = floor_to_step(book.ask * (1 - stop_frac), tick)
        target = floor_to_step(book.ask * (1 + target_frac), tick)
        quantity = floor_to_step(notional / limit, instrument.step_size)
        geometry = self.params.trending
        lots = split_lots(quantity, Side.LONG, book.ask, limit, stop, geometry, self.params, instrument)
        if not two_lots or len(lots) == 1:
            lots = (replace(lots[-1], lot=0, quantity=quantity, target_price=target),)
        identity = intent_id(self.account, self.params.strategy_version, symbol, bar)
        intent = Intent(
            intent_id=identity,
            account=self.account,
            strategy_version=self.params.strategy_version,
            symbol=symbol,
            side=Side.LONG,
            bar=bar,
            entry_limit_price=limit,
            stop_price=stop,
            lots=lots,
            atr_quote=float((book.ask - stop) / Decimal("2.5")),
            risk_quote=quantity * (limit - stop),
            notional_quote=quantity * limit,
            expected_r=0.5,
            expires_at=self.clock.now() + timedelta(minutes=3),
        )
        prediction = Prediction(symbol, bar, "rule", RegimeFamily.TRENDING, 0.7, 0.1, 0.2, 0.5, -0.5, "00" * 32)
        decision = Decision(
            self.account,
            self.params.strategy_version,
            symbol,
            bar,
            Outcome.INTENT,
            "",
            (),
            prediction,
            None,
            None,
            intent,
        )
        self.trading_store.insert_decisions([decision])
        return intent

    # ---------------------------------------------------------------------------------------------------- the exchange
    def exchange_orders(self, statuses: Iterable[str] = ("NEW", "PARTIALLY_FILLED", "PENDING_NEW")) -> list[Any]:
        """The account's orders as the exchange itself holds them, in these statuses."""
        found: list[Any] = []
        for symbol in self.symbols:
            found += self.client.read("private_get_allorders", {"symbol": self.client.market_id(symbol)})
        wanted = set(statuses)
        return [order for order in found if order["status"] in wanted]

    def holds(self, asset: str) -> Decimal:
        balance = self.exchange.balances().get(asset)
        return balance.total if balance is not None else Decimal(0)

    def assert_agrees(self) -> None:
        """Ledger and exchange agree to the last digit, for every asset."""
        from tradewind.jobs.reconciling import asset_flows

        baseline = self.trading_store.baseline() or {}
        flows = asset_flows(self)
        for asset in {*baseline, *flows}:
            expected = baseline.get(asset, Decimal(0)) + flows.get(asset, Decimal(0))
            assert self.holds(asset) == expected, asset
