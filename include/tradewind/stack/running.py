"""Which deployment a command acts on: the one whose stack is up in this home, else the one that the settings describe.

A stack writes down what it is when it starts, and the record stays until `./tradewind down` or the next start, also
where the supervisor was killed: its positions are at the exchange. What this shell says (its environment, `.env`) then
counts for nothing but the secrets; where it names another account than what runs, the command is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from tradewind.errors import BadInput
from tradewind.settings import (
    PREFIX,
    SECRET_FIELDS,
    Settings,
    bad_setting,
    given_values,
    home_of_shell,
    load_settings,
    secrets_dirs,
    unusable_values,
)
from tradewind.stack.state import Deployment, StackState, state_file

# What tells one account from another, beside the database and the exchange's key.
_IDENTIFYING: Final = ("mode", "exchange", "market_type", "market", "account_id", "exchange_url")


@dataclass(frozen=True, slots=True)
class Target:
    """What a command acts on.

    Attributes
    ----------
    words : mode and account, and where that is known from.
    is_recorded : a stack of this home wrote it down; else the settings say so.
    ignored : what this shell says and nothing is made of, in words.
    """

    settings: Settings
    words: str
    is_recorded: bool
    ignored: tuple[str, ...] = ()


def find_target(*, whatever_the_shell_says: bool = False) -> Target:
    """The deployment that a command of this shell acts on.

    Raises
    ------
    BadInput : this shell names another deployment than the one that runs; not with `whatever_the_shell_says`.
    BadSetting : nothing runs, and the settings are wrong.
    """
    home = home_of_shell()
    state = StackState.load(state_file(home))
    if state is None or state.deployment is None:
        settings = load_settings()
        why = "no stack is up" if state is None else "an older version started what is up"
        return Target(settings, f"{_named(settings)} (by the settings; {why} in {home})", is_recorded=False)
    settings = _recorded_settings(state.deployment, home)
    alive = "is up" if state.supervisor.alive() else "was killed"
    if not whatever_the_shell_says:
        _require_agreement(settings, state.deployment, home)
    alive = "is up" if state.supervisor.alive() else "was killed"
    words = f"{_named(settings)} (the stack that {alive} in {home})"
    return Target(settings, words, is_recorded=True, ignored=tuple(_ignored(settings)))


class _RecordedSettings(Settings):
    """Read from what the stack wrote down and the secret files alone, whatever this shell says."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, file_secret_settings


def _recorded_settings(deployment: Deployment, home: Path) -> Settings:
    """The settings of the stack that wrote this down.

    Secrets come from where `load_settings` takes them; one that this shell does not know is absent, also in mode live:
    who needs it will say so. Raises BadSetting for what an older version wrote and this one cannot use.
    """
    secrets = {name: text for name, (text, _) in given_values().items() if name in SECRET_FIELDS}
    values: dict[str, Any] = {**deployment.settings, **secrets, "home_dir": home, "part": "other"}
    try:
        return _RecordedSettings(_secrets_dir=secrets_dirs(home) or None, **values)
    except ValidationError as error:
        raise bad_setting(error) from None


def _named(settings: Settings) -> str:
    return f"mode {settings.mode}, account {settings.account_id}"


def _require_agreement(running: Settings, deployment: Deployment, home: Path) -> None:
    """Refuse to act on the account that is up where this shell names another one."""
    differing = {
        name: found
        for name, found in given_values().items()
        if name in _IDENTIFYING and found[0].rstrip("/") != running.text_of(name).rstrip("/")
    }
    said = [f"{PREFIX}{name.upper()} is {text} in {place}" for name, (text, place) in differing.items()]
    if running.database_place != deployment.database:
        theirs = deployment.database or "the embedded one"
        said.append(f"{PREFIX}DATABASE_URL gives {running.database_place or 'none'} instead of {theirs}")
    if running.exchange_key_sha256 not in ("", deployment.exchange_key_sha256):
        said.append(f"{PREFIX}EXCHANGE_API_KEY is another key than the one it was started with")
    if not said:
        return
    same = " ".join(f"{PREFIX}{name.upper()}={running.text_of(name)}" for name in differing)
    how = f"put {same} before the command" if len(said) == len(differing) else "correct that here"
    raise BadInput(
        f"{_named(running)} is up in {home}, but here {', '.join(said)}: {how} to act on what is up, "
        "or end it with ./tradewind down"
    )


def _ignored(running: Settings) -> list[str]:
    """What this shell says in vain: it comes into force with the next start, or never."""
    of_no_use = SECRET_FIELDS | {"home_dir", "part", *_IDENTIFYING}
    differing = [
        f"{PREFIX}{name.upper()} in {place} is not what the stack was started with: it counts from its next start"
        for name, (text, place) in given_values().items()
        if name not in of_no_use and _plain(text) != _plain(running.text_of(name))
    ]
    return [*(str(problem) for problem in unusable_values()), *differing]


def _plain(text: str) -> list[str | float]:
    """A value as it is compared: the same number or list may be written in several ways."""
    parts = [part.strip().rstrip("/") for part in text.split(",") if part.strip()]
    return [float(part) if part.replace(".", "", 1).isdigit() else part for part in parts]
