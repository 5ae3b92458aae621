"""Who may ask: tokens, cookie sessions, CSRF, limits, and the headers that keep a browser in its place.

::

    Authorization: Bearer <read token>  ─┐
    cookie of /login (HttpOnly, Strict) ─┴─► may read
    X-Tradewind-Control: <control token> ──► may control (and read)
        from a cookie session, X-CSRF-Token as well

Requests with the control token are never limited, those of readers by their credential, those of strangers by address:
who has the token is heard however many others ask. Tokens are kept as SHA-256 and compared in constant time; a refusal
never says which part was wrong. The control token itself is never kept: it passes through with each call, and signs
what a run must be sure of (`control.resume`).
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable
from enum import StrEnum
from functools import wraps
from typing import Any, ParamSpec, TypeVar
from urllib.parse import urlsplit

from apiflask import APIFlask
from flask import Request, Response, abort, current_app, g, redirect, request
from itsdangerous import BadSignature, URLSafeTimedSerializer
from pydantic import SecretStr
from werkzeug.exceptions import TooManyRequests

from tradewind.errors import BadSetting

from .audit import record
from .services import Services, services

P = ParamSpec("P")
R = TypeVar("R")

COOKIE = "tradewind_session"
CONTROL_HEADER = "X-Tradewind-Control"
CSRF_HEADER = "X-CSRF-Token"
SESSION_S = 7 * 86400
_SALT = "tradewind.session"
_UNCOUNTED = ("page.login_form", "page.login", "page.static_file", "read.health")


class Standing(StrEnum):
    """What a request's credentials make of it; its path may ask for more."""

    CONTROLLER = "controller"
    READER = "reader"
    STRANGER = "stranger"


class Gate:
    """The tokens of this deployment and the sessions made with them."""

    def __init__(self, read_token: SecretStr, control_token_digest: SecretStr, session_key: SecretStr) -> None:
        self._read = _digest(_required(read_token, "TRADEWIND_API_READ_TOKEN"))
        self._control = _required(control_token_digest, "TRADEWIND_API_CONTROL_TOKEN").encode()
        self._session_key = _required(session_key, "TRADEWIND_API_SESSION_KEY")
        # A new read token ends the sessions that the old one opened.
        self._sessions = URLSafeTimedSerializer(self._session_key, salt=_SALT + self._read.hex())

    def is_read_token(self, token: str) -> bool:
        return hmac.compare_digest(_digest(token), self._read)

    def is_control_token(self, token: str) -> bool:
        return hmac.compare_digest(_digest(token).hex().encode(), self._control)

    def standing(self, request: Request) -> tuple[Standing, str]:
        """Of a request, with what counts its requests: the credential, or a stranger's address."""
        if self.is_control_token(request.headers.get(CONTROL_HEADER, "")):
            return Standing.CONTROLLER, ""
        if reader := self.reader(request):
            return Standing.READER, reader
        return Standing.STRANGER, request.remote_addr or "-"

    def reader(self, request: Request) -> str | None:
        """The session's number, or the token's kind; None for who may not read. A token given decides alone."""
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer" and token:
            known = self.is_read_token(token.strip()) or self.is_control_token(token.strip())
            return "token" if known else None
        return self.session(request.cookies.get(COOKIE, ""))

    def new_session(self) -> str:
        """The value of a session's cookie."""
        return str(self._sessions.dumps(secrets.token_hex(16)))

    def session(self, cookie: str) -> str | None:
        """The session's number; None when the cookie is forged or too old."""
        try:
            number = self._sessions.loads(cookie, max_age=SESSION_S)
        except BadSignature:
            return None
        return number if isinstance(number, str) else None

    def csrf_token(self, session: str) -> str:
        """What a page of this session must send along with a control call."""
        return hmac.new(self._session_key.encode(), f"csrf:{session}".encode(), hashlib.sha256).hexdigest()


class Limiter:
    """At most so many events a minute from one address, counted in this process."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._events: defaultdict[str, deque[float]] = defaultdict(deque)

    def allows(self, key: str, per_minute: int, *, count: bool = True) -> bool:
        """Whether one more event of `key` fits; counted unless told otherwise."""
        now = self._clock()
        with self._lock:
            if len(self._events) > 10_000:
                self._events.clear()
            events = self._events[key]
            while events and events[0] < now - 60:
                events.popleft()
            if len(events) >= per_minute:
                return False
            if count:
                events.append(now)
            return True


def install(app: APIFlask, made: Services) -> None:
    """Guard the app. Raises BadSetting when a token is missing: an app without one would be open to everybody."""
    settings = made.settings
    app.extensions["tradewind.gate"] = Gate(
        settings.api_read_token, settings.api_control_token_digest, settings.api_session_key
    )
    app.extensions["tradewind.limiter"] = Limiter()
    app.security_schemes = {
        "ReadToken": {"type": "http", "scheme": "bearer"},
        "Session": {"type": "apiKey", "in": "cookie", "name": COOKIE},
        "ControlToken": {"type": "apiKey", "in": "header", "name": CONTROL_HEADER},
    }
    parts = urlsplit(settings.airflow_url)
    frames = f"{parts.scheme}://{parts.netloc}"
    if parts.hostname == "127.0.0.1":
        frames += f" {parts.scheme}://localhost:{parts.port}"
    app.before_request(_limit)
    app.after_request(lambda response: _harden(response, frames))


def gate() -> Gate:
    """That of the current app."""
    found: Gate = current_app.extensions["tradewind.gate"]
    return found


def may_read(view: Callable[P, R]) -> Callable[P, R]:
    """Let only readers in; others get 401."""

    @wraps(view)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        if not _reader():
            _refuse("read", 401)
        return view(*args, **kwargs)

    return guarded


def may_see(view: Callable[P, R]) -> Callable[P, Any]:
    """For pages: who is not signed in is sent to the login."""

    @wraps(view)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> Any:
        if not _reader():
            return redirect("/login", 303)
        return view(*args, **kwargs)

    return guarded


def may_control(view: Callable[P, R]) -> Callable[P, R]:
    """Let only holders of the control token in: 401 for strangers, 403 for readers."""

    @wraps(view)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        given = request.headers.get(CONTROL_HEADER, "")
        session = _session()
        if not gate().is_control_token(given):
            _refuse("control", 403 if _reader() else 401)
        if session is not None and not request.headers.get("Authorization"):
            expected = gate().csrf_token(session)
            if not hmac.compare_digest(request.headers.get(CSRF_HEADER, "").encode(), expected.encode()):
                _refuse("control", 403)
        g.actor = "control"
        return view(*args, **kwargs)

    return guarded


def refused(action: str) -> None:
    """Count and audit a refused attempt; too many from one address are answered 429."""
    limiter: Limiter = current_app.extensions["tradewind.limiter"]
    if not limiter.allows(f"refused:{request.remote_addr}", current_app.config["REFUSALS_PER_MINUTE"]):
        raise TooManyRequests("Too many refused attempts; wait a minute.", retry_after=60)
    record(services(), "unknown", action, "refused", {"path": request.path[:200]})


def _refuse(action: str, status: int) -> None:
    refused(action)
    if status == 401:
        response = _problem(401, "A valid token is needed.")
        response.headers["WWW-Authenticate"] = "Bearer"
        abort(response)
    abort(_problem(403, "This needs the control token."))


def _problem(status: int, detail: str) -> Response:
    from .problems import problem

    return problem(status, detail)


def _reader() -> bool:
    return gate().reader(request) is not None


def _session() -> str | None:
    return gate().session(request.cookies.get(COOKIE, ""))


def csrf_token() -> str:
    """Of the current cookie session; "" without one."""
    session = _session()
    return gate().csrf_token(session) if session else ""


def set_session(response: Response) -> Response:
    """Sign the browser in."""
    response.set_cookie(
        COOKIE, gate().new_session(), max_age=SESSION_S, httponly=True, samesite="Strict", secure=request.is_secure
    )
    return response


def end_session(response: Response) -> Response:
    """Sign the browser out."""
    response.delete_cookie(COOKIE, httponly=True, samesite="Strict", secure=request.is_secure)
    return response


def _limit() -> None:
    standing, key = gate().standing(request)
    # Whoever signs in is a stranger until then, and must not be shut out by others from the same address: a wrong token
    # counts as refused. The files hold nothing, and the supervisor asks whether this process lives.
    if standing is Standing.CONTROLLER or request.endpoint in _UNCOUNTED:
        return
    limiter: Limiter = current_app.extensions["tradewind.limiter"]
    if not limiter.allows(f"{standing}:{key}", current_app.config[f"{standing.upper()}_REQUESTS_PER_MINUTE"]):
        raise TooManyRequests("Too many requests; wait a minute.", retry_after=60)


def _harden(response: Response, frames: str) -> Response:
    # plotly draws with style elements of its own making; scripts come from this host's files alone.
    response.headers["Content-Security-Policy"] = (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
        "font-src 'self'; connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'self'; "
        f"frame-ancestors {frames}"
    )
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers["Permissions-Policy"] = "camera=(), microphone=(), geolocation=()"
    response.headers["Cross-Origin-Opener-Policy"] = "same-origin"
    response.headers.setdefault("Cache-Control", "no-store")
    return response


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def _required(secret: SecretStr, setting: str) -> str:
    if not (value := secret.get_secret_value()):
        raise BadSetting(setting, "is empty, and the status app must not be open", "run ./tradewind secrets init")
    return value
