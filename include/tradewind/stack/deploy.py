"""The one-shot step of a deployment on an external server: `python -m tradewind.stack.deploy`.

Databases and roles, both schemas, Airflow's administrator and pools. It may run again at any time; each start of
docker-compose does. With `account` it opens the paper exchange's account instead, once that exchange answers.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

from tradewind.adapters.logs import configure_logging
from tradewind.errors import BadSetting, StackFailed, TradewindError
from tradewind.settings import PREFIX, PROJECT_DIR, Settings, load_settings
from tradewind.stack import databases
from tradewind.stack.services import open_paper_account

_NEEDED = ("administrator_database_url", "database_url", "writer_database_url", "status_database_url",
           "airflow_database_url", "airflow_password")  # fmt: skip
_POOLS = PROJECT_DIR / "include" / "tradewind" / "orchestration" / "pools.json"


def deploy(settings: Settings) -> None:
    """Bring everything to this code's state. Raises BadSetting naming the secret that is missing, StackFailed."""
    require(settings, _NEEDED)
    databases.ensure(settings, None)
    password = settings.airflow_password.get_secret_value()
    _airflow("db", "migrate")
    # The password is typed twice, as at a terminal: an argument would be in every process list.
    _airflow(
        "users", "create", "--username", settings.airflow_username, "--role", "Admin", "--firstname", "Tradewind",
        "--lastname", "Administrator", "--email", f"{settings.airflow_username}@localhost.invalid",
        typed=f"{password}\n{password}\n",
    )  # fmt: skip
    _airflow("users", "reset-password", "--username", settings.airflow_username, typed=f"{password}\n{password}\n")
    _airflow("pools", "import", str(_POOLS))


def require(settings: Settings, names: Sequence[str]) -> None:
    """Raises BadSetting with the name of the first secret that is missing."""
    for name in names:
        if name not in settings.model_fields_set or not getattr(settings, name).get_secret_value():
            problem = "is missing: run ./tradewind secrets init and mount the file"
            raise BadSetting(PREFIX + name.upper(), problem, f"/run/secrets/{PREFIX.lower()}{name}")


def _airflow(*arguments: str, typed: str = "") -> None:
    done = subprocess.run(
        [sys.executable, "-m", "airflow", *arguments], input=typed, text=True, check=False, start_new_session=True
    )
    if done.returncode != 0:
        raise StackFailed(f"airflow {' '.join(arguments[:2])} ended with status {done.returncode}: see above")


def main(argv: Sequence[str]) -> int:
    try:
        settings = load_settings()
        configure_logging(settings.log_level, process="deploy")
        if list(argv) == ["account"]:
            open_paper_account(settings)
        else:
            deploy(settings)
    except TradewindError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
