"""Where the faults strike: a ledger's PostgreSQL, a Redis and a paper exchange that can each be restarted alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from decimal import Decimal

import httpx
import redis

from tests.chaos.markets import SpotMarket
from tests.support.paper_server import PaperServerProcess
from tests.support.trading_rig import Rig
from tradewind.adapters.trading_store import PgTradingStore
from tradewind.core.types import Instrument
from tradewind.paper.admin import PaperAccount
from tradewind.stack.postgres import EmbeddedPostgres


@dataclass
class Arena:
    """Fresh accounts on one exchange and one ledger."""

    exchange: PaperServerProcess
    postgres: EmbeddedPostgres
    ledger_url: str
    redis_url: str
    opened: list[Rig] = field(default_factory=list)
    number: int = 0

    def new_account(self, market: SpotMarket) -> tuple[Callable[[], Rig], Rig, PaperAccount]:
        """A new account: how to build a rig for it in any process, and one that no rate limit keeps from looking."""
        self.number += 1
        name = f"chaos-{self.number}"
        account = market.account(self.exchange)

        def build() -> Rig:
            rig = market.observer(self.exchange, self.ledger_url, account)
            rig.account = name
            market.wire(rig, self.exchange.url, self.redis_url, account)
            rig.trading_store = PgTradingStore(rig.database, name, rig.params.strategy_version)
            self.opened.append(rig)
            return rig

        observer = market.observer(self.exchange, self.ledger_url, account)
        self.opened.append(observer)
        return build, observer, account

    def rules_of(self, truth: Rig, market: SpotMarket, symbol: str) -> Instrument | None:
        """A symbol's rules of this very moment, as the exchange itself lists them; None where it does not."""
        name, known = symbol.replace("/", ""), truth.exchange.instruments([symbol]).get(symbol)
        symbols = httpx.get(f"{self.exchange.url}{market.info_path}", timeout=30).json()["symbols"]
        rules = next((each["filters"] for each in symbols if each["symbol"] == name), None)
        if rules is None or known is None:
            return None
        found = {each["filterType"]: each for each in rules}
        notional = found.get("NOTIONAL", {}).get("minNotional") or found["MIN_NOTIONAL"]["notional"]
        return replace(
            known,
            tick_size=Decimal(found["PRICE_FILTER"]["tickSize"]).normalize(),
            step_size=Decimal(found["LOT_SIZE"]["stepSize"]).normalize(),
            min_quantity=Decimal(found["LOT_SIZE"]["minQty"]),
            min_notional_quote=Decimal(notional),
        )

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
