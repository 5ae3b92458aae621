"""Load on an HTTP server: keep-alive connections that send as fast as answers come, or by a timetable.

The generator spends as little as it can: requests are bytes that a callable makes, answers are read up to their
Content-Length and judged by their status line alone.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

from tradewind.errors import StackFailed

MakeRequest = Callable[[], bytes]
Loop = Literal["closed", "open"]


@dataclass(slots=True)
class LoadResult:
    """What came of a load. `latency_s` is measured from when a request was due, so that waiting in line counts."""

    elapsed_s: float = 0.0
    latency_s: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Answers a second."""
        return len(self.latency_s) / self.elapsed_s


def as_fast_as_answered(url: str, make: MakeRequest, connections: int, duration_s: float) -> LoadResult:
    """A closed loop: every connection sends its next request when the last one is answered.

    Raises
    ------
    StackFailed
        If an answer is not 200: a figure of refused requests would mean nothing.
    """
    return asyncio.run(_closed_loop(url, make, connections, duration_s))


def at_rate(url: str, make: MakeRequest, rate: float, connections: int, duration_s: float) -> LoadResult:
    """An open loop: requests are due at a fixed rate whatever the answers do. Raises as `as_fast_as_answered` does."""
    return asyncio.run(_open_loop(url, make, rate, connections, duration_s))


async def _closed_loop(url: str, make: MakeRequest, connections: int, duration_s: float) -> LoadResult:
    result = LoadResult()
    start = time.perf_counter()

    async def one(client: _Connection) -> None:
        while (begun := time.perf_counter()) - start < duration_s:
            await client.call(make())
            result.latency_s.append(time.perf_counter() - begun)

    clients = [await _Connection.open(url) for _ in range(connections)]
    start = time.perf_counter()
    await asyncio.gather(*(one(c) for c in clients))
    result.elapsed_s = time.perf_counter() - start
    for client in clients:
        client.close()
    return result


async def _open_loop(url: str, make: MakeRequest, rate: float, connections: int, duration_s: float) -> LoadResult:
    result = LoadResult()
    due: asyncio.Queue[float | None] = asyncio.Queue()

    async def one(client: _Connection) -> None:
        while (at := await due.get()) is not None:
            await client.call(make())
            result.latency_s.append(time.perf_counter() - at)

    clients = [await _Connection.open(url) for _ in range(connections)]
    workers = [asyncio.create_task(one(c)) for c in clients]
    start = time.perf_counter()
    for i in range(int(rate * duration_s)):
        moment = start + i / rate
        while (wait_s := moment - time.perf_counter()) > 0:
            await asyncio.sleep(wait_s)
        due.put_nowait(moment)
    for _ in workers:
        due.put_nowait(None)
    await asyncio.gather(*workers)
    result.elapsed_s = time.perf_counter() - start
    for client in clients:
        client.close()
    return result


class _Connection:
    """One keep-alive connection with one request under way at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, url: str) -> _Connection:
        address = urlsplit(url)
        return cls(*await asyncio.open_connection(address.hostname, address.port, limit=1 << 20))

    async def call(self, request: bytes) -> None:
        self._writer.write(request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])
        body = await self._reader.readexactly(length)
        if head[9:12] != b"200":
            raise StackFailed(f"{head[:30]!r} to {request[:60]!r}: {body[:200]!r}")

    def close(self) -> None:
        self._writer.close()
