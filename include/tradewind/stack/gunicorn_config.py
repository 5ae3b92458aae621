"""What gunicorn reads before it serves the status app; the address comes from its command line."""

from __future__ import annotations

from typing import Any

workers = 1
worker_class = "gthread"
threads = 8
graceful_timeout = 5
loglevel = "warning"
# It would be a socket in the home of the user, shared by every deployment.
control_socket_disable = True


def post_worker_init(worker: Any) -> None:
    """Log as our other processes do."""
    from tradewind.adapters.logs import configure_logging
    from tradewind.settings import load_settings

    configure_logging(load_settings().log_level, process="status")
