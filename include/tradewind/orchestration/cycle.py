"""The tasks of the trade cycle and of `manage_positions`: which bar, then one job each.

A run decides on one bar for good. Without the param `bar`, the first task asks the market's clock for the newest closed
one and keeps the answer in Airflow's task state, which survives Clear: a run cleared a day later repeats its own bar
instead of deciding today's. The rows are keyed by the bar, so a repeat finds them.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import NEVER_EXPIRE, Context  # type: ignore[attr-defined]  # it is missing from the stub alone

_PINNED_BAR = "bar"


def check_trading_allowed(context: Context) -> str:
    """Returns the cycle's bar as ISO time. Whether trading is allowed is a stored verdict, no reason to stop here."""
    from tradewind.jobs.trading import check_trading_allowed
    from tradewind.orchestration.runtime import parse_moment, report, task_ports

    state = context["task_state_store"]
    wanted = context["params"]["bar"] or state.get(_PINNED_BAR)
    with task_ports(bar=wanted) as ports:
        verdict = check_trading_allowed(ports, parse_moment(wanted) if wanted else None)
        report(verdict)
        bar: str = verdict["bar"]
    state.set(_PINNED_BAR, bar, retention=NEVER_EXPIRE)
    return bar


def predict_signals(bar: str) -> None:
    """Store one prediction a symbol."""
    from tradewind.jobs.trading import predict_signals
    from tradewind.orchestration.runtime import parse_moment, report, task_ports

    with task_ports(bar=bar) as ports:
        report(predict_signals(ports, parse_moment(bar)))


def filter_signals(bar: str) -> None:
    """Store every filter's verdict for each symbol."""
    from tradewind.jobs.trading import filter_signals
    from tradewind.orchestration.runtime import parse_moment, report, task_ports

    with task_ports(bar=bar) as ports:
        report(filter_signals(ports, parse_moment(bar)))


def size_positions(bar: str) -> list[str]:
    """Store one decision a symbol; returns the ids of the intents among them."""
    from tradewind.jobs.trading import size_positions
    from tradewind.orchestration.runtime import parse_moment, report, task_ports

    with task_ports(bar=bar) as ports:
        intent_ids = list(size_positions(ports, parse_moment(bar)))
        report({"intent_ids": intent_ids})
    return intent_ids


def place_brackets(intent_id: str) -> None:
    """Send one intent's bracket, once."""
    from tradewind.jobs.trading import place_brackets
    from tradewind.orchestration.runtime import report, task_ports

    with task_ports(intent_id=intent_id) as ports:
        report(place_brackets(ports, intent_id))


def record_cycle(bar: str | None, context: Context) -> None:
    """Record how the cycle ended; fails when a stage failed, an order's fate is unknown, or no bar was named."""
    from tradewind.jobs.trading import record_cycle
    from tradewind.orchestration.runtime import parse_moment, report, task_ports

    with task_ports(bar=bar) as ports:
        report(record_cycle(ports, parse_moment(bar), context["run_id"]))


def manage_positions() -> list[dict[str, Any]]:
    """Manage every open position; returns arguments of the runs to start: for a bar left undecided, and for a breach.

    Their run ids are derived from the bar and the latch, so that each is started once, however often it is found.
    """
    from tradewind.jobs.positions import manage_positions
    from tradewind.orchestration.runtime import report, task_ports

    with task_ports() as ports:
        result = manage_positions(ports)
        report(result)
    due: list[dict[str, Any]] = []
    if bar := result["undecided_bar"]:
        due.append({"trigger_dag_id": "run_trade_cycle", "trigger_run_id": f"undecided__{bar}", "conf": {"bar": bar}})
    if result["breached"]:
        due.append(breaker_run(result["latch_sequence"], "breach seen by manage_positions"))
    return due


def breaker_run(latch_sequence: int, reason: str) -> dict[str, Any]:
    """Arguments of the breaker's start for one latch; whoever asks first starts the run, and it serves that latch."""
    return {
        "trigger_dag_id": "trip_circuit_breaker",
        "trigger_run_id": f"breach__latch_{latch_sequence}",
        "conf": {"reason": reason, "latch_sequence": latch_sequence},
    }
