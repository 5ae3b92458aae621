"""Mode live does not start with a key that may move money out, whatever else is in order."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import typer
from typer.testing import CliRunner

import tradewind.adapters.ccxt_client as ccxt_client
import tradewind.settings as settings_module
from tests.support.http_server import Answer, Request, serving
from tests.support.paper_server import PaperServerProcess
from tradewind.adapters.ccxt_client import CcxtClient, ClientConfig
from tradewind.commands import stack as stack_commands
from tradewind.core.params import StrategyParams
from tradewind.errors import BadInput
from tradewind.settings import load_settings
from tradewind.stack import daemon

STRONG = "q7Zr2mXv9LpTn4Ks8WbY"
# As the exchange's public documentation gives it.
RIGHTS: dict[str, Any] = {
    "ipRestrict": True, "createTime": 1698645219000, "enableReading": True, "enableWithdrawals": False,
    "enableInternalTransfer": False, "enableMargin": False, "enableFutures": False, "permitsUniversalTransfer": False,
    "enableVanillaOptions": False, "enableFixApiTrade": False, "enableSpotAndMarginTrading": True,
    "enablePortfolioMarginTrading": False,
}  # fmt: skip


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Mode live with everything that it asks for; the list tells whether a stack would have been started."""
    settings = {
        "MODE": "live",
        "LIVE_TRADING": "yes-real-money",
        "MAX_CAPITAL_QUOTE": "500",
        "HOME_DIR": str(tmp_path),
    }
    secrets = ("EXCHANGE_API_KEY", "EXCHANGE_API_SECRET", "API_READ_TOKEN", "API_CONTROL_TOKEN")
    for name, value in (settings | dict.fromkeys(secrets, STRONG)).items():
        monkeypatch.setenv(f"TRADEWIND_{name}", value)
    calls: list[str] = []
    monkeypatch.setattr(daemon, "detach", lambda _settings: calls.append("started"))
    monkeypatch.setattr(stack_commands, "_print_addresses", lambda _settings: None)
    return calls


def up(monkeypatch: pytest.MonkeyPatch, rights: dict[str, Any]) -> Any:
    """`./tradewind up --detach` against an exchange that says these rights of the key."""

    def answer(request: Request) -> Answer:
        known = urlsplit(request.path).path == "/sapi/v1/account/apiRestrictions"
        return Answer(200 if known else 404, json.dumps(rights).encode(), {"Content-Type": "application/json"})

    app = typer.Typer(pretty_exceptions_enable=False)
    stack_commands.register(app)
    with serving(answer) as (url, _):
        config = ClientConfig(base_url=url, api_key=STRONG, api_secret=STRONG, weight_per_minute=0.0)
        monkeypatch.setattr(ccxt_client, "client_from_settings", lambda _settings, _redis: CcxtClient(config))
        return CliRunner().invoke(app, ["up", "--detach"])


@pytest.mark.parametrize("right", ["enableWithdrawals", "enableInternalTransfer", "permitsUniversalTransfer"])
def test_a_key_that_may_move_money_out_is_refused(
    started: list[str], monkeypatch: pytest.MonkeyPatch, right: str
) -> None:
    result = up(monkeypatch, RIGHTS | {right: True})
    assert isinstance(result.exception, BadInput)
    assert "may withdraw or transfer" in str(result.exception)
    assert started == []


def test_a_key_that_may_trade_alone_starts(started: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    result = up(monkeypatch, RIGHTS)
    assert result.exit_code == 0, result.exception
    assert started == ["started"]


def test_a_mistake_in_the_strategys_file_starts_nothing(
    started: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "strategy.toml").write_text("risk_frac = 5\n")
    monkeypatch.setattr(settings_module, "STRATEGY_FILE", tmp_path / "strategy.toml")
    result = up(monkeypatch, RIGHTS)
    assert isinstance(result.exception, BadInput)
    assert "line 1: risk_frac = 5 lies outside (0, 0.05]" in str(result.exception)
    assert started == []


def test_markets_that_are_not_listed_are_named_and_what_is_held_is_still_managed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with PaperServerProcess(symbols="ETH/USDT") as server:
        settings = load_settings(
            mode="testnet", home_dir=tmp_path, exchange_url=server.url, symbols=("ETH/USDT", "SOL/USDT")
        )
        stack_commands._tell_missing_markets(settings, StrategyParams())
    said = capsys.readouterr().err
    assert "binance does not list BTC/USDT, the market leader; name another leader_symbol" in said
    assert "binance does not list SOL/USDT: nothing is entered there" in said
