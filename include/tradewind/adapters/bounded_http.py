"""Answers from servers outside: bounded in size and time, decoded once, and never fetched from inside our own network.

::

    BoundedTransport (httpx)  ─┐                          ┌─ raw bytes, at most `max_bytes`
    BoundedAdapter (requests) ─┴─► bounded_body ──────────┴─ decoded bytes, at most `max_bytes`, one encoding

A client library decodes whatever a server says it encoded, layer upon layer, before its caller sees a byte: two
kilobytes can become gigabytes. Here the raw answer is read under a limit and decoded under the same one.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
import threading
import time
import zlib
from collections.abc import Callable, Iterable
from typing import Any, Final

import httpcore
import httpx
import requests
import urllib3
from requests.adapters import HTTPAdapter

_CHUNK_BYTES: Final = 65_536
# zlib's window bits: gzip with its header, and deflate with zlib's.
_WINDOW_BITS: Final = {"gzip": 31, "x-gzip": 31, "deflate": 15}
# Names that no public name server answers for.
_LOCAL_ENDINGS: Final = (".local", ".internal", ".lan", ".home.arpa", ".localhost")


class AnswerTooLarge(ValueError):
    """More bytes than allowed, raw or decoded, or an encoding that nothing of ours asked for."""


def bounded_body(chunks: Iterable[bytes], encoding: str, max_bytes: int) -> bytes:
    """The decoded body of an answer, never holding more than `max_bytes` of it.

    Parameters
    ----------
    chunks : the raw bytes as they arrive.
    encoding : the value of Content-Encoding; one of gzip, deflate, identity or empty.
    max_bytes : limit of the raw bytes and of the decoded ones.

    Raises AnswerTooLarge beyond the limit and for any other encoding, several of them included; zlib.error for bytes
    that are not what they claim to be.
    """
    name = encoding.strip().lower()
    if name in ("", "identity"):
        decoder = None
    elif name in _WINDOW_BITS:
        decoder = zlib.decompressobj(_WINDOW_BITS[name])
    else:
        raise AnswerTooLarge(f"it is encoded as {name[:40]!r}, which was not asked for")
    body, raw = bytearray(), 0
    for chunk in chunks:
        raw += len(chunk)
        body += chunk if decoder is None else decoder.decompress(chunk, max_bytes + 1 - len(body))
        if raw > max_bytes or len(body) > max_bytes:
            raise AnswerTooLarge(f"it is larger than {max_bytes:,} bytes")
    if decoder is not None:
        body += decoder.decompress(decoder.unconsumed_tail, max_bytes + 1 - len(body))
        if len(body) > max_bytes:
            raise AnswerTooLarge(f"it is larger than {max_bytes:,} bytes")
        if not decoder.eof and raw:
            raise zlib.error("the encoded answer ends before its end")
    return bytes(body)


# --------------------------------------------------------------------------------------------------------------- httpx
class BoundedTransport(httpx.HTTPTransport):
    """An httpx transport whose answers have a size, an end, and an address outside.

    Parameters
    ----------
    max_bytes : limit of an answer, raw and decoded.
    until : the `time.monotonic` at which a request that begins now must be over, headers and redirects included.
    named_host : the host that the settings name. It may be an address of this machine or of a private network where its
        name says so (an address, `localhost`, a name without a dot or with a local ending); no other host may, so that
        no redirect and no name server of somebody else's reaches what only we can reach.

    Raises httpx.TransportError for all of these; the message names no address.
    """

    def __init__(self, *, max_bytes: int, until: Callable[[], float], named_host: str) -> None:
        super().__init__()
        context = ssl.create_default_context()
        self._local = threading.local()
        self._pool = httpcore.ConnectionPool(
            ssl_context=context, network_backend=_OutsideBackend(self._remaining_s, named_host)
        )
        self._max_bytes = max_bytes
        self._until = until

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send, and read the whole answer."""
        self._local.until = self._until()
        request.headers["Accept-Encoding"] = "gzip"
        response = super().handle_request(request)
        assert isinstance(response.stream, httpx.SyncByteStream)
        try:
            encoding = response.headers.get("Content-Encoding", "")
            body = bounded_body(response.stream, encoding, self._max_bytes)
        except (AnswerTooLarge, zlib.error) as error:
            raise httpx.DecodingError(str(error), request=request) from None
        finally:
            response.close()
        headers = [(name, value) for name, value in response.headers.raw if name.lower() not in _BODY_HEADERS]
        return httpx.Response(response.status_code, headers=headers, content=body, extensions=response.extensions)

    def _remaining_s(self) -> float:
        until: float = self._local.until
        return until - time.monotonic()


_BODY_HEADERS: Final = (b"content-encoding", b"content-length", b"transfer-encoding")


class _OutsideBackend(httpcore.SyncBackend):
    """Connects to public addresses, and to private ones where the settings name them."""

    def __init__(self, remaining_s: Callable[[], float], named_host: str) -> None:
        self._remaining_s = remaining_s
        self._private_host = named_host if _is_local_name(named_host) else None

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        error: Exception = httpcore.ConnectError("its name has no address")
        for address in _addresses(host, port):
            if host != self._private_host and not ipaddress.ip_address(address).is_global:
                raise httpcore.ConnectError("it leads into a private network, which only the settings may name")
            try:
                stream = super().connect_tcp(
                    address, port, _bounded(timeout, self._remaining_s()), local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as failed:
                error = failed
                continue
            return _TimedStream(stream, self._remaining_s)
        raise error


class _TimedStream(httpcore.NetworkStream):
    """A stream whose every wait ends with the whole request: a server that drips bytes gains nothing."""

    def __init__(self, stream: httpcore.NetworkStream, remaining_s: Callable[[], float]) -> None:
        self._stream = stream
        self._remaining_s = remaining_s

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _bounded(timeout, self._remaining_s()))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, _bounded(timeout, self._remaining_s()))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        inner = self._stream.start_tls(ssl_context, server_hostname, _bounded(timeout, self._remaining_s()))
        return _TimedStream(inner, self._remaining_s)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _bounded(timeout_s: float | None, remaining_s: float) -> float:
    if remaining_s <= 0:
        raise httpcore.ReadTimeout("the whole answer took too long")
    return remaining_s if timeout_s is None else min(timeout_s, remaining_s)


def _addresses(host: str, port: int) -> list[str]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError:
        return []
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def _is_local_name(host: str) -> bool:
    """True if the name itself says that it lies on this machine or in this network."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return "." not in host or host.endswith(_LOCAL_ENDINGS)
    return True


# ------------------------------------------------------------------------------------------------------------ requests
class BoundedAdapter(HTTPAdapter):
    """A requests adapter whose answers are bounded: `max_bytes` raw and decoded, `within_s` from the first byte on.

    Raises requests.ConnectionError beyond either, which ccxt takes for a request whose outcome is unknown.
    """

    def __init__(self, *, max_bytes: int, within_s: float, **options: Any) -> None:
        super().__init__(**options)
        self._max_bytes = max_bytes
        self._within_s = within_s

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        """Send, and read the whole answer."""
        response = super().send(request, *args, **kwargs)
        until = time.monotonic() + self._within_s

        def raw() -> Iterable[bytes]:
            while chunk := response.raw.read(_CHUNK_BYTES, decode_content=False):
                if time.monotonic() > until:
                    raise requests.ConnectionError("the answer took too long", request=request)
                yield chunk

        try:
            # What requests itself would keep of an answer that it has read.
            response._content = bounded_body(raw(), response.headers.get("Content-Encoding", ""), self._max_bytes)
            response._content_consumed = True  # type: ignore[attr-defined]
        except (AnswerTooLarge, zlib.error) as error:
            response.close()
            raise requests.ConnectionError(f"the answer cannot be taken: {error}", request=request) from None
        except urllib3.exceptions.HTTPError as error:
            response.close()
            raise requests.ConnectionError(f"the answer broke off: {type(error).__name__}", request=request) from None
        return response
