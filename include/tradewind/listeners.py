"""Whose program listens on a port of this machine: what is not ours is told no secret.

Any user may listen on a free port, before our server does or after it has died. The kernel tells the user of each
listening socket, and that is looked at when the connection stands, before anything is sent over it.
"""

from __future__ import annotations

import os
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psutil

_LISTENING = "0A"


def own_listeners_only(request: httpx.Request) -> None:
    """A request hook of httpx: nothing is sent to a port of this machine on which another user's program listens.

    The request then fails with httpx.ConnectError.
    """
    host, port = request.url.host, request.url.port or {"http": 80, "https": 443}[request.url.scheme]
    if not _is_loopback(host):
        return

    def look(event: str, _: Any) -> None:
        if event.endswith("send_request_headers.started") and (problem := foreign_listener(host, port)):
            raise httpx.ConnectError(f"{problem}: nothing was sent to it", request=request)

    request.extensions = {**request.extensions, "trace": look}


def foreign_listener(host: str, port: int) -> str:
    """Why what listens there is not to be trusted; empty when it is a program of ours, or root's."""
    users = _listening_users(host, port)
    if not users:
        return f"no program of this user listens on port {port}"
    if strangers := users - {0, os.geteuid()}:
        return f"a program of another user (number {min(strangers)}) listens on port {port}"
    return ""


def _is_loopback(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")


def _listening_users(host: str, port: int) -> set[int]:
    """Of the sockets that may have accepted a connection to this address: those bound to it, else to every address."""
    if sys.platform != "linux":
        return _own_listening_users(port)  # elsewhere the kernel tells of one's own processes alone
    named = ("127.0.0.1", "::1") if host == "localhost" else (host,)
    bound: dict[str, set[int]] = {}
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with suppress(FileNotFoundError):
            for line in Path(table).read_text().splitlines()[1:]:
                fields = line.split()
                address, _, number = fields[1].partition(":")
                if fields[3] == _LISTENING and int(number, 16) == port:
                    bound.setdefault(_readable(address), set()).add(int(fields[7]))
    exact = [bound[address] for address in (*named, *(f"::ffff:{address}" for address in named)) if address in bound]
    return set().union(*(exact or [bound.get(address, set()) for address in ("0.0.0.0", "::")]))  # noqa: S104  # nosec B104


def _own_listening_users(port: int) -> set[int]:
    for process in psutil.process_iter(["uids"]):
        if process.info["uids"] and process.info["uids"].real == os.geteuid():
            with suppress(psutil.Error):
                connections = process.net_connections("tcp")
                if any(one.status == psutil.CONN_LISTEN and one.laddr.port == port for one in connections):
                    return {os.geteuid()}
    return set()


def _readable(address: str) -> str:
    """An address as it is written, of one that the kernel shows: words of 32 bits in its own order of bytes."""
    words = [int(address[i : i + 8], 16).to_bytes(4, sys.byteorder) for i in range(0, len(address), 8)]
    return socket.inet_ntop(socket.AF_INET if len(words) == 1 else socket.AF_INET6, b"".join(words))
