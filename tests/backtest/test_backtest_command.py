from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from tests.backtest.test_candle_files import write
from tests.support.trading import random_bars
from tradewind.commands import backtest
from tradewind.errors import BadInput

app = typer.Typer()
app.callback()(lambda: None)
backtest.register(app)


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["backtest", *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_a_rule_over_files_gives_numbers_and_a_report(tmp_path: Path) -> None:
    write(tmp_path, random_bars(count=5000, volatility=0.006))
    numbers, report = tmp_path / "out" / "run.json", tmp_path / "out" / "run.html"
    output = run(
        "--rule", "ema_cross", "--candles", str(tmp_path), "--symbols", "SOL/USDT",
        "--json", str(numbers), "--report", str(report),
    )  # fmt: skip
    assert "Filter funnel" in output
    data = json.loads(numbers.read_text())
    assert data["performance"]["trades"] == len(data["trades"]) > 10
    assert data["bars"] == 5000
    assert {fill["client_order_id"] for fill in data["fills"]} <= {o["client_order_id"] for o in data["orders"]}
    assert "ema_cross" in report.read_text()


def test_a_quick_run_says_the_same_numbers_without_the_funnel(tmp_path: Path) -> None:
    write(tmp_path, random_bars(count=5000, volatility=0.006))
    asked = ("--rule", "ema_cross", "--candles", str(tmp_path), "--symbols", "SOL/USDT")
    whole, quick = run(*asked), run(*asked, "--quick")
    assert "compiled" in quick
    assert "Filter funnel" not in quick
    numbers = [line for line in whole.splitlines() if "│" in line][:10]
    assert len(numbers) == 10
    assert set(numbers) <= set(quick.splitlines())
    with pytest.raises(BadInput, match="--quick keeps no orders"):
        run(*asked, "--quick", "--json", str(tmp_path / "run.json"))


def test_the_range_is_honoured(tmp_path: Path) -> None:
    write(tmp_path, random_bars(count=3000))
    numbers = tmp_path / "run.json"
    run(
        "--rule", "ema_cross", "--candles", str(tmp_path), "--symbols", "SOL/USDT", "--json", str(numbers),
        "--from", "2024-02-20", "--to", "2024-02-25T12:00",
    )  # fmt: skip
    assert json.loads(numbers.read_text())["bars"] == 5 * 96 + 48


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--symbols", "SOL/USDT", "--rule", "nonsense"], "ema_cross"),
        (["--symbols", ","], "names no symbol"),
        (["--symbols", "SOL/USDT", "--rule", "ema_cross", "--from", "yesterday"], "--from"),
        (["--symbols", "SOL/USDT", "--models", "latest"], "--models"),
    ],
)
def test_bad_arguments_say_what_to_write(tmp_path: Path, arguments: list[str], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        run(*arguments, "--candles", str(tmp_path))
