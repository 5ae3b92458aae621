"""Serves the stand-in of statsd_exporter with the arguments of the real one."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

from statsd_exporter import StatsdExporter


def port(address: str) -> int:
    return int(address.rpartition(":")[2])


given = dict(argument.lstrip("-").split("=", 1) for argument in sys.argv[1:])
exporter = StatsdExporter(
    Path(given["statsd.mapping-config"]),
    listen=("0.0.0.0", port(given["statsd.listen-udp"])),
    web=("0.0.0.0", port(given["web.listen-address"])),
)
threading.Event().wait()
