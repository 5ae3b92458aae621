"""Nothing secret is sent to a port of this machine on which another user's program listens."""

from __future__ import annotations

import http.server
import os
import socket
import threading
from collections.abc import Iterator

import httpx
import pytest

from tests.support.strangers import ROOT, STRANGER, attacking
from tradewind.errors import ExchangeUnreachable
from tradewind.listeners import foreign_listener, own_listeners_only
from tradewind.paper.admin import PaperAdmin
from tradewind.stack.airflow_api import AirflowClient, AirflowUnreachable
from tradewind.stack.processes import free_port


@pytest.fixture
def address() -> Iterator[str]:
    """Of a server of our own."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_our_own_program_is_told(address: str, host: str) -> None:
    with httpx.Client(event_hooks={"request": [own_listeners_only]}, trust_env=False) as client:
        assert client.get(address.replace("127.0.0.1", host)).status_code == 204


@pytest.mark.parametrize("bound_to", ["127.0.0.1", "0.0.0.0", "::"])
def test_the_user_of_a_listener_is_found_however_it_is_bound(bound_to: str) -> None:
    family = socket.AF_INET6 if ":" in bound_to else socket.AF_INET
    with socket.socket(family) as server:
        server.bind((bound_to, 0))
        server.listen()
        port = server.getsockname()[1]
        assert foreign_listener("127.0.0.1", port) == ""
        assert foreign_listener("localhost", port) == ""
    assert "no program" in foreign_listener("127.0.0.1", port)


def test_another_users_program_is_told_nothing() -> None:
    """Health answered by it is believed by nobody, and neither password, token nor key reaches it."""
    if not ROOT:
        # Only root can be another user: what is left to see is that the ports of others are not taken for ours.
        assert os.geteuid() != 0
        return
    port = free_port()
    with attacking("http", port) as (said, heard):
        assert said == "listening"
        assert f"number {STRANGER}" in foreign_listener("127.0.0.1", port)
        for host in ("127.0.0.1", "localhost"):
            with AirflowClient(f"http://{host}:{port}", "admin", "hush-hush") as airflow:
                assert not airflow.is_healthy("scheduler")
                with pytest.raises(AirflowUnreachable, match="nothing was sent"):
                    airflow.set_pools({})
        with PaperAdmin(f"http://127.0.0.1:{port}", "admin-token") as admin, pytest.raises(ExchangeUnreachable):
            admin.clock()
    assert heard == [[]]
