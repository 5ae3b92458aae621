"""A connection of uvicorn's that no client can keep for nothing.

uvicorn itself waits for ever for the rest of a request, and for an answer to be taken. Here a connection waits for its
client until a deadline; and where too many wait, the one that has waited longest is cut for the next. A client that
sends its request at once waits for us, never we for it, so it is not among those.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, ClassVar, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

# For a whole request, from its first byte; a new connection's from its opening.
REQUEST_S: Final = 10.0
# For an answer to be taken, beyond what an idle connection is kept.
ANSWER_S: Final = 30.0
MOST_WAITING: Final = 400
_UNSENT_BYTES: Final = 256 * 1024
LONGEST_HEAD: Final = 32 * 1024
LARGEST_BODY: Final = 64 * 1024


class GuardedProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol with deadlines, a longest head, and a most of waiting connections in this process."""

    waiting: ClassVar[dict[GuardedProtocol, asyncio.TimerHandle]] = {}

    _head_bytes = 0
    _in_body = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # What the system keeps of answers that are not taken: by default up to 4 MB of each.
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _UNSENT_BYTES)
        self._wait(REQUEST_S)

    def connection_lost(self, exc: Exception | None) -> None:
        self._go_on()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if not self._in_body:
            self._head_bytes += len(data)
        super().data_received(data)
        if not self._in_body and self._head_bytes > LONGEST_HEAD:
            self._cut()

    def on_message_begin(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._cut()  # the next request before the answer to this one: no client of ours does that
        super().on_message_begin()
        self._wait(REQUEST_S)

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        self._head_bytes, self._in_body = 0, True

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._in_body = False
        if self.cycle.response_complete:  # answered before it had come whole
            self._wait(self.timeout_keep_alive)
        else:
            self._go_on()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._wait(self.timeout_keep_alive + ANSWER_S)

    def _wait(self, seconds: float) -> None:
        """Wait for the client, which has so long; the newest of those that wait."""
        self._go_on()
        self.waiting[self] = self.loop.call_later(seconds, self._cut)
        if len(self.waiting) > MOST_WAITING:
            next(iter(self.waiting))._cut()

    def _cut(self) -> None:
        self._go_on()
        if self.cycle is not None:
            self.cycle.disconnected = True  # so that nothing is written any more
        self.transport.abort()

    def _go_on(self) -> None:
        if timer := self.waiting.pop(self, None):
            timer.cancel()


class BodyTooLarge(Exception):
    """A body is larger than it may be; what was read of it is dropped."""


async def whole_body(
    scope: Mapping[str, Any], receive: Callable[[], Awaitable[Any]], largest: int = LARGEST_BODY
) -> bytes:
    """The body of an ASGI request, read no further than it may go.

    Raises BodyTooLarge, also for a stated length, and ConnectionResetError when the client went away before its end.
    """
    stated = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
    if int(stated) > largest:
        raise BodyTooLarge
    body = bytearray()
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionResetError
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > largest:
            raise BodyTooLarge
    return bytes(body)
