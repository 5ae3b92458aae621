"""The file of the strategy's values, `include/strategy.toml`, which the deployment's owner edits."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from tradewind.core.param_bounds import BadParameter, params_of
from tradewind.core.params import StrategyParams
from tradewind.errors import BadInput


def load_params(file: Path, leader_symbol: str) -> StrategyParams:
    """The shipped parameters with the file's values instead; `leader_symbol` leads unless the file names another.

    Raises BadInput, in one line that names the file, the line, the parameter and its bounds.
    """
    named = Path(*file.parts[-2:])
    try:
        text = file.read_text(encoding="utf-8")
        return params_of(tomllib.loads(text), leader_symbol)
    except FileNotFoundError:
        raise BadInput(f"{file} does not exist: an empty file is the shipped strategy") from None
    except tomllib.TOMLDecodeError as error:
        raise BadInput(f"{named}: {error}") from None
    except BadParameter as error:
        raise BadInput(f"{named}{_place(text, error.name)}: {error}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{file} cannot be read: {error}") from None


def leader_of(file: Path, leader_symbol: str) -> str:
    """The market leader that the file names, else `leader_symbol`, also where the file cannot be used."""
    try:
        return load_params(file, leader_symbol).leader_symbol
    except BadInput:
        return leader_symbol


def _place(text: str, name: str) -> str:
    """Where the file sets a parameter, as ` line 12`; nothing where that cannot be told."""
    table, _, field = name.rpartition(".")
    here = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if header := re.match(r"\s*\[\s*([^]]*?)\s*\]", line):
            here = header[1]
        elif re.match(rf"\s*[\"']?{re.escape(field if here == table else name)}[\"']?\s*=", line):
            return f" line {number}"
    return ""
