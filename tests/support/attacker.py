"""What a local user without any secret tries. Each action prints what it got as one line of JSON.

    http PORT                  listen, answer like a healthy server; at the end print what was sent
    look PATH...               read every file and list every directory below, and each process's environment
    half-open N ADDRESS...     hold N silent connections to each socket's path or port; print how many came about
    listen PATH...             take the place of a socket, and of its directory by a link to one of one's own
    end PID...                 end processes

Of the standard library alone, loaded before it becomes another user, who may not reach the interpreter's files.
"""

from __future__ import annotations

import http.server
import json
import os
import signal
import socket
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path


def say(got: object) -> None:
    print(json.dumps(got), flush=True)


def serve_http(port: str) -> None:
    heard: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            heard.append(f"{self.command} {self.path} {dict(self.headers)} {body.decode(errors='replace')}")
            parts = ("metadatabase", "scheduler", "triggerer", "dag_processor")
            answer = json.dumps({"access_token": "x", **{part: {"status": "healthy"} for part in parts}}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_GET = do_POST = do_PATCH = do_DELETE = answer

        def log_message(self, *_: object) -> None:
            return

    server = http.server.ThreadingHTTPServer(("127.0.0.1", int(port)), Handler)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    say("listening")
    try:
        server.serve_forever()
    finally:
        say(heard)


def look(*places: str) -> None:
    """Every path below that tells something; what is in a file is printed, so that secrets can be looked for."""
    got: dict[str, str] = {}
    for place in places:
        for directory, _, files in os.walk(place):
            with suppress(OSError):
                os.listdir(directory)
                got[directory] = ""
            for name in files:
                with suppress(OSError):
                    got[f"{directory}/{name}"] = Path(directory, name).read_bytes()[:100_000].decode(errors="replace")
    for process in Path("/proc").glob("[0-9]*"):
        for name in ("environ", "cmdline"):
            with suppress(OSError):
                got[f"{process}/{name}"] = (process / name).read_bytes().decode(errors="replace")
    say(got)


def half_open(count: str, *addresses: str) -> None:
    held = []
    for address in addresses:
        for _ in range(int(count)):
            family = socket.AF_INET if address.isdigit() else socket.AF_UNIX
            one = socket.socket(family)
            one.settimeout(1.0)
            with suppress(OSError):
                one.connect(("127.0.0.1", int(address)) if address.isdigit() else address)
                held.append(one)
    say(len(held))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    time.sleep(600)


def listen(*paths: str) -> None:
    taken = []
    for path in paths:
        with suppress(OSError), socket.socket(socket.AF_UNIX) as one:
            Path(path).unlink(missing_ok=True)
            one.bind(path)
            taken.append(path)
        with suppress(OSError):
            Path(path).parent.rmdir()
            Path(path).parent.symlink_to(tempfile.mkdtemp())
            taken.append(f"{path}: its directory")
    say(taken)


def end(*pids: str) -> None:
    ended = []
    for pid in pids:
        with suppress(OSError):
            os.kill(int(pid), signal.SIGKILL)
            ended.append(pid)
    say(ended)


ACTIONS = {"http": serve_http, "look": look, "half-open": half_open, "listen": listen, "end": end}
"an encoding that a server asks for only when it is bound".encode("idna")
