"""The only place that builds adapters from settings.

`Wiring` satisfies `core.ports.Ports`: each adapter is made on first use, so that a task pays only for what it names.
Imports are inside the properties for the same reason: the status app never loads ccxt, a market task never models.
"""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from functools import cached_property
from typing import TYPE_CHECKING, Any

from .errors import BadInput, NotSupported
from .settings import STRATEGY_FILE, Settings

if TYPE_CHECKING:
    from redis import Redis

    from .adapters.alerts import OutboxAlerts
    from .adapters.ccxt_client import CcxtClient
    from .adapters.database import Database
    from .adapters.model_store import PgModelStore
    from .adapters.parity_store import PgParityStore
    from .adapters.signal_store import PgSignalStore
    from .adapters.study_store import PgStudyStore
    from .adapters.trading_store import PgTradingStore
    from .core.matching_book import MatchingSettings
    from .core.params import StrategyParams
    from .core.ports import (
        ArticleScorer,
        Clock,
        KnownEmpty,
        MarketData,
        MarketStore,
        Metrics,
        NewsFeeds,
        TradingExchange,
        Upkeep,
    )


class Wiring:
    """All adapters of one deployment, built lazily from its settings."""

    def __init__(self, settings: Settings, params: StrategyParams | None = None) -> None:
        self.settings = settings
        self._given_params = params

    @property
    def account(self) -> str:
        return self.settings.account_id

    @property
    def symbols(self) -> tuple[str, ...]:
        return self.settings.symbols

    @property
    def max_capital_quote(self) -> Decimal | None:
        return self.settings.max_capital_quote

    # ------------------------------------------------------------------------------------------------------ strategy
    @cached_property
    def params(self) -> StrategyParams:
        """The strategy's values, kept as they were first read.

        Where their file cannot be used: those that the account last decided by, or the shipped ones before its first
        decision. So a typo there never keeps a position from being managed or left; `params_error` blocks entries.
        """
        if self._given_params is not None:
            return self._given_params
        try:
            return self.params_in_file()
        except BadInput as error:
            from structlog import get_logger

            from .adapters.decision_store import last_params
            from .core.params import StrategyParams

            kept = last_params(self.database, self.account)
            words = "shipped ones" if kept is None else "ones of the last decision"
            get_logger(__name__).warning(f"{error}; the {words} are used, and entries wait")
            return kept or StrategyParams(leader_symbol=self.settings.default_leader)

    @property
    def params_error(self) -> str:
        """Why the file of the strategy's values cannot be used now, in one line; "" when it can."""
        if self._given_params is None:
            try:
                self.params_in_file()
            except BadInput as error:
                return str(error)
        return ""

    def params_in_file(self) -> StrategyParams:
        """The values in their file as it is now. Raises BadInput, in one line that says what to mend."""
        from .adapters.strategy_file import load_params

        return load_params(STRATEGY_FILE, self.settings.default_leader)

    # ------------------------------------------------------------------------------------------------------- servers
    @cached_property
    def database(self) -> Database:
        """Our own database, verified to belong to this deployment."""
        return self._verified()

    @cached_property
    def urgent_database(self) -> Database:
        """The same through connections of its own: who stops trading waits for nobody's query, nor long for a lock."""
        return self._verified(max_connections=8, lock_timeout_s=5.0)

    def _verified(self, **pool: Any) -> Database:
        from .adapters.database import Database
        from .adapters.migrations import verify_identity

        database = Database(self.settings.database_url.get_secret_value(), **pool)
        verify_identity(database, self.settings.identity)
        return database

    @cached_property
    def redis(self) -> Redis:
        from redis import Redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        # One more try heals a restarted server; the default's back-off would hold up each call for seconds.
        return Redis.from_url(
            self.settings.cache_url.get_secret_value(),
            socket_timeout=2.0,
            socket_connect_timeout=2.0,
            retry=Retry(NoBackoff(), 1),
        )

    @cached_property
    def clock(self) -> Clock:
        from .adapters.clock import PaperClock

        if self.settings.mode == "demo":
            return PaperClock(self.settings.exchange_url, self.settings.exchange_admin_token.get_secret_value())
        return self.wall

    @cached_property
    def wall(self) -> Clock:
        from .adapters.clock import WallClock

        return WallClock()

    # -------------------------------------------------------------------------------------------------- observability
    @cached_property
    def metrics(self) -> Metrics:
        from .adapters.metrics import NullMetrics, StatsdMetrics

        if not self.settings.statsd_host:
            return NullMetrics()
        return StatsdMetrics(self.settings.statsd_host, self.settings.statsd_port)

    @cached_property
    def alerts(self) -> OutboxAlerts:
        from .adapters.alerts import OutboxAlerts

        return OutboxAlerts(self.database, self.account)

    # ---------------------------------------------------------------------------------------------------- market data
    @cached_property
    def client(self) -> CcxtClient:
        from .adapters.ccxt_client import client_from_settings, config_from_settings

        if self.settings.market_type == "usdm":
            from .adapters.ccxt_futures_client import CcxtFuturesClient

            if self.settings.exchange != "binance":
                raise NotSupported(f"futures are traded on binance alone, not on {self.settings.exchange}")
            return CcxtFuturesClient(config_from_settings(self.settings), self.redis, self.params.max_leverage)
        return client_from_settings(self.settings, self.redis)

    @cached_property
    def market_data(self) -> MarketData:
        from .adapters.ccxt_exchange import CcxtMarketData

        return CcxtMarketData(self.client, self.clock)

    @cached_property
    def market_store(self) -> MarketStore:
        from .adapters.market_store import PgMarketStore

        return PgMarketStore(self.database)

    @cached_property
    def known_empty(self) -> KnownEmpty:
        from .adapters.cache import RedisKnownEmpty

        return RedisKnownEmpty(self.redis, namespace=self.account)

    @cached_property
    def upkeep(self) -> Upkeep:
        from .adapters.upkeep_store import PgUpkeep

        return PgUpkeep(self.database, timedelta(days=self.settings.decisions_kept_days))

    @cached_property
    def state_store(self) -> PgSignalStore:
        from .adapters.signal_store import PgSignalStore

        return PgSignalStore(self.database, max_age_s=self.params.sentiment_max_age_s)

    # ----------------------------------------------------------------------------------------------------------- news
    @property
    def news_store(self) -> PgSignalStore:
        return self.state_store

    @cached_property
    def news_feeds(self) -> NewsFeeds:
        """The configured feeds; else the paper market's own synthetic one, or public ones for a real market."""
        from .adapters.news_feeds import PUBLIC_FEEDS, RssFeeds

        synthetic = (f"{self.settings.exchange_url.rstrip('/')}/__feed/rss",)
        return RssFeeds(self.settings.news_feeds or (synthetic if self.settings.mode == "demo" else PUBLIC_FEEDS))

    @cached_property
    def article_scorer(self) -> ArticleScorer:
        """Gemini with a key, the local word list without."""
        if not (key := self.settings.gemini_api_key.get_secret_value()):
            from .adapters.lexicon_scorer import LexiconScorer

            return LexiconScorer()
        from .adapters.gemini import GeminiScorer
        from .core.usage import TokenPrices

        settings = self.settings
        return GeminiScorer(
            key,
            settings.gemini_model,
            self.metrics,
            self.state_store,
            self.wall,
            daily_budget_usd=settings.gemini_daily_budget_usd,
            prices=TokenPrices(settings.gemini_prompt_usd_per_million, settings.gemini_answer_usd_per_million),
        )

    # -------------------------------------------------------------------------------------------------------- trading
    @cached_property
    def exchange(self) -> TradingExchange:
        from .adapters.ccxt_futures import CcxtFuturesTrading
        from .adapters.ccxt_futures_client import CcxtFuturesClient
        from .adapters.ccxt_trading import CcxtTrading

        name = self.settings.exchange
        if name in ("okx", "bybit", "bitget"):
            from .adapters.ccxt_bitget import CcxtBitgetTrading
            from .adapters.ccxt_bybit import CcxtBybitTrading
            from .adapters.ccxt_okx import CcxtOkxTrading

            adapters: dict[str, type[CcxtOkxTrading] | type[CcxtBybitTrading] | type[CcxtBitgetTrading]] = {
                "okx": CcxtOkxTrading,
                "bybit": CcxtBybitTrading,
                "bitget": CcxtBitgetTrading,
            }
            return adapters[name](self.client, self.account, self.trading_store.orders_by_exchange_id)
        if name != "binance":
            raise NotSupported(
                f"orders are not sent to {name}, which gives market data alone: set TRADEWIND_EXCHANGE to "
                "binance, okx, bybit or bitget to trade"
            )
        if isinstance(self.client, CcxtFuturesClient):
            return CcxtFuturesTrading(self.client, account=self.account)
        return CcxtTrading(self.client, account=self.account)

    @cached_property
    def trading_store(self) -> PgTradingStore:
        from .adapters.trading_store import PgTradingStore

        return PgTradingStore(self.database, account=self.account, strategy_version=self.params.strategy_version)

    @cached_property
    def model_store(self) -> PgModelStore:
        from .adapters.model_store import PgModelStore

        return PgModelStore(self.database, self.settings.model_url)

    @cached_property
    def parity_store(self) -> PgParityStore:
        from .adapters.parity_store import PgParityStore

        return PgParityStore(self.database, account=self.account, strategy_version=self.params.strategy_version)

    @cached_property
    def study_store(self) -> PgStudyStore:
        from .adapters.study_store import PgStudyStore

        return PgStudyStore(self.database)

    @property
    def matching(self) -> MatchingSettings | None:
        """How the market fills where it is simulated; None where a real exchange does."""
        from .core.matching_book import MatchingSettings

        return MatchingSettings() if self.settings.mode in ("demo", "paper") else None

    def close(self) -> None:
        """Give back what was opened: pools and sockets of those adapters that were used."""
        for name in ("database", "urgent_database"):
            if name in self.__dict__:
                self.__dict__[name].close()
        if "redis" in self.__dict__:
            self.redis.close()
