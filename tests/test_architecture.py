"""The house's rules that no type checker holds: who imports whom, who reads the environment, what the command loads."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = ROOT / "include" / "tradewind"
# Besides settings.py: processes of the stack inherit PATH, HOME and certificates from whoever starts them, and the
# service that tidies Airflow's logs reads where Airflow was told to write them.
READS_ENVIRONMENT = {"settings.py", "commands/stack.py"} | {
    f"stack/{name}.py" for name in ("environment", "daemon", "maintenance", "postgres_files", "valkey")
}
HEAVY = ("airflow", "catboost", "ccxt", "lightgbm", "numpy", "pandas", "psycopg", "redis", "sklearn", "xgboost")


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "include"), str(ROOT)])}


def test_imports_go_one_way() -> None:
    argv = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    done = subprocess.run(argv, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def sources() -> list[str]:
    return sorted(str(path.relative_to(LIBRARY)) for path in LIBRARY.rglob("*.py"))


@pytest.mark.parametrize("source", sources())
def test_only_settings_read_the_environment(source: str) -> None:
    tree = ast.parse((LIBRARY / source).read_text())
    names = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    names |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert source in READS_ENVIRONMENT or not names & {"environ", "getenv"}


def test_the_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from tradewind import cli\n"
        "cli._register()\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_command_has_help() -> None:
    from typer.main import get_command

    from tradewind import cli

    if not cli.app.registered_commands:
        cli._register()
    command = get_command(cli.app)
    assert not [name for name, sub in command.commands.items() if not (sub.help or "").strip()]  # type: ignore[attr-defined]
