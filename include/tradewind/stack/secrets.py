"""The deployment's own secrets: made once, each in a file that only its owner reads."""

from __future__ import annotations

import base64
import os
import secrets
from collections.abc import Callable
from pathlib import Path

from tradewind.errors import BadSetting
from tradewind.settings import PREFIX, PROJECT_DIR


def _token() -> str:
    return secrets.token_urlsafe(32)


def _fernet_key() -> str:
    return base64.urlsafe_b64encode(os.urandom(32)).decode()


def _api_key() -> str:
    # The length of Binance's own keys, so that a client that checks it is content.
    return secrets.token_hex(32)


_MAKERS: dict[str, Callable[[], str]] = {
    "postgres_password": _token,
    "database_password": _token,
    "writer_database_password": _token,
    "status_database_password": _token,
    "paper_database_password": _token,
    "airflow_database_password": _token,
    "cache_password": _token,
    "exchange_admin_token": _token,
    "paper_api_key": _api_key,
    "paper_api_secret": _api_key,
    "api_read_token": _token,
    "api_control_token": _token,
    "api_session_key": _token,
    "airflow_password": _token,
    "airflow_fernet_key": _fernet_key,
    "airflow_jwt_secret": _token,
    "airflow_secret_key": _token,
    "grafana_password": _token,
}


def own_home(home_dir: Path) -> None:
    """Make the deployment's home, which its owner alone may enter. Raises BadSetting for a directory that is shared."""
    if any(inner.is_relative_to(home_dir) for inner in (PROJECT_DIR, Path.home())):
        problem = f"is {home_dir}, which holds more than one deployment's state: name a directory of its own"
        raise BadSetting(f"{PREFIX}HOME_DIR", problem, f"{PREFIX}HOME_DIR={PROJECT_DIR / '.tradewind'}")
    home_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    if home_dir.stat().st_mode & 0o002:
        problem = f"is {home_dir}, to which every user of this machine may write: name a directory of its own"
        raise BadSetting(f"{PREFIX}HOME_DIR", problem, f"{PREFIX}HOME_DIR={PROJECT_DIR / '.tradewind'}")
    home_dir.chmod(0o700)


def init_secrets(home_dir: Path) -> list[str]:
    """Make the secrets that are missing in `<home>/secrets`; returns their names, never their values.

    What exists is kept: replacing the Fernet key would make stored connections unreadable, replacing a database
    password would lock us out.
    """
    own_home(home_dir)
    directory = home_dir / "secrets"
    directory.mkdir(mode=0o700, exist_ok=True)
    directory.chmod(0o700)
    made = []
    for name, make in _MAKERS.items():
        path = directory / f"{PREFIX}{name}".lower()
        if path.exists():
            path.chmod(0o600)
            continue
        # Written aside and linked into place: another start that runs at once sees the whole value or none.
        unfinished = path.with_name(f".{path.name}.{os.getpid()}")
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(make())
        try:
            os.link(unfinished, path)
            made.append(name)
        except FileExistsError:
            continue
        finally:
            unfinished.unlink()
    return made
