"""The admin client sorts the exchange's answers: what was wrong with the request, and what to try again."""

from __future__ import annotations

import time
from http.client import HTTPConnection
from urllib.parse import urlsplit

import pytest

from tests.support.http_server import Answer, serving
from tests.support.paper_server import PaperServerProcess
from tradewind.errors import BadInput, ExchangeUnreachable
from tradewind.paper.admin import PaperAdmin


def test_a_connection_that_was_quiet_for_some_seconds_is_still_there(paper_server: PaperServerProcess) -> None:
    """It was closed after five seconds, as long as httpx keeps one: a call in that moment got no answer."""
    address = urlsplit(paper_server.url)
    connection = HTTPConnection(address.hostname or "", address.port, timeout=30)
    for pause_s in (0.0, 6.0):
        time.sleep(pause_s)
        connection.request("GET", "/api/v3/ping")
        assert connection.getresponse().read() == b"{}"
    connection.close()


def test_a_failure_of_the_exchange_is_not_called_bad_input() -> None:
    """An exchange that ended in the middle of a call, its database being gone, was taken for a refusal."""
    status = 500
    with serving(lambda _: Answer(status, b"Internal Server Error")) as (url, _), PaperAdmin(url, "token") as admin:
        with pytest.raises(ExchangeUnreachable, match="HTTP 500"):
            admin.step_ms(60_000)
        status = 400
        with pytest.raises(BadInput, match="refused POST clock"):
            admin.step_ms(60_000)
