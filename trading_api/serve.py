"""How the app is served: each request is read to its end first, then goes to threads that its kind alone may occupy.

::

    client ─► event loop: head, body, deadlines ─┬─ halt, flatten with the control token ─► 4 threads ─┐
              (no thread waits for a client)     ├─ other control calls                   ─► 4 threads │
                                                 ├─ who may read                          ─► 6 threads ├─► app
                                                 ├─ everybody else                        ─► 2 threads │
                                                 └─ /api/health                           ─► 1 thread ─┘

So what strangers send, or begin and do not end, and what readers ask for, keeps no halt waiting; and the supervisor's
question, whether this process lives, waits for no database.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import itertools
import logging
import resource
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import unquote_to_bytes

import uvicorn
from apiflask import APIFlask
from flask import Request

from tradewind.adapters.http_guard import LARGEST_BODY, BodyTooLarge, GuardedProtocol, whole_body

from .security import Gate, Standing

_STOPPING: Final = ("/api/halt", "/api/flatten")
_LANES: Final = {"stop": 4, "control": 4, "readers": 6, "strangers": 2, "health": 1}
_LOOPBACK: Final = ("127.0.0.1", "::1")
# Strangers' requests that wait for a thread of theirs; the next are refused at once.
_MOST_STRANGERS: Final = 200
# Read ahead of the client, so that most answers take one turn of a thread.
_PIECE_BYTES: Final = 256 * 1024
# A thread that computes gives way to the event loop after this long; 5 ms by default.
_SWITCH_S: Final = 0.0005

Environ = dict[str, Any]
Scope = dict[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
Head = tuple[int, list[tuple[bytes, bytes]]]

_log = logging.getLogger(__name__)


class Served:
    """The app as uvicorn calls it (ASGI)."""

    def __init__(self, app: APIFlask) -> None:
        self._app = app
        self._gate: Gate = app.extensions["tradewind.gate"]
        self._lanes = {name: ThreadPoolExecutor(most, thread_name_prefix=name) for name, most in _LANES.items()}
        self._strangers = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            environ = environ_of(scope, await whole_body(scope, receive))
        except BodyTooLarge:
            # The app refuses it by its stated length, in its own words; what was not read ends with the connection.
            environ = environ_of(scope, b"") | {"CONTENT_LENGTH": str(LARGEST_BODY + 1), "tradewind.unread": True}
        except ConnectionResetError:
            return
        lane = self._lane(environ)
        is_stranger = lane == "strangers"
        if is_stranger and self._strangers >= _MOST_STRANGERS:
            await _refuse(send)
            return
        self._strangers += is_stranger
        try:
            await self._answer(self._lanes[lane], environ, send)
        finally:
            self._strangers -= is_stranger

    def _lane(self, environ: Environ) -> str:
        path = environ["PATH_INFO"]
        if path == "/api/health":
            return "health"
        standing, _ = self._gate.standing(Request(environ))
        if standing is Standing.CONTROLLER:
            return "stop" if path in _STOPPING else "control"
        return "readers" if standing is Standing.READER else "strangers"

    async def _answer(self, lane: ThreadPoolExecutor, environ: Environ, send: Send) -> None:
        loop = asyncio.get_running_loop()
        (status, headers), piece, rest = await loop.run_in_executor(lane, self._begin, environ)
        if environ.get("tradewind.unread"):
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        while rest is not None:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            piece, rest = await loop.run_in_executor(lane, _piece, rest)
        await send({"type": "http.response.body", "body": piece})

    def _begin(self, environ: Environ) -> tuple[Head, bytes, Iterator[bytes] | None]:
        """Call the app; returns status and headers, the first piece of the body, and what gives the rest."""
        head: list[Head] = []

        def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], Any]:
            encoded = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]
            head[:] = [(int(status.split(" ", 1)[0]), encoded)]
            return lambda _: None

        body = self._app.wsgi_app(environ, start_response)
        piece, rest = _piece(_closing(body))
        return head[0], piece, rest


def _closing(body: Any) -> Iterator[bytes]:
    """The pieces of a WSGI answer, which is closed after its last."""
    try:
        yield from body
    finally:
        if hasattr(body, "close"):
            body.close()


def _piece(rest: Iterator[bytes]) -> tuple[bytes, Iterator[bytes] | None]:
    """The next bytes, about as many as a piece holds, and the rest, None at the end."""
    parts: list[bytes] = []
    held = 0
    for part in rest:
        parts.append(part)
        held += len(part)
        if held >= _PIECE_BYTES:
            following = next(rest, None)
            return b"".join(parts), None if following is None else itertools.chain([following], rest)
    return b"".join(parts), None


def environ_of(scope: Scope, body: bytes) -> Environ:
    """What WSGI (PEP 3333) calls a request. A name with an underscore is dropped: it could pass for one with a dash.

    `X-Forwarded-Proto` is believed from this machine alone, where a proxy that ends TLS stands.
    """
    client, server = scope.get("client") or ("", 0), scope.get("server") or ("", 0)
    environ: Environ = {
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(scope["raw_path"]).decode("latin-1"),
        "QUERY_STRING": scope["query_string"].decode("latin-1"),
        "SERVER_NAME": server[0],
        "SERVER_PORT": str(server[1]),
        "SERVER_PROTOCOL": f"HTTP/{scope['http_version']}",
        "REMOTE_ADDR": client[0],
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope["scheme"],
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    for raw_name, raw_value in scope["headers"]:
        if b"_" in raw_name:
            continue
        name, value = raw_name.decode("latin-1").upper().replace("-", "_"), raw_value.decode("latin-1")
        key = name if name in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{name}"
        environ[key] = f"{environ[key]}{'; ' if name == 'COOKIE' else ','}{value}" if key in environ else value
    environ["CONTENT_LENGTH"] = str(len(body))
    if client[0] in _LOOPBACK and environ.get("HTTP_X_FORWARDED_PROTO") == "https":
        environ["wsgi.url_scheme"] = "https"
    return environ


async def _refuse(send: Send) -> None:
    """Too many wait already: said without a thread."""
    status = HTTPStatus.SERVICE_UNAVAILABLE
    headers = [(b"content-length", b"0"), (b"retry-after", b"5"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


def serve(app: APIFlask, host: str, port: int) -> None:
    """Serve until SIGTERM or Ctrl-C."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 8192)), hard))
    sys.setswitchinterval(_SWITCH_S)
    config = uvicorn.Config(
        Served(app), host=host, port=port, loop="uvloop", http=GuardedProtocol, ws="none", lifespan="off",
        interface="asgi3", log_config=None, access_log=False, log_level="error", server_header=False,
        proxy_headers=False, timeout_keep_alive=15, timeout_graceful_shutdown=5,
    )  # fmt: skip
    server = uvicorn.Server(config)
    server.run()
    if not server.started:
        raise SystemExit(1)


def main(argv: Sequence[str] | None = None) -> None:
    from tradewind.adapters.logs import configure_logging
    from tradewind.settings import load_settings

    from . import create_app

    parser = argparse.ArgumentParser(prog="python -m trading_api", description="Serve the status page and its API.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args(argv)
    settings = load_settings()
    configure_logging(settings.log_level, process="status")
    serve(create_app(settings), options.host, options.port)
