"""The commands of `./tradewind`, a module each group, and what they share: the deployment that they act on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from tradewind.settings import Settings
    from tradewind.stack.running import Target
    from tradewind.wiring import Wiring


def acting_settings(*, quietly: bool = False) -> Settings:
    """The settings of the deployment that a command acts on, after saying which that is.

    The first line goes to standard output; with `quietly`, for a command whose output a program reads, to standard
    error. Raises BadInput where this shell names another deployment than the one that is up.
    """
    return _announced(quietly).settings


@contextmanager
def acting_ports(*, quietly: bool = False, elsewhere: bool = False) -> Iterator[Wiring]:
    """The adapters of the deployment that a command acts on, after saying which that is.

    `elsewhere`: where no stack says which account is meant, name the others that hold something or are latched.
    """
    target = _announced(quietly)
    with ports_of(target.settings) as wiring:
        if elsewhere and not target.is_recorded:
            _name_others(wiring)
        yield wiring


@contextmanager
def ports_of(settings: Settings, *, judging: bool = False) -> Iterator[Wiring]:
    """The adapters of a deployment, closed at the end.

    `judging`: the strategy itself is looked at, so that a file of its values that cannot be used is refused (BadInput).
    """
    from tradewind.wiring import Wiring

    wiring = Wiring(settings)
    try:
        if judging:
            wiring.params_in_file()
        yield wiring
    finally:
        wiring.close()


def _announced(quietly: bool) -> Target:
    from tradewind.stack.running import find_target

    target = find_target()
    typer.echo(target.words, err=quietly)
    for words in target.ignored:
        typer.echo(f"ignored: {words}", err=True)
    return target


def _name_others(wiring: Wiring) -> None:
    from tradewind.stack.on_record import other_accounts

    for other in other_accounts(wiring.database, wiring.account):
        if other["positions"] or other["latch"] != "active":
            words = f"latch {other['latch']}, positions {other['positions'] or 'none'}"
            hint = f"TRADEWIND_ACCOUNT_ID={other['account']} before the command acts on it"
            typer.echo(f"warning: account {other['account']} is left alone: {words}; {hint}", err=True)
