"""The trade cycle's tasks: which bar, then one job each. The rows they make are keyed by the bar, so a repeat finds them.

A run decides on one bar for good. Without the param `bar`, the first task asks the market's clock for the newest closed
one and keeps the answer in Airflow's task state, which survives Clear: a run cleared a day later repeats its own bar
instead of deciding today's.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import NEVER_EXPIRE, Context

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
    """Manage every open position; returns arguments of the trade cycle's start for a bar left undecided, or nothing.

    The run id is derived from the bar, so that the cycle is started once however many minutes find it missing.
    """
    from tradewind.jobs.positions import manage_positions
    from tradewind.orchestration.runtime import report, task_ports

    with task_ports() as ports:
        result = manage_positions(ports)
        report(result)
    bar: str | None = result.get("undecided_bar")
    return [{"trigger_run_id": f"undecided__{bar}", "conf": {"bar": bar}}] if bar else []
