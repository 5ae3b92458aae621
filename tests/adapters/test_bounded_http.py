"""Answers are bounded: what a server sends, or says that it sends, decides neither memory nor time."""

from __future__ import annotations

import gzip
import socket
import threading
import tracemalloc
import zlib
from typing import Any

import ccxt
import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from tests.support.http_server import Answer, serving
from tradewind.adapters import ccxt_factory
from tradewind.adapters.bounded_http import AnswerTooLarge, BoundedAdapter, bounded_body
from tradewind.adapters.ccxt_factory import ClientConfig, build_exchange

_DECODED = {"gzip": gzip.compress, "deflate": zlib.compress, "": bytes, "identity": bytes}


def pieces(content: bytes, size: int) -> list[bytes]:
    return [content[start : start + size] for start in range(0, len(content), size)]


@given(st.binary(max_size=2_000), st.sampled_from(sorted(_DECODED)), st.integers(1, 700))
def test_what_fits_comes_out_as_it_went_in(content: bytes, encoding: str, size: int) -> None:
    assert bounded_body(pieces(_DECODED[encoding](content), size), encoding, 4_000) == content


@given(st.integers(1, 5_000), st.sampled_from(sorted(_DECODED)), st.integers(1, 700))
def test_one_byte_more_than_the_limit_is_refused(limit: int, encoding: str, size: int) -> None:
    with pytest.raises(AnswerTooLarge):
        bounded_body(pieces(_DECODED[encoding](b"a" * (limit + 1)), size), encoding, limit)


@given(st.binary(max_size=500), st.text(max_size=10))
def test_any_bytes_under_any_name_are_a_body_or_a_refusal(content: bytes, encoding: str) -> None:
    try:
        assert len(bounded_body([content], encoding, 100_000)) <= 100_000
    except (AnswerTooLarge, zlib.error):
        return


def test_an_encoded_answer_that_breaks_off_is_no_answer() -> None:
    with pytest.raises(zlib.error):
        bounded_body([gzip.compress(b"positions: none")[:-4]], "gzip", 1_000)


# ----------------------------------------------------------------------------------------------------------- exchanges
@pytest.mark.parametrize("encoding", ["gzip", "gzip, gzip", ""])
def test_an_exchanges_bomb_is_an_unknown_outcome_and_takes_no_memory(
    encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For ccxt it is a network error: an order may have been taken, and is looked up."""
    monkeypatch.setattr(ccxt_factory, "_MAX_BYTES", 1_000_000)
    body = b" " * 100_000_000
    for _ in range(encoding.count("gzip")):
        body = gzip.compress(body, 1)
    with serving(lambda request: Answer(200, body, {"Content-Encoding": encoding})) as (url, _):
        exchange = build_exchange(ClientConfig(base_url=url, api_key="k", api_secret="s"), None)
        tracemalloc.start()
        try:
            with pytest.raises(ccxt.NetworkError):
                exchange.private_post_order({"symbol": "BTCUSDT"})
            _, peak_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak_bytes < 20_000_000


def test_an_exchanges_usual_answer_passes() -> None:
    packed = Answer(200, gzip.compress(b'{"serverTime": 1}'), {"Content-Encoding": "gzip"})
    with serving(lambda request: packed) as (url, _):
        answer: dict[str, Any] = build_exchange(ClientConfig(base_url=url), None).public_get_time()
    assert int(answer["serverTime"]) == 1


def test_an_answer_that_breaks_off_is_a_connection_error() -> None:
    def answer(connection: socket.socket) -> None:
        with connection:
            connection.recv(65_536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")

    with socket.create_server(("127.0.0.1", 0)) as listener, requests.Session() as session:
        thread = threading.Thread(target=lambda: answer(listener.accept()[0]), daemon=True)
        thread.start()
        session.mount("http://", BoundedAdapter(max_bytes=1_000, within_s=60))
        with pytest.raises(requests.ConnectionError):
            session.get(f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=60)
        thread.join(60)
