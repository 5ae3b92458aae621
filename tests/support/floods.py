"""What strangers may send a server to keep others from being heard: `python -m tests.support.floods KIND PORT [PATH]`.

Each kind says "up" once it is under way and goes on until it is ended. None knows a token.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

HOST = "127.0.0.1"
_BEGUN = "the flood is up"


async def _connect(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection(HOST, port)


async def _for_ever(one: Callable[[], Awaitable[None]]) -> None:
    while True:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await one()
        await asyncio.sleep(0.001)


async def requests(port: int, path: str, connections: int = 48) -> None:
    """Whole requests, as fast as they are answered, each on a connection of its own."""
    answered = 0
    up = asyncio.Event()

    async def ask() -> None:
        nonlocal answered
        reader, writer = await _connect(port)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        await reader.read()
        writer.close()
        answered += 1
        if answered >= 1300:
            up.set()

    asks = [asyncio.create_task(_for_ever(ask)) for _ in range(connections)]
    await up.wait()
    print(_BEGUN, flush=True)
    await asyncio.gather(*asks)


async def _held(port: int, begin: bytes, drip: bytes, connections: int = 600) -> None:
    """Connections that begin something, go on with it a byte a second, and are opened anew when they are cut."""
    begun = 0

    async def hold() -> None:
        nonlocal begun
        _, writer = await _connect(port)
        writer.write(begin)
        await writer.drain()
        begun += 1
        while not writer.is_closing():
            await asyncio.sleep(1)
            if drip:
                writer.write(drip)
                await writer.drain()

    holds = [asyncio.create_task(_for_ever(hold)) for _ in range(connections)]
    while begun < connections:
        await asyncio.sleep(0.05)
    print(_BEGUN, flush=True)
    await asyncio.gather(*holds)


KINDS: dict[str, Callable[[int, str], Awaitable[None]]] = {
    "requests": requests,
    "heads": lambda port, path: _held(port, f"GET {path} HTTP/1.1\r\nHost: x\r\nX-Endless: ".encode(), b"x"),
    "silence": lambda port, _: _held(port, b"", b""),
    "bodies": lambda port, path: _held(
        port, f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\ntoken=".encode(), b"x"
    ),
    "unread": lambda port, path: _held(port, f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode() * 8, b""),
}


@contextmanager
def flood(kind: str, port: int, path: str) -> Iterator[None]:
    """The flood from another process, under way until the block ends."""
    argv = [sys.executable, "-m", "tests.support.floods", kind, str(port), path]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().strip() == _BEGUN
            yield
            assert process.poll() is None, "the flood ended by itself"
        finally:
            process.kill()


if __name__ == "__main__":
    asyncio.run(KINDS[sys.argv[1]](int(sys.argv[2]), sys.argv[3]))  # type: ignore[arg-type]
