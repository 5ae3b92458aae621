"""The stack of docker-compose.yaml, as it stands there, under an engine of this test's own."""

from __future__ import annotations

import json
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.compose.engine import Engine, missing
from tests.compose.images import make_stand_ins
from tradewind.demo.run import MARKET_START
from tradewind.settings import PROJECT_DIR
from tradewind.stack.compose_secrets import init_compose_secrets
from tradewind.stack.stack import with_secrets

# Kept between runs: the engine's layers and what was fetched, some gigabytes.
DIRECTORY = Path("/var/tmp/tradewind-compose-test")
ONE_SHOT = ("init", "account")
_FILES = ("docker-compose.yaml", "tests/compose/driver.yaml")


@dataclass
class ComposeStack:
    """The running stack, and what is done to it."""

    engine: Engine
    environment: dict[str, str]
    home: Path
    seconds: dict[str, float] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    # ------------------------------------------------------------------------------------------------------- commands
    def argv(self, *arguments: str) -> list[str]:
        files = [argument for name in _FILES for argument in ("--file", name)]
        # A developer's .env is not this test's.
        options = ["--project-directory", str(PROJECT_DIR), "--env-file", "/dev/null", "--profile", "demo"]
        return ["docker", "compose", *files, *options, *arguments]

    def compose(self, *arguments: str, check: bool = True, timeout_s: float = 900) -> str:
        done = self.engine.run(
            *self.argv(*arguments), env=self.environment, cwd=PROJECT_DIR, check=check, timeout_s=timeout_s
        )
        return done.stdout

    def services(self) -> dict[str, dict[str, Any]]:
        """Each container of the stack by its service, as the engine lists it."""
        lines = self.compose("ps", "--all", "--format", "json").splitlines()
        return {row["Service"]: row for row in map(json.loads, lines) if row["Service"] != "driver"}

    def container(self, service: str) -> str:
        return str(self.services()[service]["ID"])

    def inspect(self, service: str) -> dict[str, Any]:
        found: list[dict[str, Any]] = json.loads(self.engine.docker("inspect", self.container(service)))
        return found[0]

    def up(self) -> None:
        """As the environment says now; what it changes is made anew."""
        self.compose("up", "--detach", "--no-build", "--pull", "never")
        self.wait_until_well()

    # ---------------------------------------------------------------------------------------------------------- waits
    def wait_until_well(self, timeout_s: float = 600) -> None:
        """Every service healthy, the one-shot ones ended with success."""
        deadline = time.monotonic() + timeout_s
        while unwell := self.unwell():
            if time.monotonic() > deadline:
                worst = next(iter(unwell))
                raise AssertionError(f"not well: {unwell}\n{self.compose('logs', '--tail', '40', worst, check=False)}")
            time.sleep(2)

    def unwell(self) -> dict[str, str]:
        found = {}
        for name, row in self.services().items():
            well = row["ExitCode"] == 0 and row["State"] == "exited" if name in ONE_SHOT else row["Health"] == "healthy"
            if not well:
                found[name] = f"{row['State']} {row['Health']} {row['ExitCode']}"
        return found

    # ------------------------------------------------------------------------------------------------------ the driver
    def drive(self, step: str, *, at_kill: str = "", timeout_s: float = 900) -> dict[str, Any]:
        """Run a step of drive.py in the stack; kill the service `at_kill` when it says KILL."""
        began = time.monotonic()
        argv = self.argv("run", "--rm", "--no-deps", "-T", "driver", "python", "-m", "tests.compose.drive", step)
        process = subprocess.Popen(
            argv, env=self.engine.environment | self.environment, cwd=PROJECT_DIR, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        watchdog = threading.Timer(timeout_s, process.kill)
        watchdog.start()
        said: list[str] = []
        assert process.stdout is not None
        for line in process.stdout:
            said.append(line.rstrip())
            if at_kill and line.strip().startswith("KILL"):
                self.engine.kill(self.container(at_kill))
                self.drive("faults_off")
        watchdog.cancel()
        assert process.wait() == 0, "\n".join(said[-60:])
        self.seconds[step] = round(time.monotonic() - began, 1)
        print("\n".join(said))
        answer: dict[str, Any] = json.loads(said[-1])
        return answer


@pytest.fixture(scope="session")
def compose_file() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((PROJECT_DIR / "docker-compose.yaml").read_text())
    return loaded


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    if lack := missing():
        pytest.skip(f"no engine can run here: {lack}")
    DIRECTORY.mkdir(mode=0o700, exist_ok=True)
    with Engine(DIRECTORY / "engine") as engine:
        yield engine


@pytest.fixture(scope="session")
def stack(engine: Engine, compose_file: dict[str, Any]) -> Iterator[ComposeStack]:
    """Up, with everything well; down with its volumes when the session ends."""
    make_stand_ins(engine, DIRECTORY, compose_file)
    with tempfile.TemporaryDirectory(prefix="tradewind-compose-") as home:
        init_compose_secrets(with_secrets(mode="demo", home_dir=Path(home)))
        # Everything else keeps the defaults that the compose file gives it.
        environment = {
            "TRADEWIND_HOME_DIR": home,
            "TRADEWIND_MARKET_START": MARKET_START.isoformat(),
        }
        stack = ComposeStack(engine, environment, Path(home))
        stack.compose("down", "--volumes", "--remove-orphans", "--timeout", "5", check=False)
        try:
            began = time.monotonic()
            # All of our services are of one image; the classic builder would make it a dozen times at once.
            stack.compose("build", "init", timeout_s=1800)
            stack.engine.docker("container", "prune", "--force")
            stack.engine.docker("image", "prune", "--force")
            stack.seconds["build"] = round(time.monotonic() - began, 1)
            began = time.monotonic()
            stack.up()
            stack.seconds["up"] = round(time.monotonic() - began, 1)
            yield stack
        finally:
            with suppress(subprocess.TimeoutExpired):
                (DIRECTORY / "last.log").write_text(stack.compose("logs", "--no-color", "--timestamps", check=False))
            stack.compose("down", "--volumes", "--remove-orphans", "--timeout", "5", check=False)
