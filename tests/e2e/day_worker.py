"""A day of the market lived through by one process: `python -m tests.e2e.day_worker BARS`.

It calls what the tasks call, in their order, with one wiring for the whole day, and prints a line a bar. What
Airflow would retry is retried.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from typing import Any

from tradewind.adapters.clock import PaperClock
from tradewind.errors import RetryError
from tradewind.jobs import market, positions, regime, sentiment, trading
from tradewind.paper.admin import PaperAdmin
from tradewind.settings import load_settings
from tradewind.wiring import Wiring

BAR = timedelta(minutes=15)
MINUTES = 15
# A restarted server is back within a minute or two, however often it was killed before.
TRIES, PAUSE_S = 400, 0.5


class Day:
    """The market's clock in one hand, the jobs in the other."""

    def __init__(self, ports: Wiring, admin: PaperAdmin) -> None:
        self.ports, self.admin = ports, admin
        self.minute_ms = admin.clock().market_ms
        self.checks = self.retried = 0

    def repeat(self, job: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        for _ in range(TRIES):
            try:
                return job(*arguments, **options)
            except RetryError:
                self.retried += 1
                time.sleep(PAUSE_S)
        return job(*arguments, **options)

    def live_one_bar(self) -> dict[str, Any]:
        """Fifteen minutes with a position check each; the last one closes a bar, which is collected and decided."""
        for _ in range(MINUTES):
            # To a named minute: repeated after an answer that was lost, it goes no further.
            self.minute_ms += 60_000
            self.repeat(self.admin.set_clock, self.minute_ms)
            assert isinstance(self.ports.clock, PaperClock)
            self.ports.clock.forget()
            self.repeat(positions.manage_positions, self.ports)
            self.checks += 1
        bar = self.repeat(self.ports.clock.now) - BAR
        self.repeat(market.collect_candles, self.ports, "15m", None, None)
        if (bar + BAR).minute == 0:
            self.repeat(market.collect_candles, self.ports, "1h", None, None)
            self.repeat(market.fill_candle_gaps, self.ports, routine=True)
        self.repeat(regime.detect_regime, self.ports)
        self.repeat(sentiment.score_sentiment, self.ports)
        self.repeat(trading.check_trading_allowed, self.ports, bar)
        self.repeat(trading.predict_signals, self.ports, bar)
        self.repeat(trading.filter_signals, self.ports, bar)
        for intent_id in self.repeat(trading.size_positions, self.ports, bar):
            self.repeat(trading.place_brackets, self.ports, intent_id)
        self.repeat(trading.record_cycle, self.ports, bar, f"day__{bar:%Y%m%dT%H%M}")
        return {
            "bar": bar.isoformat(),
            "checks": self.checks,
            "retried": self.retried,
            "open": len(self.repeat(self.ports.trading_store.live_positions)),
        }


def main(bars: int) -> None:
    settings = load_settings()
    admin = PaperAdmin(settings.exchange_url, settings.exchange_admin_token.get_secret_value())
    with closing(Wiring(settings)) as ports, closing(admin):
        day = Day(ports, admin)
        for _ in range(bars):
            print(json.dumps(day.live_one_bar()), flush=True)
            # The parent looks at this process now, and says when to go on.
            sys.stdin.readline()


if __name__ == "__main__":
    main(int(sys.argv[1]))
