"""Who asks: API key, timestamp and HMAC signature of a request, always on wall time."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping

from tradewind.paper.dialect import ApiError, missing
from tradewind.paper.exchange import ApiKey
from tradewind.paper.params import moment, number, receive_window

_KEY = re.compile(r"[A-Za-z0-9]{16,128}")
_SIGNATURE = re.compile(r"(^|&)signature=[^&]*")
_DEFAULT_WINDOW_MS = 5_000
_MAX_AHEAD_MS = 1_000


def find_key(header: str | None, keys: Mapping[str, ApiKey]) -> ApiKey:
    """The key of the X-MBX-APIKEY header. Raises ApiError -2014 (no key, or not shaped like one) or -2015 (unknown)."""
    if not header or not _KEY.fullmatch(header):
        raise ApiError(-2014, "API-key format invalid.", 401)
    key = keys.get(header)
    if key is None:
        raise ApiError(-2015, "Invalid API-key, IP, or permissions for action.", 401)
    return key


def require_trading(key: ApiKey) -> None:
    if not key.can_trade:
        raise ApiError(-2015, "Invalid API-key, IP, or permissions for action.", 401)


def check_signature(key: ApiKey, sent: Mapping[str, str], query: str, body: str, wall_ms: int) -> None:
    """Raise ApiError unless the request is signed with the key's secret and its timestamp is fresh.

    The signed text is the raw query string followed by the raw body, without the signature itself.
    """
    for name in ("timestamp", "signature"):
        if not sent.get(name):
            raise missing(name)
    number("timestamp", sent["timestamp"])
    sent_ms = moment("timestamp", sent["timestamp"])
    window_ms = receive_window("recvWindow", sent["recvWindow"]) if "recvWindow" in sent else _DEFAULT_WINDOW_MS
    if sent_ms >= wall_ms + _MAX_AHEAD_MS:
        raise ApiError(-1021, "Timestamp for this request was 1000ms ahead of the server's time.")
    if wall_ms - sent_ms > window_ms:
        raise ApiError(-1021, "Timestamp for this request is outside of the recvWindow.")
    payload = _SIGNATURE.sub("", query).removeprefix("&") + _SIGNATURE.sub("", body).removeprefix("&")
    expected = hmac.new(key.api_secret.encode(), payload.encode(), hashlib.sha256).hexdigest()
    if not hmac.compare_digest(expected, sent["signature"].lower()):
        raise ApiError(-1022, "Signature for this request is not valid.")
