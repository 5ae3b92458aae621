"""A whole stack for the trading bench: 50 symbols on a stepped market, their history, and a champion that says yes."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import numpy as np

from tradewind.adapters.clock import PaperClock
from tradewind.bench.rows import BenchOptions
from tradewind.bench.servers import scratch_dir
from tradewind.core.boosters import LIBRARIES, BoosterSettings, Rows, fit_booster
from tradewind.core.calibration import Calibrator
from tradewind.core.ensemble import FamilyModel
from tradewind.core.features import FEATURE_NAMES, LIVE_WINDOW_BARS, features_hash
from tradewind.core.types import RegimeFamily, TradingMode
from tradewind.core.validation import Gate
from tradewind.errors import NotFlatYet, StackFailed, TradingHalted
from tradewind.jobs import safety
from tradewind.jobs.market import backfill_history
from tradewind.jobs.permission import permission_now
from tradewind.paper.admin import PaperAdmin
from tradewind.settings import Settings
from tradewind.stack.airflow_api import AirflowClient
from tradewind.stack.postgres import discard
from tradewind.stack.processes import free_ports
from tradewind.stack.stack import Stack, running_stack, with_secrets
from tradewind.wiring import Wiring

BAR: Final = timedelta(minutes=15)
SYMBOLS: Final = ("BTC/USDT", "ETH/USDT", "SOL/USDT", "BNB/USDT", "XRP/USDT", *(f"S{n:02}/USDT" for n in range(45)))
CAPITAL_QUOTE: Final = Decimal(100_000)
VERSION: Final = "bench"
ANSWER_S: Final = 120.0  # on a busy machine Airflow may need long to answer; what is timed is not its API
# What the bench's champion answers for every symbol: calibrated to it by a slope of zero, so that entries depend on the
# regime, the trend and the limits alone. The boosters behind it are fitted and asked like any champion's.
PROBABILITIES: Final = (0.7, 0.1, 0.2)
NET_R: Final = (1.5, -1.0, -0.1)


@dataclass
class TradingStack:
    """The running system, as the bench steers and watches it."""

    stack: Stack
    settings: Settings
    wiring: Wiring
    airflow: AirflowClient
    admin: PaperAdmin

    def now(self) -> datetime:
        """The market's clock, asked anew."""
        if isinstance(self.wiring.clock, PaperClock):
            self.wiring.clock.forget()
        return self.wiring.clock.now()

    def step(self) -> datetime:
        """Move the market to the next bar's close; returns the open time of the bar that has closed."""
        self.admin.step(1)
        return self.now() - BAR

    def kill(self, name: str) -> None:
        """`kill -9` one of the stack's processes; its supervisor starts it again."""
        state = self.stack.state
        marks = [p.mark for p in (state.processes if state else ()) if p.name.endswith(name) and p.mark is not None]
        if not marks:
            raise StackFailed(f"the stack runs no process named {name}")
        os.kill(marks[0].pid, signal.SIGKILL)


def wait_until(condition: Callable[[], Any], timeout_s: float, complaint: str, poll_s: float = 0.02) -> float:
    """Seconds until `condition()` is true. Raises StackFailed after the time-out."""
    started_s = time.monotonic()
    while not condition():
        if time.monotonic() - started_s > timeout_s:
            raise StackFailed(f"{complaint} within {timeout_s:.0f} s")
        time.sleep(poll_s)
    return time.monotonic() - started_s


@contextmanager
def trading_stack(options: BenchOptions, **given: Any) -> Iterator[TradingStack]:
    """The embedded stack with history, a champion and a watch that is alive; gone after the block.

    `given` are settings in place of the bench's own: another market, other symbols.
    """
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    with ExitStack() as held:
        directory = held.enter_context(scratch_dir())
        chosen: dict[str, Any] = {
            "symbols": SYMBOLS[:10] if options.quick else SYMBOLS,
            "paper_capital_quote": CAPITAL_QUOTE,
            "market_start": today - timedelta(days=2),
            **given,
        }
        settings = with_secrets(
            mode="demo", home_dir=directory / "state", account_id="bench", **chosen, **free_ports()
        )  # fmt: skip
        options.say("starting the stack")
        held.callback(discard, settings.home_dir / "postgres")
        stack = held.enter_context(running_stack(settings))
        password = settings.airflow_password.get_secret_value()
        airflow = held.enter_context(
            AirflowClient(settings.airflow_url, settings.airflow_username, password, timeout_s=ANSWER_S)
        )
        admin = held.enter_context(PaperAdmin(settings.exchange_url, settings.exchange_admin_token.get_secret_value()))
        wiring = held.enter_context(closing(Wiring(settings)))
        system = TradingStack(stack, settings, wiring, airflow, admin)
        options.say(f"loading {LIVE_WINDOW_BARS} bars of {len(settings.symbols)} symbols")
        end = system.now()
        backfill_history(wiring, "bench", settings.symbols, ["15m"], end - (LIVE_WINDOW_BARS + 200) * BAR, end)
        install_champion(wiring, end)
        wait_until(
            lambda: _is_allowed(wiring), 180, "entries were not allowed: watch or reconciliation are missing", 0.5
        )
        yield system


def _is_allowed(wiring: Wiring) -> bool:
    return permission_now(wiring).allowed


def install_champion(wiring: Wiring, trained_until: datetime) -> None:
    """A small model of all three libraries, fitted on noise and calibrated to `PROBABILITIES`, promoted as champion."""
    rng = np.random.default_rng(7)
    count = 4000
    features = np.asarray(rng.normal(size=(count, len(FEATURE_NAMES))), dtype=np.float32)
    labels = rng.choice(3, size=count, p=PROBABILITIES)
    rows = Rows(features, labels, np.ones(count))
    settings = BoosterSettings(max_rounds=60)
    calibrator = Calibrator(0.0, tuple(float(np.log(p)) for p in PROBABILITIES))  # type: ignore[arg-type]
    boosters = tuple(fit_booster(library, rows, rows, settings) for library in LIBRARIES)
    families = {
        family: FamilyModel(family, boosters, calibrator, PROBABILITIES, NET_R, (-1.0, -1.0, -1.0), count)
        for family in RegimeFamily
    }
    manifest = {"features_hash": features_hash(), "families": [str(family) for family in families], "bench": True}
    now = wiring.clock.now()
    wiring.model_store.save(
        VERSION,
        families,
        {},
        manifest,
        [Gate("bench", True, {})],
        trained_from=trained_until - timedelta(days=30),
        trained_until=trained_until,
        at=now,
    )
    wiring.model_store.promote(VERSION, "bench", now)


def start_anew(system: TradingStack) -> None:
    """Leave everything and open the latch again; whoever meets a busy task tries again, as a person would."""
    ports = system.wiring
    if ports.trading_store.latch().mode is not TradingMode.HALTED:
        ports.trading_store.set_latch(TradingMode.HALTED, "bench", ports.wall.now(), actor="bench")
    _flatten(system)
    wait_until(lambda: not ports.trading_store.live_positions(), 60, "the account did not become flat", 0.2)
    wait_until(lambda: _resumed(ports), 60, "the latch could not be opened", 0.5)


def _resumed(ports: Wiring) -> bool:
    try:
        safety.resume(ports, "bench")
    except TradingHalted:
        return False
    return True


def _flatten(system: TradingStack) -> None:
    for _ in range(20):
        try:
            safety.trip_circuit_breaker(system.wiring, "bench", "bench")
            return
        except NotFlatYet:
            time.sleep(0.5)
