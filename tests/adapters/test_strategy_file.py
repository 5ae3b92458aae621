"""The file of the strategy's values: what is shipped in it is what the code says, and a mistake is told in one line."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from tradewind.adapters.strategy_file import leader_of, load_params
from tradewind.core.param_bounds import bounds, params_of
from tradewind.core.params import StrategyParams
from tradewind.errors import BadInput
from tradewind.settings import STRATEGY_FILE

SHIPPED = StrategyParams()
# A line that sets nothing until its mark is taken away: `# risk_frac = 0.01  # (0, 0.05]`.
_ASLEEP = re.compile(r"^# (\[\w+\]|\w+ = .*)$", re.MULTILINE)


def written(directory: Path, text: str) -> Path:
    file = directory / "strategy.toml"
    file.write_text(text, encoding="utf-8")
    return file


def test_the_shipped_file_changes_nothing() -> None:
    assert load_params(STRATEGY_FILE, "BTC/USDT") == SHIPPED


def test_the_shipped_file_shows_every_value_and_its_bounds_as_the_code_has_them(tmp_path: Path) -> None:
    awake = _ASLEEP.sub(r"\1", STRATEGY_FILE.read_text(encoding="utf-8"))
    values = tomllib.loads(awake)
    assert load_params(written(tmp_path, awake), "BTC/USDT") == params_of(values, "BTC/USDT") == SHIPPED
    shown, table = {}, ""
    for line in awake.splitlines():
        if header := re.fullmatch(r"\[(\w+)\]", line):
            table = f"{header[1]}."
        elif setting := re.fullmatch(r"(\w+) = \S+(?:  # ([(\[].*?[)\]])?.*)?", line):
            shown[table + setting[1]] = setting[2]
    assert shown.keys() == bounds().keys()
    assert {name: told for name, told in shown.items() if told} == {
        name: allowed for name, (kind, allowed) in bounds().items() if kind is not str
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("min_expected_r = 0.2\n\nrisk_frac = 5\n", "/strategy.toml line 3: risk_frac = 5 lies outside (0, 0.05]"),
        ("[trending]\nstop_atr = 3\n\n[ranging]\nstop_atr = -1\n", "line 5: ranging.stop_atr = -1 lies outside"),
        ("trending.stop_atr = 99\n", "line 1: trending.stop_atr = 99 lies outside"),
        ("min_expected_r = 0.2\nrisk_frac = = 1\n", "at line 2, column"),
        ("risk_frac = 0.01\nrisk_frac = 0.02\n", "at line 2, column"),
        ("def broken(:\n", "at line 1, column"),
    ],
)
def test_a_mistake_is_one_line_with_file_and_place(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(BadInput) as refused:
        load_params(written(tmp_path, text), "BTC/USDT")
    said = str(refused.value)
    assert words in said
    assert f"{tmp_path.name}/strategy.toml" in said
    assert "\n" not in said


def test_a_file_that_is_not_there_or_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="an empty file is the shipped strategy"):
        load_params(tmp_path / "strategy.toml", "BTC/USDT")
    (tmp_path / "strategy.toml").write_bytes(b"risk_frac = 0.01 # \xff\n")
    with pytest.raises(BadInput, match="cannot be read"):
        load_params(tmp_path / "strategy.toml", "BTC/USDT")


def test_the_leader_is_known_also_beside_a_mistake(tmp_path: Path) -> None:
    assert leader_of(written(tmp_path, 'leader_symbol = "ETH/EUR"\n'), "BTC/EUR") == "ETH/EUR"
    assert leader_of(written(tmp_path, 'leader_symbol = "ETH/EUR"\nrisk_frac = 5\n'), "BTC/EUR") == "BTC/EUR"
