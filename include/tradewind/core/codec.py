"""Frozen values to JSON and back without a loss, so that stored inputs replay to the same decisions bit for bit.

`Decimal` travels as a string, a moment as ISO 8601 with its offset, an enum as its value, a float as the shortest
decimal that reads back to the same bits (PostgreSQL's jsonb keeps each digit). NaN and infinities are refused: jsonb
has no word for them, and an input that is missing must say so by being absent.
"""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import datetime
from decimal import Decimal
from enum import Enum
from functools import cache
from typing import Any, TypeVar, cast

T = TypeVar("T")


def encode(value: Any) -> Any:
    """The JSON-able form of a value made of frozen dataclasses, enums, Decimals, datetimes, mappings and sequences.

    Raises ValueError for NaN, infinity or a naive datetime, TypeError for a type it does not know.
    """
    if value is None or (isinstance(value, bool | str) and not isinstance(value, Enum)):
        return value
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError("NaN and infinity have no place in stored inputs: leave the value out and say why")
        return float(value)
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError(f"a stored moment needs a time zone: {value!r}")
        return value.isoformat()
    if is_dataclass(value) and not isinstance(value, type):
        return {name: encode(getattr(value, name)) for name in _names(type(value))}
    if isinstance(value, Mapping):
        return {str(key): encode(item) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [encode(item) for item in value]
    raise TypeError(f"{type(value).__name__} is not stored as JSON")


@cache
def _names(kind: type) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind))


def decode(kind: type[T], data: Any) -> T:
    """The value of type `kind` that `encode` made `data` from.

    Raises ValueError for a field that `kind` does not have, TypeError for one it needs and `data` lacks.
    """
    return cast(T, _decode(kind, data))


@cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _decode(kind: Any, data: Any) -> Any:
    if kind is Any:
        return data
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        return _decode_union(typing.get_args(kind), data)
    if origin is tuple:
        return tuple(_decode(typing.get_args(kind)[0], item) for item in data)
    if origin is not None and issubclass(origin, Mapping):
        return {key: _decode(typing.get_args(kind)[1], item) for key, item in data.items()}
    if is_dataclass(kind):
        hints = _hints(cast(type, kind))
        unknown = set(data) - set(hints)
        if unknown:
            raise ValueError(
                f"{kind} has no field {', '.join(sorted(unknown))}: stored by another version of the code?"
            )
        return cast(type, kind)(**{name: _decode(hints[name], item) for name, item in data.items()})
    if kind is datetime:
        return datetime.fromisoformat(data)
    if kind is type(None):
        return None
    return kind(data)


def _decode_union(options: tuple[Any, ...], data: Any) -> Any:
    if data is None:
        return None
    rest = [option for option in options if option is not type(None)]
    if len(rest) == 1:
        return _decode(rest[0], data)
    # Only plain JSON scalars are ever mixed (a verdict's numbers): they come back as what they already are.
    return data
