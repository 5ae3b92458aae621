"""The embedded stack: PostgreSQL, Valkey, the paper exchange, Airflow and the status app, all on 127.0.0.1.

Its face is loaded on first use: whoever only wants Airflow's client does not pay for the supervisor.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tradewind.stack.stack import Stack, down, running_stack, with_secrets

__all__ = ["Stack", "down", "running_stack", "with_secrets"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from tradewind.stack import stack

        return getattr(stack, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
