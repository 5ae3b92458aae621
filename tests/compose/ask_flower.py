"""Asked inside flower's container: what a stranger gets, and the queues that its workers say they listen to."""

from __future__ import annotations

import json
import time
from base64 import b64encode
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

URL = "http://127.0.0.1:5555/api/workers?refresh=1"


def stranger() -> int:
    try:
        with urlopen(URL) as answer:
            return int(answer.status)
    except HTTPError as error:
        return error.code


def workers() -> dict[str, Any]:
    password = Path("/run/secrets/airflow_password").read_text().strip()
    login = b64encode(f"admin:{password}".encode()).decode()
    with urlopen(Request(URL, headers={"Authorization": f"Basic {login}"})) as answer:
        told: dict[str, Any] = json.load(answer)
        return told


def queues() -> list[str]:
    return sorted({queue["name"] for told in workers().values() for queue in told.get("active_queues", ())})


deadline = time.monotonic() + 60
while len(found := queues()) < 4 and time.monotonic() < deadline:
    time.sleep(2)
print(json.dumps({"stranger": stranger(), "queues": found}))
