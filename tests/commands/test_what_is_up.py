"""Every command acts on the account whose stack is up in this home, says so first, or refuses in words.

A stack of mode paper is up under the account `main`; beside it the same server holds a demo's database, on which each
of these commands would succeed as well.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row
from typer.main import get_command
from typer.testing import CliRunner

import tradewind.settings as settings_module
from tests.commands.conftest import enter
from tradewind import cli
from tradewind.adapters.migrations import migrate
from tradewind.commands.stack import down
from tradewind.core.types import TradingMode
from tradewind.errors import BadInput, BadSetting
from tradewind.settings import Settings, load_settings
from tradewind.stack import daemon
from tradewind.stack.processes import ProcessMark
from tradewind.stack.running import find_target
from tradewind.stack.state import Deployment, StackState, state_file
from tradewind.wiring import Wiring

# How each command is called here; what it finds out about its own arguments comes after the first line.
CALLS = {
    "halt": ["a test"],
    "resume": [],
    "flatten": ["--patience-s", "0"],
    "accept": ["DOGE", "--reason", "a test"],
    "adopt": ["ETH/USDT", "--stop-frac", "0.02"],
    "write-off": ["none", "--reason", "a test"],
    "drill breaker": [],
    "backup": ["{files}/backup.tar"],
    "import": ["{files}/SOL_USDT-15m.csv"],
    "gaps": [],
    "history": [],
    "parity": ["--since", "2026-01-05"],
    "backtest": ["--symbols", "BTC/USDT"],
    "study": ["a-study", "--symbols", "BTC/USDT"],
    "models list": [],
    "models show": ["none"],
    "models promote": ["none"],
    "models rollback": [],
    "doctor features": [],
    "doctor exchange": [],
    "doctor machine": [],
    "status": [],
}
# These start what is not up yet, run servers of their own, hand over to another program, or read files alone. `down`
# ends what is up, whatever the shell says: it has a test of its own.
APART = {
    "up", "demo", "restore", "secrets init", "bench", "paper", "test", "airflow", "logs", "models validate", "down",
}  # fmt: skip


@pytest.fixture
def shell(up: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A shell that knows nothing but the home, in a project without `.env`."""
    monkeypatch.setattr(settings_module, "PROJECT_DIR", tmp_path)
    monkeypatch.setenv("TRADEWIND_HOME_DIR", str(up.home_dir))
    (tmp_path / "SOL_USDT-15m.csv").write_text("open_time,open,high,low,close,volume\n1700000100000,1,2,1,2,5\n")
    return monkeypatch


def run(command: str, *more: str, files: Path) -> Any:
    if not cli.app.registered_commands:
        cli._register()
    arguments = [argument.format(files=files) for argument in CALLS[command]]
    return CliRunner().invoke(cli.app, [*command.split(), *arguments, *more])


def first_line(result: Any) -> str:
    return str(result.stdout.splitlines()[0]) if result.stdout else ""


def row(settings: Settings, sql: str) -> Mapping[str, Any] | None:
    with psycopg.connect(settings.database_url.get_secret_value(), row_factory=dict_row) as connection:
        return connection.execute(sql).fetchone()


def demos_traces(up: Settings) -> int:
    """What the commands of this file left in the demo's database."""
    url = up.database_url.get_secret_value().replace("tradewind_paper", "tradewind_demo")
    with psycopg.connect(url) as connection:
        counted = connection.execute(
            "SELECT (SELECT count(*) FROM latches) + (SELECT count(*) FROM audit) + (SELECT count(*) FROM jobs) "
            "+ (SELECT count(*) FROM candles)"
        ).fetchone()
    assert counted is not None
    return int(counted[0])


def names() -> set[str]:
    """Every command, with its group."""
    if not cli.app.registered_commands:
        cli._register()

    def below(command: Any, prefix: str) -> Iterator[str]:
        for name, sub in command.commands.items():
            if hasattr(sub, "commands"):
                yield from below(sub, f"{prefix}{name} ")
            else:
                yield f"{prefix}{name}"

    return set(below(get_command(cli.app), ""))


def test_no_command_is_left_out() -> None:
    assert names() == CALLS.keys() | APART


@pytest.mark.parametrize("command", CALLS)
def test_a_shell_without_settings_acts_on_what_is_up(
    command: str, up: Settings, shell: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    result = run(command, files=tmp_path)
    assert first_line(result) == f"mode paper, account main (the stack that is up in {up.home_dir})", result.output
    assert not isinstance(result.exception, BadSetting)
    assert demos_traces(up) == 0


@pytest.mark.parametrize("command", CALLS)
@pytest.mark.parametrize(
    "says",
    [{"MODE": "demo"}, {"ACCOUNT_ID": "other"}, {"MODE": "live", "ACCOUNT_ID": "real", "EXCHANGE": "okx"}],
    ids=["another mode", "another account", "real money"],
)
def test_a_shell_that_names_another_account_is_refused(
    command: str, says: dict[str, str], up: Settings, shell: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    latch = row(up, "SELECT * FROM latches")
    for name, value in says.items():
        shell.setenv(f"TRADEWIND_{name}", value)
    result = run(command, files=tmp_path)
    assert isinstance(result.exception, BadInput), result.output
    said = str(result.exception)
    assert said.startswith(f"mode paper, account main is up in {up.home_dir}, but here")
    for name, value in says.items():
        assert f"TRADEWIND_{name} is {value} in the environment" in said
    assert "\n" not in said
    assert row(up, "SELECT * FROM latches") == latch
    assert demos_traces(up) == 0


def test_what_the_refusal_says_to_type_works(up: Settings, shell: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("TRADEWIND_MODE=testnet\nTRADEWIND_ACCOUNT_ID=other\n")
    refused = run("halt", files=tmp_path)
    assert "TRADEWIND_MODE is testnet in .env" in str(refused.exception)
    for name, value in re.findall(r"(TRADEWIND_\w+)=(\S+)", str(refused.exception)):
        shell.setenv(name, value)
    assert first_line(run("halt", files=tmp_path)).startswith("mode paper, account main")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        (
            "DATABASE_URL",
            "postgresql://me:" + "hidden@db.example/tradewind_live",
            "db.example:5432/tradewind_live",
        ),
        ("EXCHANGE_API_KEY", "anotherAccountsKeyAtTheExchange", "TRADEWIND_EXCHANGE_API_KEY is another key"),
    ],
)
def test_another_database_or_key_is_refused_without_its_secret(
    name: str, value: str, words: str, up: Settings, shell: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shell.setenv(f"TRADEWIND_{name}", value)
    result = run("flatten", files=tmp_path)
    assert isinstance(result.exception, BadInput)
    assert words in str(result.exception)
    assert "hidden" not in str(result.exception)
    assert "anotherAccountsKey" not in str(result.exception)


def test_a_database_that_this_shell_does_not_know_is_no_reason_to_take_another(
    up: Settings, shell: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    home = tmp_path / "external"
    settings = load_settings(home_dir=home, mode="paper", database_url="postgresql://me:hidden@db.example/ours")
    write_record(settings)
    assert "hidden" not in state_file(home).read_text()
    shell.setenv("TRADEWIND_HOME_DIR", str(home))
    result = run("halt", files=tmp_path)
    assert isinstance(result.exception, BadInput)
    assert "TRADEWIND_DATABASE_URL gives none instead of db.example:5432/ours" in str(result.exception)


def test_what_a_stack_writes_down_holds_no_secret(up: Settings) -> None:
    text = state_file(up.home_dir).read_text()
    for name in settings_module.SECRET_FIELDS - {"alert_urls"}:
        secret = getattr(up, name).get_secret_value()
        assert not secret or secret not in text, name


def test_halt_flatten_and_resume_act_on_what_trades(up: Settings, shell: pytest.MonkeyPatch, tmp_path: Path) -> None:
    wiring = Wiring(up)
    try:
        if wiring.trading_store.latch().mode is not TradingMode.ACTIVE:
            assert run("resume", files=tmp_path).exit_code == 0
        enter(wiring)
        assert [p.symbol for p in wiring.trading_store.live_positions()] == ["BTC/USDT"]
        halted = run("halt", "--json", files=tmp_path)
        told = json.loads(halted.stdout)
        assert (told["account"], told["mode"]) == ("main", "reduce_only")
        assert halted.stderr.startswith("mode paper, account main")
        flat = run("flatten", files=tmp_path)
        assert flat.exit_code == 0, flat.output
        assert "Flat, verified" in flat.stdout
        assert wiring.trading_store.live_positions() == []
        assert wiring.trading_store.latch().mode is TradingMode.HALTED
        assert run("resume", files=tmp_path).exit_code == 0
        assert wiring.trading_store.latch().mode is TradingMode.ACTIVE
    finally:
        wiring.close()
    assert demos_traces(up) == 0


def test_settings_that_name_no_account_are_the_stacks_own_and_told_of(
    up: Settings, shell: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text("TRADEWIND_SYMBOLS=DOGE/USDT\nTRADEWIND_QUOTE_CURENCY=EUR\nTRADEWIND_MODE\n")
    result = run("halt", files=tmp_path)
    assert result.exit_code == 0, result.output
    assert "ignored: TRADEWIND_SYMBOLS in .env is not what the stack was started with" in result.stderr
    assert "ignored: TRADEWIND_QUOTE_CURENCY: is no setting of Tradewind" in result.stderr
    assert "ignored: .env: line 3 gives no value" in result.stderr


def test_a_reload_with_a_mistake_in_the_strategys_file_leaves_the_old_code_running(
    up: Settings, shell: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    reloaded: list[Settings] = []
    shell.setattr(daemon, "reload", reloaded.append)
    shell.setattr(settings_module, "STRATEGY_FILE", tmp_path / "strategy.toml")
    (tmp_path / "strategy.toml").write_text("risk_frac = 5\n")
    refused = CliRunner().invoke(cli.app, ["up", "--reload"])
    assert "strategy.toml line 1: risk_frac = 5 lies outside (0, 0.05]" in str(refused.exception)
    assert reloaded == []
    (tmp_path / "strategy.toml").write_text("risk_frac = 0.005\n")
    done = CliRunner().invoke(cli.app, ["up", "--reload"])
    assert done.exit_code == 0, done.output
    assert first_line(done).startswith("mode paper, account main")
    assert [settings.account_id for settings in reloaded] == ["main"]


def test_a_stack_that_was_killed_is_still_what_its_positions_belong_to(
    shell: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    home = tmp_path / "killed"
    write_record(load_settings(home_dir=home, mode="paper", account_id="mine"), ProcessMark(2**22 - 1, 1.0))
    shell.setenv("TRADEWIND_HOME_DIR", str(home))
    assert find_target().words == f"mode paper, account mine (the stack that was killed in {home})"


def test_down_ends_what_is_up_whatever_the_shell_says(
    shell: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "ended"
    write_record(load_settings(home_dir=home, mode="paper", account_id="mine"), ProcessMark(2**22 - 1, 1.0))
    shell.setenv("TRADEWIND_HOME_DIR", str(home))
    shell.setenv("TRADEWIND_MODE", "lvie")
    down()
    assert capsys.readouterr().out.splitlines()[0].startswith("mode paper, account mine")
    assert not state_file(home).exists()


def test_without_a_stack_the_settings_count_and_other_accounts_are_named(
    shell: pytest.MonkeyPatch, postgres_url: str, tmp_path: Path
) -> None:
    """As in compose: what runs is known from the environment alone."""
    shell.setenv("TRADEWIND_HOME_DIR", str(tmp_path / "elsewhere"))
    shell.setenv("TRADEWIND_DATABASE_URL", postgres_url)
    migrate(postgres_url, load_settings().identity)
    shell.setenv("TRADEWIND_ACCOUNT_ID", "demo-of-yesterday")
    assert run("halt", files=tmp_path).exit_code == 0
    shell.delenv("TRADEWIND_ACCOUNT_ID")
    result = run("halt", files=tmp_path)
    assert first_line(result) == f"mode demo, account demo (by the settings; no stack is up in {tmp_path}/elsewhere)"
    assert "warning: account demo-of-yesterday is left alone: latch reduce_only, positions none" in result.stderr
    assert "TRADEWIND_ACCOUNT_ID=demo-of-yesterday" in result.stderr


def write_record(settings: Settings, supervisor: ProcessMark | None = None) -> None:
    """What a stack of these settings writes down; this process stands for its supervisor."""
    path = state_file(settings.home_dir)
    path.parent.mkdir(parents=True)
    mark = supervisor or ProcessMark.of(os.getpid())
    StackState(mark, "ready", deployment=Deployment.of(settings)).save(path)
