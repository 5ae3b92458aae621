"""The real wiring of one demo deployment: fresh database, Valkey and a paper exchange, its market stepped by hand."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from tradewind.adapters.ccxt_client import CcxtClient, ClientConfig
from tradewind.adapters.clock import PaperClock
from tradewind.adapters.migrations import migrate
from tradewind.core.timeframes import timeframe_ms, to_ms
from tradewind.core.types import Bars
from tradewind.settings import load_settings
from tradewind.wiring import Wiring

from .paper_server import PaperServerProcess

STEP = timeframe_ms("15m")
HOUR = timeframe_ms("1h")
DAY = timeframe_ms("1d")
NOON = datetime(2024, 3, 5, 12, tzinfo=UTC)
NOON_MS = to_ms(NOON)


class CountingMetrics:
    """Remembers what was counted, by metric name and symbol."""

    def __init__(self) -> None:
        self.counts: dict[tuple[str, str], int] = {}

    def count(self, name: str, value: int = 1, **tags: str) -> None:
        key = (name, tags.get("symbol", ""))
        self.counts[key] = self.counts.get(key, 0) + value

    def gauge(self, name: str, value: float, **tags: str) -> None: ...
    def timing_ms(self, name: str, value_ms: float, **tags: str) -> None: ...


class MarketRig:
    """What a market job needs, and what a test does to it."""

    def __init__(
        self,
        server: PaperServerProcess,
        database_url: str,
        cache_url: str,
        home: Path,
        symbols: tuple[str, ...] = ("BTC/USDT", "ETH/USDT"),
    ) -> None:
        self.server = server
        settings = load_settings(
            mode="demo",
            home_dir=home,
            symbols=symbols,
            database_url=database_url,
            cache_url=cache_url,
            exchange_url=server.url,
            exchange_admin_token=server.token,
        )
        migrate(database_url, settings.identity)
        self.ports = Wiring(settings)
        self.metrics = CountingMetrics()
        self.ports.__dict__["metrics"] = self.metrics
        self.urls: list[str] = []
        exchange = self.ports.client.exchange
        fetch = exchange.fetch

        def recorded(url: str, *rest: object) -> object:
            self.urls.append(url)
            return fetch(url, *rest)

        exchange.fetch = recorded
        self.set_market(NOON)

    def set_market(self, moment: datetime) -> None:
        """Stop the market's clock at a moment."""
        self.server.admin.set_clock(to_ms(moment))
        clock = self.ports.clock
        assert isinstance(clock, PaperClock)
        clock.forget()

    @property
    def kline_calls(self) -> list[str]:
        """The candle requests since the last look."""
        found = [url for url in self.urls if "/klines" in url]
        self.urls.clear()
        return found

    def stored(self, symbol: str, timeframe: str = "15m") -> Bars:
        return self.ports.market_store.read_bars([symbol], timeframe, 0, NOON_MS * 2)[symbol]

    def truth(self, symbol: str, timeframe: str, start_ms: int, end_ms: int) -> Bars:
        """What the exchange says, through another client."""
        from tradewind.adapters.ccxt_exchange import CcxtMarketData

        return CcxtMarketData(CcxtClient(ClientConfig(base_url=self.server.url))).candles(
            symbol, timeframe, start_ms, end_ms
        )

    def close(self) -> None:
        self.server.admin.clear_faults()
        self.ports.close()
