"""The live display of a starting or stopping stack; plain lines where there is no terminal."""

from __future__ import annotations

import threading
import time
from types import TracebackType

from rich.console import Console, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from tradewind.stack import state as states

_MARKS = {states.READY: ("✓", "green"), states.FAILED: ("✗", "red"), "stopped": ("·", "dim"), "waiting": ("·", "dim")}


class LiveReporter:
    """A `Reporter` that draws one line a service. Use as a context manager."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._rows: dict[str, tuple[str, str]] = {}
        self._since_s: dict[str, float] = {}
        self._spinner = Spinner("dots")
        self._lock = threading.Lock()
        self._live: Live | None = None

    def __enter__(self) -> LiveReporter:
        if self._console.is_terminal:
            self._live = Live(get_renderable=self._render, console=self._console, refresh_per_second=8, transient=False)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.finish()

    def finish(self) -> None:
        """Leave the display as it is; later changes are plain lines."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def changed(self, name: str, state: str, detail: str = "") -> None:
        with self._lock:
            known = self._rows.get(name)
            if known is not None and known[0] == state and (not detail or known[1] == detail):
                return
            if known is None or known[0] != state:
                self._since_s[name] = time.monotonic()
            self._rows[name] = (state, detail)
            if self._live is None and state != "waiting":
                line = Text(f"{name:14s} {state}" + (f"  {detail}" if detail else ""))
                self._console.print(line, soft_wrap=True)

    def _render(self) -> RenderableType:
        table = Table.grid(padding=(0, 1))
        with self._lock:
            rows = list(self._rows.items())
        for name, (state, detail) in rows:
            sign, style = _MARKS.get(state, ("", "yellow"))
            mark: RenderableType = Text(sign, style=style) if sign else self._spinner
            seconds = f"{time.monotonic() - self._since_s[name]:.0f} s" if not sign else ""
            table.add_row(mark, name, Text(state, style=style), Text(detail or seconds, style="dim"))
        return table
