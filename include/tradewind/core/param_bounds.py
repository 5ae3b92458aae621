"""Which values the strategy's parameters may have: each within its bounds, and each fitting the others."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from functools import cache
from typing import Any, Final, get_args, get_type_hints

from .params import Geometry, StrategyParams

# Of each pair the first must not exceed the second.
ORDERED: Final = (
    ("adx_trend_exit", "adx_trend_enter"),
    ("adx_trend_enter", "adx_strong_enter"),
    ("adx_strong_exit", "adx_strong_enter"),
    ("natr_chaotic_exit_ratio", "natr_chaotic_ratio"),
    ("natr_volatile_exit_quantile", "natr_volatile_quantile"),
    ("natr_volatile_quantile", "natr_chaotic_quantile"),
    ("bandwidth_squeeze_quantile", "bandwidth_squeeze_exit_quantile"),
    ("partial_target_r", "trending.target_r"),
    ("partial_target_r", "ranging.target_r"),
    ("sentiment_veto", "sentiment_raise"),
    ("natr_min_frac", "natr_max_frac"),
    ("max_missing_bars", "completeness_window_bars"),
    ("max_positions_per_symbol", "max_positions"),
    ("risk_frac", "max_open_risk_frac"),
    ("max_symbol_exposure_frac", "max_total_exposure_frac"),
    ("max_daily_loss_frac", "max_drawdown_frac"),
    ("watch_poll_s", "watch_silent_s"),
)
_INTERVAL: Final = re.compile(r"([(\[])(\S+), (\S+)([)\]])")


class BadParameter(ValueError):
    """A parameter that does not exist, or a value that it may not have.

    Parameters
    ----------
    name : of the parameter, `trending.stop_atr` for one of a table.
    problem : what is wrong, in words that follow the name.
    """

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(f"{name} {problem}")
        self.name = name


def params_of(values: Mapping[str, object], leader_symbol: str) -> StrategyParams:
    """The shipped parameters with these values instead; a table such as `trending` is a mapping in it.

    `leader_symbol` is the market leader unless the values name another one. Raises BadParameter for the first value
    that may not be.
    """
    given = {name: _checked(name, value) for name, value in _flat(values)}
    leader = str(given.get("leader_symbol", leader_symbol))
    if leader.partition("/")[0] == leader.partition("/")[2]:
        raise BadParameter("leader_symbol", f"must be named: {leader} is no market")
    params = StrategyParams(leader_symbol=leader)
    for name, value in given.items():
        table, dot, field = name.partition(".")
        changed: dict[str, Any] = {table: replace(getattr(params, table), **{field: value}) if dot else value}
        params = replace(params, **changed)
    for low, high in ORDERED:
        if value_of(params, low) > value_of(params, high):
            name, other = (high, low) if high in given and low not in given else (low, high)
            rule = "must not exceed" if name == low else "must not be less than"
            words = f"= {value_of(params, name)} {rule} {other} = {value_of(params, other)}"
            raise BadParameter(name, words)
    return params


@cache
def bounds() -> dict[str, tuple[type, str]]:
    """Type and bounds of every parameter that may be changed, by its name."""
    return dict(_bounds_of(StrategyParams, ""))


def _bounds_of(kind: type, prefix: str) -> Iterator[tuple[str, tuple[type, str]]]:
    hints = get_type_hints(kind, include_extras=True)
    for field in fields(kind):
        hint = hints[field.name]
        if hint is Geometry:
            yield from _bounds_of(Geometry, f"{field.name}.")
        elif hasattr(hint, "__metadata__"):
            yield prefix + field.name, (get_args(hint)[0], hint.__metadata__[0])


def value_of(params: StrategyParams, name: str) -> Any:
    """A parameter by its name."""
    table, dot, field = name.partition(".")
    value = getattr(params, table)
    return getattr(value, field) if dot else value


def _flat(values: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from ((f"{name}.{field}", inner) for field, inner in value.items())
        else:
            yield name, value


def _checked(name: str, value: object) -> object:
    """The value as its parameter's type. Raises BadParameter."""
    if name not in bounds():
        if isinstance(shipped := getattr(StrategyParams(), name, None), Geometry):
            raise BadParameter(name, f"is a table: write [{name}], and its values below")
        if shipped is not None:
            raise BadParameter(name, "cannot be changed: nothing else is collected")
        close = difflib.get_close_matches(name, bounds(), n=1)
        raise BadParameter(name, f"is no parameter; did you mean {close[0]}?" if close else "is no parameter")
    kind, allowed = bounds()[name]
    if kind is str:
        if not isinstance(value, str) or re.fullmatch(allowed, value) is None:
            raise BadParameter(name, f"= {value!r} must be a text like {value_of(StrategyParams(), name)!r}")
        return value
    if isinstance(value, bool) or not isinstance(value, int if kind is int else int | float):
        raise BadParameter(name, f"= {value!r} must be a {'whole ' if kind is int else ''}number in {allowed}")
    if not is_within(value, allowed):
        raise BadParameter(name, f"= {value} lies outside {allowed}")
    return kind(value)


def is_within(value: float, interval: str) -> bool:
    """Is it in the interval? A value that is no number is in none."""
    found = _INTERVAL.fullmatch(interval)
    assert found is not None, interval
    opens, low, high, closes = found.groups()
    above = value > float(low) if opens == "(" else value >= float(low)
    return above and (value < float(high) if closes == ")" else value <= float(high))
