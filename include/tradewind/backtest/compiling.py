"""Compiled functions that call into other files, kept on disk for as long as none of those files has changed."""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType, ModuleType
from typing import Any, TypeVar

from numba import njit
from numba.extending import register_jitable

from tradewind.fingerprint import sources_sha256

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled_with(*modules: ModuleType) -> Callable[[Function], Function]:
    """Compile a function, and what it calls of `modules`, under the hash of their files and its own.

    Numba's own cache looks at the file of the function alone: a rule that was changed in another one would not be
    noticed, and a backtest would run on yesterday's. Plain functions of `modules` are compiled along; whoever else
    calls them gets them as they are.
    """

    def compiled(function: Function) -> Function:
        for module in modules:
            for called in functions_of(module):
                register_jitable(called)
        register_jitable(function)
        names = {function.__module__} | {module.__name__ for module in modules}
        made = _entry(sources_sha256(tuple(sorted(names))))
        # A name of its own, by which numba's cache keeps it apart; the function as a global, for as part of the key it
        # would make another one in every process.
        entry = FunctionType(made.__code__, {"__name__": __name__, "_function": function}, closure=made.__closure__)
        entry.__qualname__ = f"{function.__module__}.{function.__qualname__}".replace(".", "_")
        found: Function = njit(cache=True)(entry)
        return found

    return compiled


def _entry(stamp: str) -> FunctionType:
    def entry(*arguments: Any) -> Any:
        # A value from outside that is used belongs to the key under which numba keeps what it has compiled.
        assert len(stamp) > 0
        return _function(*arguments)  # type: ignore[name-defined]  # noqa: F821  # `compiled_with` says which

    assert isinstance(entry, FunctionType)
    return entry


def functions_of(module: ModuleType) -> list[FunctionType]:
    """The plain functions that a module defines itself."""
    found = vars(module).values()
    return [value for value in found if isinstance(value, FunctionType) and value.__module__ == module.__name__]
