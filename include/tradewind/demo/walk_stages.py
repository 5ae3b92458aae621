"""The market moves: by the jobs alone up to the first intent, then bar by bar through the real DAGs, then a crash."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime

from tradewind.adapters.clock import PaperClock
from tradewind.core.types import TradingMode
from tradewind.jobs import market, positions, regime, sentiment, trading

from .run import BAR, CYCLE_BARS, WALK_BARS, DemoRun

SENTIMENT_EVERY_BARS = 4  # the DAG does so every 20 minutes of the wall, which stands still here
CRASH_LOSS_FRAC = 0.045  # what the injected crash is sized to cost, past the breaker's 3 %
CRASH_LARGEST_FRAC = 0.6

_CYCLE = "SELECT state, run_id, detail FROM cycles WHERE account = %(account)s AND bar = %(bar)s"
_CLOSED = "SELECT count(*) FROM positions WHERE account = %(account)s AND status IN ('closed', 'dust')"
_OPEN = "SELECT count(*) FROM positions WHERE account = %(account)s AND status = 'open'"
_FLAT = """
SELECT verified_flat_at, attempts, report FROM flattenings
WHERE account = %(account)s ORDER BY latch_sequence DESC LIMIT 1
"""


def walk_to_first_intent(demo: DemoRun) -> None:
    """Step bar by bar through the jobs that the DAG tasks call, until a candidate passes all filters of its own.

    The bar on which they do is left half decided: its predictions and verdicts are stored, its sizes are not, so that
    the real `run_trade_cycle` finds those rows and takes the decision itself.
    """
    ports = demo.wiring
    for walked in range(1, WALK_BARS + 1):
        bar = step(demo)
        market.collect_candles(ports, "15m", None, None)
        if (bar + BAR).minute == 0:
            market.collect_candles(ports, "1h", None, None)
        regime.detect_regime(ports)
        if walked % SENTIMENT_EVERY_BARS == 0:
            sentiment.score_sentiment(ports)
        trading.check_trading_allowed(ports, bar)
        trading.predict_signals(ports, bar)
        trading.filter_signals(ports, bar)
        if _has_candidate(demo, bar):
            demo.say(
                f"{walked} bars walked; the first candidate passed every filter on the bar of {bar:%Y-%m-%d %H:%M}"
            )
            demo.summary["bars_walked"] = demo.summary.get("bars_walked", 0) + walked
            return
        trading.size_positions(ports, bar)
        trading.record_cycle(ports, bar, run_id=f"walk__{bar:%Y%m%dT%H%M}")
        positions.manage_positions(ports)
    demo.require(False, f"no candidate passed the filters in {WALK_BARS} bars: see the filter funnel in the report")


def run_cycles(demo: DemoRun, *, has_champion: bool) -> None:
    """Bar by bar through the real DAGs: at least `--cycles` bars, and until a position has been opened and closed."""
    cycle_s: list[float] = []
    bar = _current_bar(demo) if has_champion else step(demo)
    for done in range(1, CYCLE_BARS + 1):
        cycle_s.append(run_cycle(demo, bar))
        if done >= demo.options.cycles and (not has_champion or demo.count(_CLOSED) > 0):
            break
        bar = step(demo)
    else:
        demo.require(False, f"in {CYCLE_BARS} bars no position was opened and closed")
    demo.summary["cycles"] = len(cycle_s)
    demo.summary["cycle_seconds_median"] = round(sorted(cycle_s)[len(cycle_s) // 2], 2)


def hold_a_position(demo: DemoRun) -> None:
    """See to it that a crash has something to hit: when nothing is open, go on to the next intent and let it enter."""
    while demo.count(_OPEN) == 0:
        walk_to_first_intent(demo)
        run_cycle(demo, _current_bar(demo))


def run_cycle(demo: DemoRun, bar: datetime, *, timeout_s: float = 120) -> float:
    """One bar through collection, asset, trade cycle and position management; seconds to the recorded cycle."""
    started_s = time.monotonic()
    demo.airflow.trigger_dag("collect_candles_15m", conf={}, run_id=f"demo__collect__{bar:%Y%m%dT%H%M}")
    if (bar + BAR).minute == 0:
        demo.airflow.trigger_dag("collect_candles_1h", conf={}, run_id=f"demo__collect_1h__{bar:%Y%m%dT%H%M}")
    await_cycle(demo, bar, timeout_s)
    cycle_s = time.monotonic() - started_s
    demo.run_dag("manage_positions", timeout_s=timeout_s)
    outcomes = f"{_verdicts(demo, bar)}; {demo.count(_OPEN)} open, {demo.count(_CLOSED)} closed"
    demo.say(f"bar {bar:%m-%d %H:%M}  {cycle_s:4.1f} s  {outcomes}")
    return cycle_s


def crash(demo: DemoRun) -> None:
    """Drop the market by what takes this account past −3 %, and watch the watch, the latch and the breaker."""
    ports = demo.wiring
    equity = _equity(demo)
    held = sum(
        float(position.quantity) * _bid(demo, position.symbol) for position in ports.trading_store.live_positions()
    )
    demo.require(held > 0, "no position is open: there is nothing for a crash to hit")
    frac = min(CRASH_LARGEST_FRAC, CRASH_LOSS_FRAC * equity / held)
    demo.say(f"equity {equity:,.2f}, of it {held:,.2f} in positions: the market falls by {frac:.1%}")
    started_s = time.monotonic()
    demo.admin.shock(-frac)
    latched_s = _wait(demo, lambda: ports.trading_store.latch().mode is TradingMode.HALTED, 90, "the latch was not set")
    _wait(demo, lambda: _verified_flat(demo), 120, "the account was not verified flat")
    flat_s = time.monotonic() - started_s
    latch = ports.trading_store.latch()
    # The minute's manage_positions may have flattened before the breaker's run was there: it comes all the same.
    _wait(
        demo, lambda: bool(demo.airflow.dag_runs("trip_circuit_breaker")), 60,
        "the latch is set and the account flat, but trip_circuit_breaker did not run",
    )  # fmt: skip
    runs = demo.airflow.dag_runs("trip_circuit_breaker")
    demo.require(not ports.trading_store.live_positions(), "verified flat, yet the ledger holds a live position")
    demo.summary["breaker"] = {
        "crash_frac": round(frac, 4),
        "reason": latch.reason,
        "seconds_to_latch": round(latched_s, 2),
        "seconds_to_flat": round(flat_s, 2),
        "dag_runs": len(runs),
    }
    demo.say(f"latched after {latched_s:.1f} s ({latch.reason}), verified flat after {flat_s:.1f} s")


def step(demo: DemoRun) -> datetime:
    """Move the market to the next bar's close; returns the open time of the bar that has just closed."""
    demo.admin.step(1)
    if isinstance(demo.wiring.clock, PaperClock):
        demo.wiring.clock.forget()
    return _current_bar(demo)


def _current_bar(demo: DemoRun) -> datetime:
    return demo.now() - BAR


def _has_candidate(demo: DemoRun, bar: datetime) -> bool:
    stored = demo.wiring.trading_store.verdicts(bar)
    return any(verdicts and all(verdict.passed for verdict in verdicts) for verdicts in stored.values())


def await_cycle(demo: DemoRun, bar: datetime, timeout_s: float = 120) -> None:
    """Wait until the cycle of `bar` is recorded and its run has ended well."""

    def recorded() -> bool:
        return demo.wiring.database.row(_CYCLE, {"account": demo.wiring.account, "bar": bar}) is not None

    _wait(demo, recorded, timeout_s, f"no cycle was recorded for the bar of {bar:%Y-%m-%d %H:%M} UTC")
    row = demo.wiring.database.row(_CYCLE, {"account": demo.wiring.account, "bar": bar})
    state = row["state"] if row else "unrecorded"
    demo.require(state in ("done", "expired"), f"the cycle of {bar:%Y-%m-%d %H:%M} UTC ended as {state}: {row}")


def _verdicts(demo: DemoRun, bar: datetime) -> str:
    decisions = demo.wiring.trading_store.decisions(bar)
    counts: dict[str, int] = {}
    for decision in decisions:
        counts[decision.outcome.value] = counts.get(decision.outcome.value, 0) + 1
    return " ".join(f"{outcome} {count}" for outcome, count in sorted(counts.items()))


def _equity(demo: DemoRun) -> float:
    row = demo.wiring.database.row(
        "SELECT equity_quote FROM equity WHERE account = %(account)s ORDER BY at DESC LIMIT 1",
        {"account": demo.wiring.account},
    )
    demo.require(row is not None, "no equity was ever recorded: is watch_risk running?")
    return float(row["equity_quote"]) if row else 0.0


def _bid(demo: DemoRun, symbol: str) -> float:
    return float(demo.wiring.exchange.book_tops([symbol])[symbol].bid)


def _verified_flat(demo: DemoRun) -> bool:
    row = demo.wiring.database.row(_FLAT, {"account": demo.wiring.account})
    return row is not None and row["verified_flat_at"] is not None


def _wait(demo: DemoRun, condition: Callable[[], bool], timeout_s: float, complaint: str) -> float:
    """Poll until `condition()`; returns the seconds it took."""
    started_s = time.monotonic()
    while not condition():
        demo.require(time.monotonic() - started_s < timeout_s, f"{complaint} within {timeout_s:.0f} s")
        time.sleep(0.2)
    return time.monotonic() - started_s
