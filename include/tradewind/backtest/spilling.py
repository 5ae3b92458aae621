"""Columns that lie in files and are mapped: what a run over hundreds of symbols needs of memory is what it looks at.

Plain arrays rather than Parquet: those are mapped as they are, Parquet would be decoded into memory again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .signals import SymbolSeries
from .ticks import TickColumns, TickedSeries

Array = NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class MappedSeries(TickedSeries):
    """A series in files."""


def spilled(series: SymbolSeries, folder: Path) -> MappedSeries:
    """The same series, every column of it (those in ticks too) in two files of `folder`; a column is written once.

    The files must outlive the series. What is written to a mapped column stays in memory and changes no file.
    """
    own = {field.name: getattr(series, field.name) for field in fields(series)}
    whole = MappedSeries(**own, ticks=TickColumns.of(series.bars, series.instrument))
    found: dict[int, Array] = {}
    _gather(whole, found)
    name = series.bars.symbol.replace("/", "_").replace(":", "-")
    mapped: dict[int, Array] = {}
    for kind in sorted({column.dtype.str for column in found.values()}):
        same = {key: column for key, column in found.items() if column.dtype.str == kind}
        path, shape = folder / f"{name}.{np.dtype(kind).name}", (len(same), len(series))
        with path.open("wb") as file:
            for column in same.values():
                np.ascontiguousarray(column).tofile(file)
        rows = np.memmap(path, dtype=kind, mode="c", shape=shape) if len(series) else np.empty(shape, dtype=kind)
        mapped.update({key: np.asarray(row) for key, row in zip(same, rows, strict=True)})
    exchanged: MappedSeries = _exchange(whole, mapped)
    return exchanged


def _gather(value: Any, found: dict[int, Array]) -> None:
    if isinstance(value, np.ndarray):
        found[id(value)] = value
    elif is_dataclass(value):
        for field in fields(value):
            _gather(getattr(value, field.name), found)


def _exchange(value: Any, mapped: Mapping[int, Array]) -> Any:
    """The value with each of its arrays exchanged for the mapped one."""
    if isinstance(value, np.ndarray):
        return mapped[id(value)]
    if not is_dataclass(value) or isinstance(value, type):
        return value
    return replace(value, **{f.name: _exchange(getattr(value, f.name), mapped) for f in fields(value)})
