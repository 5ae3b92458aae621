"""What a key may do, as each exchange tells it; the shapes are those of the exchanges' public documentation."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.jobs.conftest import make_rig, paper_server
from tests.support.http_server import Answer, Request, serving
from tests.support.paper_server import PaperServerProcess
from tradewind.adapters.ccxt_client import CcxtClient, ClientConfig
from tradewind.adapters.ccxt_key_rights import UNTOLD, key_rights
from tradewind.core.ports import KeyRights

__all__ = ["make_rig", "paper_server"]

BYBIT = {
    "retCode": 0, "retMsg": "", "time": 1,
    "result": {
        "readOnly": 0, "ips": ["203.0.113.7"],
        "permissions": {"Spot": ["SpotTrade"], "Wallet": ["AccountTransfer"], "ContractTrade": []},
    },
}  # fmt: skip
OKX = {"code": "0", "msg": "", "data": [{"uid": "1", "perm": "read_only,trade", "ip": ""}]}
BITGET = {
    "code": "00000", "msg": "success", "requestTime": 1,
    "data": {"userId": "1", "ips": "", "authorities": ["stow", "wtow"]},
}  # fmt: skip
TOLD = [
    ("bybit", "/v5/user/query-api", BYBIT, KeyRights(True, True, True)),
    ("okx", "/api/v5/account/config", OKX, KeyRights(True, False, False)),
    ("bitget", "/api/v2/spot/account/info", BITGET, KeyRights(True, True, False)),
]


def client(exchange: str, url: str, **options: Any) -> CcxtClient:
    made = CcxtClient(
        ClientConfig(
            exchange_id=exchange, base_url=url, api_key="key", api_secret="c2VjcmV0", weight_per_minute=0.0, **options
        )
    )
    made.exchange.password = "phrase"
    return made


@pytest.mark.parametrize(("exchange", "path", "body", "rights"), TOLD, ids=[row[0] for row in TOLD])
def test_rights_as_told(exchange: str, path: str, body: Any, rights: KeyRights) -> None:
    def answer(request: Request) -> Answer:
        known = urlsplit(request.path).path == path
        return Answer(200 if known else 404, json.dumps(body).encode(), {"Content-Type": "application/json"})

    with serving(answer) as (url, _):
        assert key_rights(client(exchange, url)) == rights


def test_the_paper_exchange_tells_as_binance_does(paper_server: PaperServerProcess) -> None:
    account = paper_server.create_account()
    reader = paper_server.admin.create_key(account.account_id, can_trade=False)
    for key, may_trade in ((account, True), (reader, False)):
        config = ClientConfig(
            base_url=paper_server.url, api_key=key.api_key, api_secret=key.api_secret, weight_per_minute=0.0
        )
        assert key_rights(CcxtClient(config)) == KeyRights(may_trade, False, False)


def test_who_does_not_tell() -> None:
    assert key_rights(client("kraken", "http://127.0.0.1:9")) == UNTOLD
    assert key_rights(client("binance", "http://127.0.0.1:9", testnet=True)) == UNTOLD
    assert key_rights(CcxtClient(ClientConfig())) == UNTOLD
