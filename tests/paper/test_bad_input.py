"""Whatever is sent, the answer is Binance's error: never a 500, never a silent success of something else."""

from __future__ import annotations

import random

import pytest

from tests.support.paper_requests import RawClient
from tests.support.paper_server import PaperServerProcess
from tradewind.paper import server as _server  # noqa: F401 - fills the table of endpoints
from tradewind.paper.endpoints import ENDPOINTS

NASTY = (
    "", "0", "1", "-1", "9223372036854775807", "9223372036854775808", "99999999999999999999", "0.00000001",
    "0.000000001", "100000000000", "1e5", "NaN", "inf", "null", "BTCUSDT", "ETHUSDT", "NOPE", "BUY", "SELL", "LIMIT",
    "MARKET", "STOP_LOSS", "TAKE_PROFIT_LIMIT", "LIMIT_MAKER", "GTC", "FOK", "true", "false", "[]", '["BTCUSDT"]',
    '["BTCUSDT"', "{}", "1m", "1M", "7d", "-12:00", "é", "\x00", "%", "a" * 50, "'; DROP TABLE x; --", "60000",
    "40000.00", "0.01", "FULL", "MINI", "ALLOW_FAILURE", "1000000", "1760000000000",
)  # fmt: skip


@pytest.mark.parametrize("seed", range(4))
def test_no_input_makes_the_server_fail(paper_server: PaperServerProcess, seed: int) -> None:
    paper_server.admin.set_clock(1_760_000_040_000)
    client = RawClient(paper_server.url, paper_server.create_account(USDT="100000", BTC="5"))
    rng = random.Random(seed)
    answers: dict[int, int] = {}
    for (method, path), endpoint in ENDPOINTS.items():
        names = [n for n in endpoint.params if n not in ("timestamp", "signature")]
        for _ in range(12):
            sent = {n: rng.choice(NASTY) for n in names if n in endpoint.required or rng.random() < 0.3}
            if "symbol" in sent and rng.random() < 0.8:
                sent["symbol"] = "BTCUSDT"
            if rng.random() < 0.1:
                sent[rng.choice(("foo", "symbol ", "Symbol"))] = rng.choice(NASTY)
            if endpoint.security.is_signed:
                answer = client.signed(method, path, in_body=method != "GET" and rng.random() < 0.5, **sent)
            else:
                answer = client.public(path, method, **sent)
            assert answer.status_code in (200, 400, 401, 404, 409), (method, path, sent, answer.text)
            if answer.status_code != 200:
                assert set(answer.json()) <= {"code", "msg", "data"}
                assert answer.json()["code"] < 0
            answers[answer.status_code] = answers.get(answer.status_code, 0) + 1
    assert answers[400] > 100
    assert "defect" not in paper_server.log()


@pytest.mark.parametrize(
    ("method", "target", "body"),
    [
        ("POST", "/api/v3/order", "\xff\xfe"),
        ("POST", "/api/v3/order?symbol=%ff", ""),
        ("POST", "/api/v3/order", '{"symbol": "BTCUSDT"}'),
        ("DELETE", "/api/v3/order?&&&=", ""),
        ("GET", "/api/v3/klines?symbol=BTCUSDT&interval=15m&limit=10&startTime=9999999999999999", ""),
        ("GET", "//api/v3/ping", ""),
        ("GET", "/api/v3/ping/", ""),
        ("POST", "/__admin/accounts", "[]"),
    ],
)
def test_malformed_requests(paper_server: PaperServerProcess, method: str, target: str, body: str) -> None:
    client = RawClient(paper_server.url, paper_server.create_account(USDT="1"))
    assert client.raw(method, target, body).status_code < 500
    assert "defect" not in paper_server.log()


def test_bad_account_requests(paper_server: PaperServerProcess) -> None:
    for body in (
        {"balances": {"USDT": "-1"}},
        {"balances": {"USDT": "NaN"}},
        {"balances": {"USDT": "many"}},
        {"balances": "rich"},
        {"wealth": 1},
    ):
        with pytest.raises(Exception, match="refused POST accounts"):
            paper_server.admin._call("POST", "accounts", body)
