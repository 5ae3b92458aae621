"""Request parameters: one type each, refused in Binance's words when they do not fit; unknown and repeated ones too."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any
from urllib.parse import unquote_plus

from tradewind.paper.dialect import STP_MODES, ApiError, missing

Parser = Callable[[str, str], Any]
Params = dict[str, Any]

_DECIMAL = re.compile(r"[0-9]{1,20}(\.[0-9]{1,20})?")
_LONG = re.compile(r"[0-9]{1,20}")
_SYMBOL = re.compile(r"[A-Z0-9_.\-]{1,20}")
_CLIENT_ID = re.compile(r"[a-zA-Z0-9_\-]{1,36}")
_ZONE = re.compile(r"([+-]?)(\d{1,2})(?::(\d{2}))?")
_MAX_DECIMALS = 8


def split_pairs(raw: str) -> list[tuple[str, str]]:
    """The name=value pairs of a query string or form body, percent-decoded, in their order."""
    pairs = []
    for part in raw.split("&"):
        if part:
            name, _, value = part.partition("=")
            pairs.append((unquote_plus(name), unquote_plus(value)))
    return pairs


def collect(query: str, body: str) -> dict[str, str]:
    """Query and body parameters as one mapping; the query wins over the body; a name repeated within one is refused."""
    merged: dict[str, str] = {}
    for raw in (body, query):
        pairs = split_pairs(raw)
        names = [name for name, _ in pairs]
        if len(set(names)) != len(names):
            raise ApiError(-1101, "Duplicate values for a parameter detected.")
        merged.update(pairs)
    return merged


def parse(sent: Mapping[str, str], allowed: Mapping[str, Parser], required: tuple[str, ...]) -> Params:
    """The typed parameters. Raises ApiError: -1105 empty, -1102 missing, -1104/-1101 unknown, or the parser's own."""
    values: Params = {}
    for name, parser in allowed.items():
        if name in sent:
            text = sent[name]
            if text == "":
                raise ApiError(-1105, f"Parameter '{name}' was empty.")
            values[name] = parser(name, text)
        elif name in required:
            raise missing(name)
    unread = len(sent) - len(values)
    if unread and not allowed:
        raise ApiError(-1101, f"Too many parameters; expected '0' and received '{len(sent)}'.")
    if unread:
        raise ApiError(
            -1104, f"Not all sent parameters were read; read '{len(values)}' parameter(s) but was sent '{len(sent)}'."
        )
    return values


def decimal(name: str, text: str) -> Decimal:
    if not _DECIMAL.fullmatch(text):
        raise ApiError(
            -1100,
            f"Illegal characters found in parameter '{name}'; legal range is '^([0-9]{{1,20}})(\\.[0-9]{{1,20}})?$'.",
        )
    _, _, fraction = text.partition(".")
    if len(fraction.rstrip("0")) > _MAX_DECIMALS:
        raise ApiError(-1111, f"Parameter '{name}' has too much precision.")
    return Decimal(text)


def number(name: str, text: str) -> int:
    if not _LONG.fullmatch(text):
        raise ApiError(-1100, f"Illegal characters found in parameter '{name}'; legal range is '^[0-9]{{1,20}}$'.")
    value = int(text)
    if value >= 1 << 63:
        raise ApiError(-1108, f"Parameter '{name}' overflowed.")
    return value


def moment(name: str, text: str) -> int:
    """Epoch milliseconds; microseconds are recognised by their size."""
    value = number(name, text)
    return value // 1000 if value >= 10**15 else value


def limit(maximum: int) -> Parser:
    def parser(name: str, text: str) -> int:
        value = number(name, text)
        if value < 1:
            raise ApiError(-1130, f"Data sent for parameter '{name}' is not valid.")
        return min(value, maximum)

    return parser


def symbol(name: str, text: str) -> str:
    if not _SYMBOL.fullmatch(text):
        raise ApiError(
            -1100, f"Illegal characters found in parameter '{name}'; legal range is '^[A-Z0-9-_.]{{1,20}}$'."
        )
    return text


def symbols(name: str, text: str) -> list[str]:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, list) or not found or not all(isinstance(s, str) for s in found):
        one_symbol = '"[A-Z0-9-_.]{1,20}"'
        legal = rf"^\[({one_symbol}(,{one_symbol}){{0,}}){{0,1}}\]$"
        raise ApiError(-1100, f"Illegal characters found in parameter '{name}'; legal range is '{legal}'.")
    if len(set(found)) != len(found):
        raise ApiError(-1151, "Symbol is present multiple times in the list.")
    return [symbol(name, s) for s in found]


def client_id(name: str, text: str) -> str:
    if not _CLIENT_ID.fullmatch(text):
        raise ApiError(
            -1100, f"Illegal characters found in parameter '{name}'; legal range is '^[a-zA-Z0-9-_]{{1,36}}$'."
        )
    return text


def boolean(name: str, text: str) -> bool:
    lowered = text.lower()
    if lowered not in ("true", "false"):
        raise ApiError(-1100, f"Illegal characters found in parameter '{name}'; legal range is '^(true|false)$'.")
    return lowered == "true"


def one(values: tuple[str, ...], code: int = -1130, message: str = "") -> Parser:
    """A parser for an enumeration; a value outside it answers `code`."""

    def parser(name: str, text: str) -> str:
        if text not in values:
            raise ApiError(code, message or f"Data sent for parameter '{name}' is not valid.")
        return text

    return parser


def time_zone(name: str, text: str) -> int:
    """Offset from UTC in milliseconds, from -12:00 to +14:00."""
    match = _ZONE.fullmatch(text)
    if match:
        minutes = int(match[2]) * 60 + int(match[3] or 0)
        minutes = -minutes if match[1] == "-" else minutes
        if -720 <= minutes <= 840:
            return minutes * 60_000
    raise ApiError(-1130, f"Data sent for parameter '{name}' is not valid.")


def receive_window(name: str, text: str) -> float:
    value = float(decimal(name, text))
    if value > 60_000:
        raise ApiError(-1131, "recvWindow must be less than 60000.")
    return value


def strategy_type(name: str, text: str) -> int:
    value = number(name, text)
    if value < 1_000_000:
        raise ApiError(-1134, "strategyType was less than 1000000.")
    return value


side = one(("BUY", "SELL"), -1117, "Invalid side.")
time_in_force = one(("GTC", "IOC", "FOK"), -1115, "Invalid timeInForce.")
response_type = one(("ACK", "RESULT", "FULL"))
stp_mode = one(STP_MODES)
