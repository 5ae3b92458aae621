"""The tasks that shut and open the latch: the breaker's serves one latch, a resume serves one request."""

from __future__ import annotations

from airflow.sdk import NEVER_EXPIRE, Context  # type: ignore[attr-defined]  # it is missing from the stub alone
from airflow.sdk.exceptions import AirflowSkipException

_SERVED_LATCH = "latch_sequence"


def trip_circuit_breaker(context: Context) -> None:
    """Latch, flatten, verify; skipped when the latch that this run serves was opened since.

    A run serves one latch: the one named by its param, or the one it found or set at its first try, kept in Airflow's
    task state, which survives Clear. So neither a run that was delayed nor one that is cleared weeks later flattens an
    account that a person has opened again.
    """
    from tradewind.jobs.safety import trip_circuit_breaker
    from tradewind.orchestration.runtime import report, task_ports

    state, params = context["task_state_store"], context["params"]
    served = params["latch_sequence"] if params["latch_sequence"] is not None else state.get(_SERVED_LATCH)
    with task_ports() as ports:
        present = ports.trading_store.latch().sequence
        if served is not None and present != served:
            raise AirflowSkipException(f"latch {served} was opened since; a new run would serve {present}")
        try:
            report(trip_circuit_breaker(ports, params["reason"]))
        finally:
            # Also when it is not flat yet: the retry must not set a new latch after somebody has resumed.
            state.set(_SERVED_LATCH, ports.trading_store.latch().sequence, retention=NEVER_EXPIRE)


def resume_trading(request: str) -> None:
    """Open the latch for a request of the status page; the job checks that there is one, and everything else."""
    from tradewind.jobs.safety import resume_requested
    from tradewind.orchestration.runtime import report, task_ports

    with task_ports(resume_request=request) as ports:
        report(resume_requested(ports, request))
