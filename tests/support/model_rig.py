"""The ports of the model jobs over PostgreSQL and a directory, with bars that a test brings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path

from tradewind.adapters.alerts import OutboxAlerts
from tradewind.adapters.database import Database
from tradewind.adapters.market_store import PgMarketStore
from tradewind.adapters.metrics import NullMetrics
from tradewind.adapters.model_store import PgModelStore
from tradewind.adapters.signal_store import PgSignalStore
from tradewind.adapters.trading_store import PgTradingStore
from tradewind.backtest.instruments import inferred_instrument
from tradewind.core.params import StrategyParams
from tradewind.core.timeframes import from_ms
from tradewind.core.types import Bars, Instrument


class SteppedClock:
    """Stands where the test put it."""

    def __init__(self, at: datetime) -> None:
        self.at = at

    def now(self) -> datetime:
        return self.at


class ListedMarkets:
    """An exchange that lists the markets of the test's bars and answers nothing else."""

    def __init__(self, bars: Mapping[str, Bars], params: StrategyParams) -> None:
        self._listed = {symbol: inferred_instrument(series, params) for symbol, series in bars.items()}

    def instruments(self, symbols: Sequence[str]) -> dict[str, Instrument]:
        return {symbol: self._listed[symbol] for symbol in symbols if symbol in self._listed}


class ModelRig:
    """Satisfies `core.ports.Ports` for training, drift and regimes; the clock stands at the close of the last bar."""

    account = "models"
    max_capital_quote = None
    params_error = ""

    def __init__(self, database_url: str, directory: Path, bars: Mapping[str, Bars]) -> None:
        self.params = StrategyParams(leader_symbol=next(iter(bars)))
        self.symbols = tuple(bars)
        self.database = Database(database_url)
        last_ms = max(int(series.open_time_ms[-1]) for series in bars.values())
        self.clock = self.wall = SteppedClock(from_ms(last_ms) + timedelta(minutes=15))
        self.metrics = NullMetrics()
        self.alerts = OutboxAlerts(self.database, self.account)
        self.market_data = ListedMarkets(bars, self.params)
        self.market_store = PgMarketStore(self.database)
        self.state_store = PgSignalStore(self.database)
        self.trading_store = PgTradingStore(self.database, self.account, self.params.strategy_version)
        self.model_store = PgModelStore(self.database, directory.as_uri())
        self.market_store.insert_candles(list(bars.values()))

    def close(self) -> None:
        self.database.close()
