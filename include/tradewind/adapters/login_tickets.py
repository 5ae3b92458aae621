"""One-time login links for the status page: signed, short-lived, and worth one session.

Whoever starts the stack prints a link; the status app exchanges its ticket for a cookie. The ticket carries no token,
so a link that leaks later opens nothing.
"""

from __future__ import annotations

import secrets

from itsdangerous import BadSignature, URLSafeTimedSerializer

_SALT = "tradewind.login-ticket"
LIFETIME_S = 600


def make_ticket(session_key: str) -> str:
    """A ticket that `read_ticket` accepts for ten minutes."""
    return str(URLSafeTimedSerializer(session_key, salt=_SALT).dumps(secrets.token_hex(16)))


def read_ticket(session_key: str, ticket: str) -> str | None:
    """The ticket's number, by which its use is remembered; None when it is forged or too old."""
    try:
        number = URLSafeTimedSerializer(session_key, salt=_SALT).loads(ticket, max_age=LIFETIME_S)
    except BadSignature:
        return None
    return number if isinstance(number, str) else None


def login_link(status_url: str, session_key: str) -> str:
    """The address to print for a person: good once, for ten minutes."""
    return f"{status_url.rstrip('/')}/login?ticket={make_ticket(session_key)}"
