"""Requests that bear the control token's signature, so that a row in the audit alone makes nothing happen.

The status app signs while it is given the token and keeps no copy of it; the database verifies (`signed_request` in
sql/0018_latch.sql) with a key that its owner alone reads. HMAC-SHA256 over the very text that is stored.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import Final

_PURPOSE: Final = b"tradewind.control-request"
_BLOCK: Final = 64  # of SHA-256, in bytes

STORE_KEY: Final = """
    INSERT INTO control_key (inner_block, outer_block) VALUES (%s, %s)
    ON CONFLICT (only_row) DO UPDATE SET inner_block = excluded.inner_block, outer_block = excluded.outer_block"""


def sign(control_token: str, **fields: str | int) -> dict[str, str]:
    """The fields as the text `signed`, with its `signature`: what an audit row's detail takes in."""
    text = json.dumps(fields, sort_keys=True)
    return {"signed": text, "signature": hmac.new(_key(control_token), text.encode(), hashlib.sha256).hexdigest()}


def padded_keys(control_token: str) -> tuple[bytes, bytes]:
    """The key's inner and outer block as RFC 2104 pads them: all that verifying takes besides SHA-256 itself."""
    block = _key(control_token).ljust(_BLOCK, b"\0")
    return bytes(byte ^ 0x36 for byte in block), bytes(byte ^ 0x5C for byte in block)


def _key(control_token: str) -> bytes:
    return hmac.new(control_token.encode(), _PURPOSE, hashlib.sha256).digest()
