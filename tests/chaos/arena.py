"""Where the faults strike: a ledger's PostgreSQL, a Redis and a paper exchange that can each be restarted alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal

import redis

from tests.support.paper_server import PaperServerProcess
from tests.support.trading_rig import Rig
from tradewind.adapters.ccxt_client import CcxtClient, ClientConfig
from tradewind.adapters.ccxt_exchange import CcxtMarketData
from tradewind.adapters.ccxt_trading import CcxtTrading
from tradewind.adapters.trading_store import PgTradingStore
from tradewind.stack.postgres import EmbeddedPostgres

SYMBOL = "BTC/USDT"
# What the account holds before the system's first start: whoever sells too much sells from this.
HELD_BEFORE = {"USDT": "10000", "BTC": "0.5", "ETH": "2"}
# Shorter than the paper exchange hangs, so that an answer that hangs is an answer that never comes.
CALL_TIMEOUT_S = 1.0


@dataclass
class Arena:
    """Fresh accounts on one exchange and one ledger."""

    exchange: PaperServerProcess
    postgres: EmbeddedPostgres
    ledger_url: str
    redis_url: str
    opened: list[Rig] = field(default_factory=list)
    number: int = 0

    def new_account(self) -> tuple[Callable[[], Rig], Rig]:
        """A new account: how to build a rig for it in any process, and one that no rate limit keeps from looking."""
        self.number += 1
        name = f"chaos-{self.number}"
        account = self.exchange.create_account(**HELD_BEFORE)

        def build() -> Rig:
            rig = Rig(self.exchange, self.ledger_url, account, symbols=(SYMBOL, "ETH/USDT"))
            config = ClientConfig(
                base_url=self.exchange.url,
                api_key=account.api_key,
                api_secret=account.api_secret,
                timeout_s=CALL_TIMEOUT_S,
                weight_per_minute=1e6,
                symbols=rig.symbols,
            )
            rig.account = name
            rig.client = CcxtClient(config, redis.Redis.from_url(self.redis_url))
            rig.market_data = CcxtMarketData(rig.client)
            rig.exchange = CcxtTrading(rig.client, name)
            rig.trading_store = PgTradingStore(rig.database, name, rig.params.strategy_version)
            self.opened.append(rig)
            return rig

        observer = Rig(self.exchange, self.ledger_url, account)
        self.opened.append(observer)
        return build, observer

    def close(self) -> None:
        """End every connection that was opened since the last time."""
        for rig in self.opened:
            rig.database.close()
        self.opened.clear()

    # ------------------------------------------------------------------------------------------------------ accidents
    def restart_postgres(self) -> None:
        self.postgres.stop()
        self.postgres.start()

    def restart_exchange(self) -> None:
        self.exchange.kill()
        self.exchange.start()

    def flush_redis(self) -> None:
        with redis.Redis.from_url(self.redis_url) as client:
            client.flushall()


def held_before(asset: str) -> Decimal:
    return Decimal(HELD_BEFORE.get(asset, "0"))
