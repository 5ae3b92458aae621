"""A tar file's plain files, and nothing else of it: no link, device, directory, sparse file or long name is read.

Headers are read one by one, so that no part is believed to be longer than the file, and none can lead elsewhere.
"""

from __future__ import annotations

import io
import os
import re
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from tradewind.errors import BadInput

MOST_NAME_BYTES: Final = tarfile.LENGTH_NAME
_MOST_PARTS: Final = 100_000
_PLAIN: Final = (tarfile.REGTYPE, tarfile.AREGTYPE)
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*(/[A-Za-z0-9_][A-Za-z0-9_.+-]*)*")


def is_plain_name(name: str) -> bool:
    """Whether a part may be named so: a relative path without dots at the start of a component."""
    return len(name) <= MOST_NAME_BYTES and _NAME.fullmatch(name) is not None


class TarParts:
    """The parts by name, each to be read from its beginning to its end."""

    def __init__(self, file: BinaryIO, source: Path) -> None:
        self._file = file
        self.source = source
        self.bytes = os.fstat(file.fileno()).st_size
        self._places = dict(self._read_headers())

    @property
    def names(self) -> frozenset[str]:
        return frozenset(self._places)

    def size(self, name: str) -> int:
        return self._places[name][1]

    def open(self, name: str) -> io.BufferedReader:
        """Raises BadInput when there is no such part."""
        if name not in self._places:
            raise BadInput(f"{self.source} is no whole backup: it holds no {name}")
        return io.BufferedReader(_Part(self._file, *self._places[name]), 1 << 20)

    def _read_headers(self) -> Iterator[tuple[str, tuple[int, int]]]:
        seen: set[str] = set()
        offset = 0
        while True:
            self._file.seek(offset)
            block = self._file.read(tarfile.BLOCKSIZE)
            if block == bytes(tarfile.BLOCKSIZE):
                return
            try:
                info = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
            except (tarfile.HeaderError, ValueError) as error:
                words = "no whole backup" if seen else "no backup"
                raise BadInput(f"{self.source} is {words}: {error} at byte {offset}") from None
            start = offset + tarfile.BLOCKSIZE
            if info.type not in _PLAIN or not is_plain_name(info.name) or info.name in seen:
                raise BadInput(f"{self.source} is no backup of ours: it holds {info.name!a}, which none does")
            if not 0 <= info.size <= self.bytes - start or len(seen) == _MOST_PARTS:
                raise BadInput(f"{self.source} is no whole backup: {info.name} is longer than what is there")
            seen.add(info.name)
            yield info.name, (start, info.size)
            offset = start + -(-info.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


@contextmanager
def opened(source: Path) -> Iterator[TarParts]:
    """Raises BadInput for what is no file of this kind."""
    try:
        if not source.is_file():
            raise BadInput(f"{source} is no backup: there is no such file")
        file = source.open("rb")
    except OSError as error:
        raise BadInput(f"{source} is no backup: {error.strerror}") from None
    with file:
        yield TarParts(file, source)


class _Part(io.RawIOBase):
    """Some bytes of a file, as if they were one."""

    def __init__(self, file: BinaryIO, start: int, size: int) -> None:
        self._file, self._position, self._end = file, start, start + size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        self._file.seek(self._position)
        read = self._file.readinto(buffer[: self._end - self._position])  # type: ignore[attr-defined]
        self._position += read
        return int(read)
