"""Stands in for statsd_exporter, which not every machine has: the same mapping file, the same names, on /metrics.

It knows what our mapping uses: regex matches by metric type with renaming, tags in the name, timings as histograms.
"""

from __future__ import annotations

import re
import socket
import threading
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

_TYPES = {"c": "counter", "g": "gauge", "ms": "observer", "h": "observer"}
Labels = tuple[tuple[str, str], ...]


class Mapping:
    """The mapping file."""

    def __init__(self, path: Path) -> None:
        content = yaml.safe_load(path.read_text())
        self.buckets: list[float] = content["defaults"]["histogram_options"]["buckets"]
        self._rules: list[dict[str, Any]] = content["mappings"]

    def name(self, stat: str, kind: str) -> str | None:
        """What Prometheus calls it; None for what is dropped."""
        for rule in self._rules:
            assert rule["match_type"] == "regex"
            if rule.get("match_metric_type", kind) != kind:
                continue
            if match := re.search(rule["match"], stat):
                if rule.get("action") == "drop":
                    return None
                given = re.sub(r"\$\{(\d+)\}", lambda part, found=match: found[int(part[1])], rule["name"])
                return re.sub(r"[^a-zA-Z0-9_:]", "_", given)
        return re.sub(r"[^a-zA-Z0-9_:]", "_", stat)


class StatsdExporter:
    """Listens for StatsD on a UDP port and serves what it heard as Prometheus text."""

    def __init__(
        self,
        mapping: Path,
        *,
        listen: tuple[str, int] = ("127.0.0.1", 0),
        web: tuple[str, int] = ("127.0.0.1", 0),
    ) -> None:
        self.mapping = Mapping(mapping)
        self.counters: defaultdict[tuple[str, Labels], float] = defaultdict(float)
        self.gauges: dict[tuple[str, Labels], float] = {}
        self.observed: defaultdict[tuple[str, Labels], list[float]] = defaultdict(list)
        self.not_understood: list[str] = []
        self._lock = threading.Lock()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self._socket.bind(listen)
        self._web = ThreadingHTTPServer(web, self._handler())
        for target in (self._listen, self._web.serve_forever):
            threading.Thread(target=target, daemon=True).start()

    @property
    def statsd_port(self) -> int:
        return int(self._socket.getsockname()[1])

    @property
    def web_port(self) -> int:
        return self._web.server_port

    def close(self) -> None:
        self._web.shutdown()
        self._web.server_close()
        self._socket.close()

    def names(self) -> set[str]:
        """Of everything heard so far, histograms by their three series."""
        with self._lock:
            plain = {name for name, _ in [*self.counters, *self.gauges]}
            return plain | {name + end for name, _ in self.observed for end in ("_bucket", "_sum", "_count")}

    def text(self) -> str:
        """The exposition format."""
        with self._lock:
            lines = [f"{name}{_braces(labels)} {value}" for (name, labels), value in self.counters.items()]
            lines += [f"{name}{_braces(labels)} {value}" for (name, labels), value in self.gauges.items()]
            for (name, labels), values in self.observed.items():
                for bound in [*self.mapping.buckets, float("inf")]:
                    end = "+Inf" if bound == float("inf") else f"{bound:g}"
                    count = sum(value <= bound for value in values)
                    lines.append(f"{name}_bucket{_braces((*labels, ('le', end)))} {count}")
                lines.append(f"{name}_sum{_braces(labels)} {sum(values)}")
                lines.append(f"{name}_count{_braces(labels)} {len(values)}")
        return "\n".join(sorted(lines)) + "\n"

    def take(self, line: str) -> None:
        """One StatsD line, `name,tag=value:1|c`."""
        match = re.fullmatch(r"([^:|]+):([+-]?[0-9.e+-]+)\|(c|g|ms|h)(?:\|@[0-9.]+)?", line)
        if match is None:
            self.not_understood.append(line)
            return
        stat, *tags = match[1].split(",")
        kind = _TYPES[match[3]]
        name = self.mapping.name(stat, kind)
        if name is None:
            return
        key = (name, tuple(sorted((tag.partition("=")[0], tag.partition("=")[2]) for tag in tags)))
        value = float(match[2])
        with self._lock:
            if kind == "counter":
                self.counters[key] += value
            elif kind == "observer":
                self.observed[key].append(value / 1000)
            else:
                # A signed level is a change, as in StatsD.
                change = match[2][0] in "+-"
                self.gauges[key] = self.gauges.get(key, 0.0) + value if change else value

    def _listen(self) -> None:
        while True:
            try:
                packet = self._socket.recv(65536)
            except OSError:
                return
            for line in packet.decode("utf-8", "replace").splitlines():
                self.take(line)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        exporter = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = exporter.text().encode()
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                return

        return Handler


def _braces(labels: Labels) -> str:
    inside = ",".join(f'{name}="{value}"' for name, value in labels)
    return f"{{{inside}}}" if inside else ""
