"""Frozen values with some fields changed, where it happens so often that `dataclasses.replace` is felt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass
from operator import attrgetter
from typing import Any, TypeVar, cast

Value = TypeVar("Value")
_Plan = tuple[Callable[[Any], tuple[Any, ...]], dict[str, int], tuple[Callable[[Any, Any], None], ...]]
_plans: dict[type, _Plan] = {}


def changed(value: Value, **changes: Any) -> Value:
    """What `dataclasses.replace` gives, a third of its time. Raises KeyError for a field that does not exist.

    Only for dataclasses with slots, two fields or more and no `__post_init__`; raises TypeError for any other.
    """
    kind = type(value)
    read, places, writers = _plans.get(kind) or _plan_of(kind)
    held = list(read(value))
    for name, new in changes.items():
        held[places[name]] = new
    made = object.__new__(kind)
    for write, field in zip(writers, held, strict=True):
        write(made, field)
    return made


def _plan_of(kind: type) -> _Plan:
    if not is_dataclass(kind) or not hasattr(kind, "__slots__") or hasattr(kind, "__post_init__"):
        raise TypeError(f"{kind.__name__} is no dataclass with slots and without __post_init__: use replace")
    names = [field.name for field in fields(kind)]
    writers = tuple(getattr(kind, name).__set__ for name in names)
    read = cast("Callable[[Any], tuple[Any, ...]]", attrgetter(*names))
    plan = _plans[kind] = (read, {name: place for place, name in enumerate(names)}, writers)
    return plan
