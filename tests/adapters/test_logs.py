"""Log lines: JSON, one object a line, with what was bound, and without secrets."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from tradewind.adapters.logs import configure_logging


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """The stream that lines go to; logging is as before afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    configure_logging("INFO", stream=stream, process="test")
    yield stream
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def read(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_both_kinds_of_loggers_write_json(lines: io.StringIO) -> None:
    with structlog.contextvars.bound_contextvars(bar="2026-01-05T00:00Z"):
        structlog.get_logger("ours").info("stored", rows=3)
    logging.getLogger("theirs").warning("slow: %d ms", 7, extra={"symbol": "BTC/USDT"})
    logging.getLogger("theirs").debug("never")
    ours, theirs = read(lines)
    assert ours["event"] == "stored"
    assert (ours["rows"], ours["bar"], ours["level"], ours["process"]) == (3, "2026-01-05T00:00Z", "info", "test")
    assert str(ours["timestamp"]).endswith("Z")
    assert (theirs["event"], theirs["symbol"], theirs["logger"]) == ("slow: 7 ms", "BTC/USDT", "theirs")


def test_an_exception_is_one_line(lines: io.StringIO) -> None:
    try:
        raise ValueError("bad\nnews")
    except ValueError:
        logging.getLogger("ours").exception("failed")
    (line,) = read(lines)
    assert "ValueError: bad\nnews" in str(line["exception"])


def test_secrets_are_hidden_wherever_they_stand(lines: io.StringIO) -> None:
    log = structlog.get_logger("ours")
    log.info("a", api_key="hunter2", nested={"password": "hunter2", "x": [{"Authorization": "Bearer hunter2"}]})
    log.info("connect to postgresql://me:hunter2@db:5432/x failed")
    log.info("sent", url="https://api.example/order?symbol=BTC&signature=hunter2&x=1")
    logging.getLogger("theirs").error("redis://:hunter2@127.0.0.1/0")
    assert "hunter2" not in lines.getvalue()
    assert read(lines)[1]["event"] == "connect to postgresql://me:***@db:5432/x failed"
