"""The embedded stack: PostgreSQL, Valkey, the paper exchange, Airflow and the status app, all on 127.0.0.1."""

from tradewind.stack.stack import Stack, down, running_stack, with_secrets

__all__ = ["Stack", "down", "running_stack", "with_secrets"]
