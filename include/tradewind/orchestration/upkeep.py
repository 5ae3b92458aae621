"""The tasks of `maintain_storage`."""

from __future__ import annotations

from typing import Any


def maintain_storage() -> None:
    """Retention and statistics of our own tables."""
    from tradewind.jobs.upkeep import maintain_storage
    from tradewind.orchestration.runtime import report, task_ports

    with task_ports() as ports:
        report(maintain_storage(ports))


def measure_drift() -> list[dict[str, Any]]:
    """Store a drift report; returns arguments of a training's start after an alarm, or nothing.

    The run id is derived from the market's day, so that drift starts at most one training a day.
    """
    from tradewind.jobs.training import measure_drift
    from tradewind.orchestration.runtime import report, task_ports

    with task_ports() as ports:
        result = measure_drift(ports)
        report(result)
        day = ports.clock.now().date().isoformat()
    return [{"trigger_run_id": f"drift__{day}", "conf": {"reason": "drift"}}] if result["alarmed"] else []


def check_parity() -> None:
    """Compare the last day with its replay and store the report; a day without a flat moment is passed over."""
    from datetime import timedelta

    from tradewind.errors import MissingData
    from tradewind.jobs.parity import check_parity
    from tradewind.orchestration.runtime import report, task_ports

    with task_ports() as ports:
        since = ports.clock.now() - timedelta(days=1)
        try:
            report(check_parity(ports, since, matching=ports.matching))
        except MissingData as reason:
            report({"compared": False, "reason": str(reason)})
