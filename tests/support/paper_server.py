"""A paper exchange as a process of its own, for tests that trade over HTTP."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import ccxt
import httpx

from tradewind.paper.admin import PaperAccount, PaperAdmin
from tradewind.stack.processes import free_port

_INCLUDE = Path(__file__).parents[2] / "include"
_START_S = 60.0


class PaperServerProcess:
    """Starts `python -m tradewind.paper` on a free port; `database_url` "" keeps nothing across restarts."""

    def __init__(
        self,
        database_url: str = "",
        *,
        symbols: str = "BTC/USDT,ETH/USDT",
        seed: int = 7,
        structure: float = 1.0,
        market: str = "synthetic",
        weight_limit: int = 1_000_000,
        order_limit: int = 1_000_000,
        kept_orders: int = 20_000,
        own_time: bool = False,
        options: tuple[str, ...] = (),
    ) -> None:
        self.database_url = database_url
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.token = secrets.token_hex(16)
        self.admin = PaperAdmin(self.url, self.token)
        self._arguments = [
            "--symbols", symbols, "--seed", str(seed), "--structure", str(structure), "--market", market,
            "--weight-limit", str(weight_limit), "--order-limit", str(order_limit), "--kept-orders", str(kept_orders),
            *options,
        ]  # fmt: skip
        if own_time:
            self._arguments.append("--own-time")
        self._process: subprocess.Popen[bytes] | None = None
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start and wait until it answers."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith("TRADEWIND_")}
        environment |= {"PYTHONPATH": str(_INCLUDE), "TRADEWIND_EXCHANGE_ADMIN_TOKEN": self.token}
        command = [sys.executable, "-m", "tradewind.paper", "--port", str(self.port), *self._arguments]
        command += ["--database-url", self.database_url] if self.database_url else ["--memory"]
        self._process = subprocess.Popen(command, env=environment, stdout=self._log, stderr=self._log)
        self.wait()

    def wait(self) -> None:
        """Wait until it answers; raises RuntimeError with its log when it ends instead."""
        assert self._process is not None
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            try:
                if httpx.get(f"{self.url}/api/v3/ping", timeout=1).status_code == 200:
                    return
            except httpx.HTTPError:
                time.sleep(0.05)
        self.stop()
        raise RuntimeError(f"the paper exchange did not start:\n{self.log()}")

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def log(self) -> str:
        self._log.seek(0)
        return self._log.read().decode(errors="replace")

    def kill(self) -> None:
        """kill -9: nothing is flushed, nobody is told."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()

    def stop(self) -> int | None:
        """SIGTERM, and wait. Returns the exit status."""
        if self._process is None:
            return None
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        return self._process.returncode

    def create_account(self, **balances: str) -> PaperAccount:
        return self.admin.create_account(balances or None)

    def client(self, account: PaperAccount | None = None, **options: Any) -> ccxt.binance:
        """A ccxt client whose every host is this exchange."""
        spot_only = {"fetchCurrencies": False, "fetchMargins": False, "fetchMarkets": {"types": ["spot"]}}
        found = ccxt.binance({"enableRateLimit": False, "options": {**spot_only, **options}})
        if account is not None:
            found.apiKey, found.secret = account.api_key, account.api_secret
        for name, url in found.urls["api"].items():
            if isinstance(url, str) and url.startswith("https://"):
                found.urls["api"][name] = self.url + "/" + url.split("/", 3)[3]
        return found
