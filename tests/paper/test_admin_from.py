"""Who may use the admin side: this machine alone, unless it is told otherwise, and never without the token."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from tests.jobs.conftest import NOW_MS
from tradewind.paper.__main__ import make_market
from tradewind.paper.exchange import PaperExchange
from tradewind.paper.server import PaperServer

TOKEN = "t" * 32
HERE, OTHER_CONTAINER = ("127.0.0.1", 40_000), ("172.18.0.7", 40_000)


def status_for(client: tuple[str, int], token: str, *, anywhere: bool) -> int:
    exchange = PaperExchange(make_market("synthetic", ("BTC/USDT",), 7, 1.0), None, start_ms=NOW_MS)
    app = PaperServer(exchange, TOKEN, admin_from_anywhere=anywhere).app()

    async def ask() -> int:
        transport = httpx.ASGITransport(app, client=client)
        async with httpx.AsyncClient(transport=transport, base_url="http://exchange") as http:
            return (await http.get("/__admin/clock", headers={"X-Tradewind-Admin": token})).status_code

    return asyncio.run(ask())


@pytest.mark.parametrize(
    ("client", "token", "anywhere", "status"),
    [
        (HERE, TOKEN, False, 200),
        (OTHER_CONTAINER, TOKEN, False, 403),
        (OTHER_CONTAINER, TOKEN, True, 200),
        (OTHER_CONTAINER, "", True, 401),
        (OTHER_CONTAINER, "wrong", True, 401),
    ],
)
def test_who_may_use_the_admin_side(client: tuple[str, int], token: str, anywhere: bool, status: int) -> None:
    assert status_for(client, token, anywhere=anywhere) == status
