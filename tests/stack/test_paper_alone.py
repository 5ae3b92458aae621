"""`./tradewind paper`: one line of JSON, and an account with which any client can trade at once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest

from tests.support.paper_requests import RawClient
from tradewind.paper.admin import PaperAccount
from tradewind.stack.postgres import discard
from tradewind.stack.processes import free_port

ROOT = Path(__file__).parents[2]


def hear_interrupts() -> None:
    """What a shell starts in its background ignores Ctrl-C, and so would what the suite starts there."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.timeout(180)
def test_prints_a_line_serves_and_stops(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "include"), "TRADEWIND_HOME_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "tradewind.cli", "paper", "--port", str(free_port())]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, preexec_fn=hear_interrupts)
    try:
        assert process.stdout is not None
        printed = json.loads(process.stdout.readline())
        assert set(printed) == {"url", "api_key", "api_secret"}
        client = RawClient(printed["url"], PaperAccount("", printed["api_key"], printed["api_secret"]))
        held = {b["asset"]: Decimal(b["free"]) for b in client.signed("GET", "/api/v3/account").json()["balances"]}
        assert held["USDT"] == 10_000
        assert min(held.values()) > 0
        assert len(held) == 6
        for side in ("BUY", "SELL"):
            sent = {"symbol": "BTCUSDT", "side": side, "type": "MARKET", "quantity": "0.001"}
            assert client.signed("POST", "/api/v3/order", **sent).json()["status"] == "FILLED"
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(60) in (0, 130)  # as after Ctrl-C
        discard(tmp_path / "paper-alone" / "postgres")
