"""`halt`, `flatten` and `status` beside a mistake in every file that a user edits, and with all but PostgreSQL dead."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.commands.conftest import enter
from tests.support.user_files import USER_FILES
from tradewind import stack
from tradewind.core.types import TradingMode
from tradewind.settings import PROJECT_DIR, Settings
from tradewind.stack.processes import free_ports
from tradewind.wiring import Wiring

BROKEN = {
    ".env": "TRADEWIND_MODE live\nTRADEWIND_ACOUNT_ID=main\nTRADEWIND_STATUS_PORT=none\n\ufffd",
    "include/strategy.toml": "risk_frac = 1 %\n",
}


@pytest.fixture(scope="module")
def broken_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This project, with a mistake in every file that a user edits."""
    project = tmp_path_factory.mktemp("project")
    for name in ("include", "dags", "plugins", "trading_api"):
        shutil.copytree(PROJECT_DIR / name, project / name, ignore=shutil.ignore_patterns("__pycache__"))
    for pattern in USER_FILES:
        files = sorted(project.glob(pattern)) or [project / pattern]
        for file in files:
            file.write_text(BROKEN.get(pattern, "def broken(:\n"), encoding="utf-8")
    return project


@pytest.fixture(scope="module")
def postgres_alone(server_dir: Path) -> Iterator[Settings]:
    """A stack of which only PostgreSQL lives."""
    settings = stack.with_secrets(
        home_dir=server_dir / "postgres-alone", mode="paper", account_id="main", market="synthetic", **free_ports()
    )
    with stack.running_stack(settings, parts={"postgres"}):
        yield settings


def python(project: Path, *arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TRADEWIND_")}
    environment |= {
        "PYTHONPATH": os.pathsep.join([str(project / "include"), str(project)]),
        "TRADEWIND_HOME_DIR": str(home),
    }
    return subprocess.run(
        [sys.executable, *arguments], cwd=project, env=environment, capture_output=True, text=True, check=False
    )


def tradewind(project: Path, *arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    return python(project, "-m", "tradewind.cli", *arguments, home=home)


def test_every_file_of_the_list_exists_or_is_the_users_own_to_make() -> None:
    missing = [pattern for pattern in USER_FILES if not list(PROJECT_DIR.glob(pattern))]
    assert set(missing) <= {".env"}


def test_the_mistakes_are_real(broken_project: Path, tmp_path: Path) -> None:
    for module in ("filters", "gates", "feature_table", "formulas"):
        failed = python(broken_project, "-c", f"import tradewind.core.{module}", home=tmp_path)
        assert "SyntaxError" in failed.stderr
    refused = tradewind(broken_project, "gaps", home=tmp_path)
    assert refused.returncode == 1
    assert refused.stderr.startswith("error: .env: ")


def test_status_halt_and_flatten_work_beside_them(up: Settings, broken_project: Path) -> None:
    with closing(Wiring(up)) as wiring:
        symbol = enter(wiring)
        told = tradewind(broken_project, "status", home=up.home_dir)
        assert told.stdout.startswith("mode paper, account main (the stack that is up in")
        assert f"{symbol} long" in told.stdout, told.stdout + told.stderr

        halted = tradewind(broken_project, "halt", "a test", home=up.home_dir)
        assert halted.returncode == 0, halted.stderr
        assert wiring.trading_store.latch().mode is TradingMode.REDUCE_ONLY

        left = tradewind(broken_project, "flatten", home=up.home_dir)
        assert left.returncode == 0, left.stderr
        assert "Flat, verified after" in left.stdout
        assert "include/strategy.toml: " in left.stderr, "and it says whose values it used"
        assert wiring.trading_store.live_positions() == []
        assert wiring.exchange.open_orders(wiring.symbols) == []
        assert wiring.trading_store.latch().mode is TradingMode.HALTED


def test_positions_are_managed_beside_them(up: Settings, broken_project: Path) -> None:
    jobs = "import tradewind.jobs.positions, tradewind.jobs.safety, tradewind.jobs.accepting, tradewind.wiring"
    done = python(broken_project, "-c", jobs, home=up.home_dir)
    assert done.returncode == 0, done.stderr


def test_with_postgresql_alone_halt_latches_and_flatten_latches_and_says_what_it_needs(
    postgres_alone: Settings, broken_project: Path
) -> None:
    home = postgres_alone.home_dir
    halted = tradewind(broken_project, "halt", "the exchange burns", home=home)
    assert halted.returncode == 0, halted.stderr
    assert halted.stdout.startswith("mode paper, account main")
    told = tradewind(broken_project, "status", home=home)
    assert "latch      reduce_only: the exchange burns" in told.stdout, told.stdout + told.stderr

    left = tradewind(broken_project, "flatten", "--patience-s", "0", home=home)
    assert left.returncode == 1
    assert left.stderr.splitlines()[-1].startswith("error: ")
    assert "Flat" not in left.stdout
    with closing(Wiring(postgres_alone)) as wiring:
        latch = wiring.trading_store.latch()
    assert latch.mode is TradingMode.HALTED
