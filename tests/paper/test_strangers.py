"""Others at the same address, who know no key: what they send neither bans those who do, nor fills the memory."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import httpx
import psutil
import pytest

from tests.support.floods import flood
from tests.support.paper_requests import RawClient
from tests.support.paper_server import PaperServerProcess
from tradewind.adapters.ccxt_factory import ClientConfig, build_exchange

MB = 1024 * 1024


@pytest.fixture
def server() -> Iterator[PaperServerProcess]:
    """One with the limits that Binance has, of which 6,000 in a minute concern us here."""
    with PaperServerProcess(weight_limit=6000) as server:
        yield server


def banned(server: PaperServerProcess) -> bool:
    """Until who has no key is banned; a minute may end meanwhile, which begins the count anew."""
    return any(httpx.get(f"{server.url}/api/v3/ticker/24hr").status_code == 418 for _ in range(400))


def test_who_has_a_key_is_not_banned_with_the_address(server: PaperServerProcess) -> None:
    account = server.create_account(USDT="10000")
    client = RawClient(server.url, account)
    assert banned(server)
    assert httpx.get(f"{server.url}/api/v3/time").status_code == 418
    made_up = httpx.get(f"{server.url}/api/v3/time", headers={"X-MBX-APIKEY": "a" * 64})
    assert made_up.status_code == 418, "a key that nobody was given has no budget"
    assert client.signed("GET", "/api/v3/account").status_code == 200
    ours = build_exchange(
        ClientConfig(base_url=server.url, api_key=account.api_key, api_secret=account.api_secret), None
    )
    assert ours.fetch_time() > 0, "our own client says who it is where no key is asked for as well"


def test_a_key_that_spends_its_budget_is_refused_alone(server: PaperServerProcess) -> None:
    one, other = (RawClient(server.url, server.create_account(USDT="10000")) for _ in range(2))
    key = {"X-MBX-APIKEY": one.account.api_key}
    codes = [httpx.get(f"{server.url}/api/v3/ticker/24hr", headers=key).status_code for _ in range(90)]
    assert 429 in codes or 418 in codes
    assert httpx.get(f"{server.url}/api/v3/time").status_code == 200
    assert other.signed("GET", "/api/v3/account").status_code == 200


@pytest.mark.parametrize("stated", [True, False], ids=["stated", "in chunks"])
def test_a_body_is_read_no_further_than_an_order_is_long(server: PaperServerProcess, stated: bool) -> None:
    process = psutil.Process(server.pid)
    before = process.memory_info().rss
    peak = before
    code = 0

    def body() -> Iterator[bytes]:
        nonlocal peak
        for _ in range(200):
            yield b"x" * MB
            peak = max(peak, process.memory_info().rss)

    headers = {"Content-Length": str(200 * MB)} if stated else {}
    # Cut in the middle of what it sends, a client may not read what it was answered.
    with contextlib.suppress(httpx.TransportError):
        code = httpx.post(f"{server.url}/api/v3/order", content=body(), headers=headers, timeout=60).status_code
    assert code in (0, 413)
    assert peak - before < 32 * MB
    small = RawClient(server.url, server.create_account(USDT="1"))
    assert small.raw("POST", "/api/v3/order", "x" * 65_000).status_code in (400, 401)
    assert small.raw("POST", "/api/v3/order", "x" * 66_000).status_code == 413


@pytest.mark.parametrize("kind", ["heads", "silence", "bodies"])
def test_what_others_begin_and_do_not_end_keeps_nobody_out(server: PaperServerProcess, kind: str) -> None:
    client = RawClient(server.url, server.create_account(USDT="10000"))
    with flood(kind, server.port, "/api/v3/order"):
        for _ in range(5):
            assert client.signed("GET", "/api/v3/account").status_code == 200
        assert httpx.get(f"{server.url}/api/v3/ping", timeout=60).status_code == 200
