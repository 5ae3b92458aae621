"""Starts services in the order of their needs, restarts what dies, and stops everything in the reverse order.

::

    waiting ──needs are ready──▶ starting ──answers──▶ ready ──dies or hangs──▶ restarting ──back-off──▶ starting
                                     │                                                                      │
                                     └──ends, or too slow, on the first start──▶ failed: everything stops   ┘
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from tradewind.errors import AlreadyRunning, ServiceNotReady, StackFailed
from tradewind.listeners import foreign_listener
from tradewind.stack import state as states
from tradewind.stack.processes import LOCALHOST, ProcessMark, end_sessions, last_words, require_port
from tradewind.stack.state import Deployment, ProcessState, StackState

_FIRST_BACKOFF_S = 1.0
_LONGEST_BACKOFF_S = 60.0
# Back-off is against what dies as soon as it runs. One that has answered for this long is well again: killed ten times
# in ten minutes, it is started again at once each time, and what needs it does not give up meanwhile.
_WELL_AFTER_S = 30.0
_PROBE_EVERY_S = 15.0
# What was started again is asked sooner, so that nobody is told for long that it is away.
_PROBE_SOON_S = 2.0
# Training may starve everything else of the processor for minutes; only true silence counts as hanging.
_HANGS_AFTER_S = 300.0

log = logging.getLogger(__name__)


class Process(Protocol):
    """What the supervisor uses of a `subprocess.Popen`, and of a process that another one forked."""

    @property
    def pid(self) -> int: ...

    def poll(self) -> int | None: ...

    def wait(self, timeout: float | None = None) -> int: ...


@dataclass(frozen=True, slots=True)
class Step:
    """Work that is done once, between services; `undo` is called when the stack stops, however far it had come."""

    name: str
    needs: tuple[str, ...]
    run: Callable[[], None]
    undo: Callable[[], None] | None = None


@dataclass(frozen=True, slots=True)
class Service:
    """A process that must live as long as the stack.

    Attributes
    ----------
    launch : starts the process and returns at once.
    ready : whether it answers now; must itself give up within a few seconds.
    port, port_setting : where it listens, and the setting that moves it.
    is_ours : whether it runs our code, so that a reload restarts it.
    """

    name: str
    needs: tuple[str, ...]
    launch: Callable[[], Process]
    ready: Callable[[], bool]
    log: Path
    port: int | None = None
    port_setting: str = ""
    stop_signal: signal.Signals = signal.SIGTERM
    grace_s: float = 15.0
    start_timeout_s: float = 180.0
    is_ours: bool = False


class Reporter(Protocol):
    """Is told of each change; may be called from several threads."""

    def changed(self, name: str, state: str, detail: str = "") -> None: ...


class SilentReporter:
    """Tells nobody."""

    def changed(self, name: str, state: str, detail: str = "") -> None:
        return


class LogReporter:
    """Writes each change as a log line."""

    def changed(self, name: str, state: str, detail: str = "") -> None:
        log.info("%s %s%s", name, state, f": {detail}" if detail else "")


@dataclass(slots=True)
class _Running:
    process: Process
    mark: ProcessMark
    started_s: float
    answered_s: float
    log_size: int  # before it was started
    first_answer_s: float | None = None
    restarts: int = 0
    backoff_s: float = field(default_factory=lambda: _FIRST_BACKOFF_S)
    restart_at_s: float | None = None

    def answers(self) -> bool:
        """Note that it answers; returns whether that is the first time."""
        self.answered_s = time.monotonic()
        if self.first_answer_s is not None:
            return False
        self.first_answer_s = self.answered_s
        return True

    def was_well(self, now_s: float) -> bool:
        return self.first_answer_s is not None and now_s - self.first_answer_s > _WELL_AFTER_S


class Supervisor:
    """Runs the nodes of one stack; `start`, then `stop`, each once."""

    def __init__(
        self,
        nodes: Sequence[Service | Step],
        state_path: Path,
        reporter: Reporter,
        urls: dict[str, str],
        deployment: Deployment | None = None,
    ) -> None:
        self._nodes = {node.name: node for node in nodes}
        self._state_path = state_path
        self._reporter = reporter
        self._running: dict[str, _Running] = {}
        self._lock = threading.RLock()
        self._stopping = threading.Event()
        self._watcher: threading.Thread | None = None
        self._prober: threading.Thread | None = None
        mark = ProcessMark.of(os.getpid())
        self._state = StackState(supervisor=mark, state=states.STARTING, urls=urls, deployment=deployment)

    # --- start -------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start everything; returns when all is ready. On failure or interruption stops what it started and raises."""
        self._state_path.parent.mkdir(parents=True, exist_ok=True)
        for service in self._services():
            if service.port is not None:
                require_port(service.port, service.port_setting, service.name)
        self._save()
        try:
            self._run_graph()
        except BaseException:
            self.stop()
            raise
        self._state.state = states.READY
        self._save()
        self._watcher = threading.Thread(target=self._watch, name="watcher", daemon=True)
        self._watcher.start()
        self._prober = threading.Thread(target=self._probe, name="prober", daemon=True)
        self._prober.start()

    def _run_graph(self) -> None:
        waiting = dict(self._nodes)
        done: set[str] = set()
        futures: dict[Future[None], str] = {}
        with ThreadPoolExecutor(max_workers=len(waiting), thread_name_prefix="start") as pool:
            try:
                while waiting or futures:
                    for name, node in list(waiting.items()):
                        if set(node.needs) & self._nodes.keys() <= done:
                            futures[pool.submit(self._run_node, node)] = name
                            del waiting[name]
                    if not futures:
                        raise StackFailed(f"{sorted(waiting)} wait for each other")
                    finished, _ = wait(futures, return_when=FIRST_COMPLETED)
                    for future in finished:
                        name = futures.pop(future)
                        future.result()
                        done.add(name)
            except BaseException:
                self._stopping.set()
                raise

    def _run_node(self, node: Service | Step) -> None:
        self._reporter.changed(node.name, states.STARTING)
        started_s = time.monotonic()
        try:
            if isinstance(node, Step):
                node.run()
            else:
                self._launch(node)
                self._await_ready(node)
        except BaseException as error:
            self._reporter.changed(node.name, states.FAILED, str(error))
            raise
        self._reporter.changed(node.name, states.READY, f"{time.monotonic() - started_s:.1f} s")

    def _launch(self, service: Service) -> None:
        with self._lock:
            if self._stopping.is_set():
                raise StackFailed("the stack is being stopped")
            before = self._running.get(service.name)
            log_size = service.log.stat().st_size if service.log.exists() else 0
            process = service.launch()
            now_s = time.monotonic()
            mark = ProcessMark.of(process.pid)
            running = _Running(process, mark, now_s, now_s, log_size)
            if before is not None:
                running.restarts, running.backoff_s = before.restarts, before.backoff_s
            self._running[service.name] = running
            self._state.leaders.append(mark)
            self._save()

    def _await_ready(self, service: Service) -> None:
        running = self._running[service.name]
        deadline = time.monotonic() + service.start_timeout_s
        while not self._answers(service, running):
            if self._stopping.is_set():
                raise StackFailed("the stack is being stopped")
            code = running.process.poll()
            if code is not None:
                said = last_words(service.log, running.log_size)
                raise StackFailed(f"{service.name} ended with status {code}: {said} (see {service.log})")
            if time.monotonic() > deadline:
                raise ServiceNotReady(
                    f"{service.name} did not answer within {service.start_timeout_s:.0f} s (see {service.log})"
                )
            time.sleep(0.1)
        running.answers()
        self._save()

    @staticmethod
    def _answers(service: Service, running: _Running) -> bool:
        """Whether it answers, and not another's program that took its port: before it did, or after its death."""
        return (
            service.ready()
            and (service.port is None or not foreign_listener(LOCALHOST, service.port))
            and running.process.poll() is None
        )

    # --- watch -------------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        while not self._stopping.wait(0.25):
            for service in self._services():
                with self._lock:
                    if self._stopping.is_set():
                        return
                    self._watch_one(service)

    def _watch_one(self, service: Service) -> None:
        running = self._running[service.name]
        now_s = time.monotonic()
        if running.restart_at_s is None:
            code = running.process.poll()
            if code is None:
                return
            if running.was_well(now_s):
                running.backoff_s = _FIRST_BACKOFF_S
            running.restart_at_s = now_s + running.backoff_s
            said = last_words(service.log, running.log_size)
            detail = f"ended with status {code}, starts again in {running.backoff_s:.0f} s: {said}"
            running.backoff_s = min(running.backoff_s * 2, _LONGEST_BACKOFF_S)
            running.restarts += 1
            self._reporter.changed(service.name, states.RESTARTING, detail)
            self._save()
        elif now_s >= running.restart_at_s:
            # What a killed process forked must not go on beside its successor.
            end_sessions([running.mark], grace_s=0.0)
            self._forget(running.mark)
            try:
                self._launch(service)
            except (OSError, StackFailed, AlreadyRunning) as error:
                running.restart_at_s = now_s + running.backoff_s
                running.backoff_s = min(running.backoff_s * 2, _LONGEST_BACKOFF_S)
                self._reporter.changed(service.name, states.RESTARTING, str(error))
                return
            self._reporter.changed(service.name, states.STARTING, "again")

    def _probe(self) -> None:
        """Kill what lives but has not answered for long; the watcher then restarts it."""
        silent: set[str] = set()
        while not self._stopping.wait(_PROBE_SOON_S if self._anything_starts() else _PROBE_EVERY_S):
            for service in self._services():
                running = self._running[service.name]
                if running.restart_at_s is not None:
                    continue
                if self._answers(service, running):
                    if running.answers():
                        self._save()
                    if service.name in silent or running.restarts:
                        self._reporter.changed(service.name, states.READY)
                    silent.discard(service.name)
                elif time.monotonic() - max(running.answered_s, running.started_s) > _HANGS_AFTER_S:
                    self._reporter.changed(service.name, states.RESTARTING, "it does not answer any more")
                    end_sessions([running.mark], grace_s=service.grace_s)
                else:
                    silent.add(service.name)

    def _anything_starts(self) -> bool:
        return any(running.first_answer_s is None for running in list(self._running.values()))

    def reload(self) -> None:
        """Restart, one after the other, the services that run our code."""
        for service in self._services():
            if not service.is_ours:
                continue
            with self._lock:
                running = self._running[service.name]
                self._reporter.changed(service.name, states.RESTARTING, "reload")
                end_sessions([running.mark], first=service.stop_signal, grace_s=service.grace_s)
                running.process.wait()
                self._forget(running.mark)
                self._launch(service)
            self._await_ready(service)
            self._reporter.changed(service.name, states.READY, "reloaded")
        self._state.reloads += 1
        self._save()

    # --- stop --------------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """End every service, those first that others do not need; returns when nothing of them lives."""
        self._stopping.set()
        for thread in (self._watcher, self._prober):
            if thread is not None and thread is not threading.current_thread():
                thread.join(timeout=30)
        with self._lock:
            self._state.state = states.STOPPING
            self._save()
            for layer in self._layers():
                threads = [
                    threading.Thread(target=self._end, args=(service, self._running[service.name]))
                    for service in layer
                    if service.name in self._running
                ]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
            for node in self._nodes.values():
                if isinstance(node, Step) and node.undo is not None:
                    node.undo()
            self._running.clear()
            self._state_path.unlink(missing_ok=True)

    def _end(self, service: Service, running: _Running) -> None:
        self._reporter.changed(service.name, states.STOPPING)
        end_sessions([running.mark], first=service.stop_signal, grace_s=service.grace_s)
        running.process.poll()
        self._reporter.changed(service.name, "stopped")

    def _layers(self) -> list[list[Service]]:
        """Services in groups to be ended one after the other: first those that nobody still running needs."""
        needs = {name: self._all_needs(name) for name in self._nodes}
        rest = {service.name: service for service in self._services()}
        layers = []
        while rest:
            needed = {need for name in rest for need in needs[name]}
            layer = [service for name, service in rest.items() if name not in needed]
            layers.append(layer)
            for service in layer:
                del rest[service.name]
        return layers

    def _all_needs(self, name: str) -> set[str]:
        found: set[str] = set()
        waiting = list(self._nodes[name].needs)
        while waiting:
            need = waiting.pop()
            if need in self._nodes and need not in found:
                found.add(need)
                waiting += self._nodes[need].needs
        return found

    # --- state -------------------------------------------------------------------------------------------------------

    def _services(self) -> list[Service]:
        return [node for node in self._nodes.values() if isinstance(node, Service)]

    def _forget(self, mark: ProcessMark) -> None:
        if mark in self._state.leaders:
            self._state.leaders.remove(mark)

    def _save(self) -> None:
        with self._lock:
            self._state.processes = [self._describe(service) for service in self._services()]
            self._state.save(self._state_path)

    def _describe(self, service: Service) -> ProcessState:
        running = self._running.get(service.name)
        if running is None:
            return ProcessState(service.name, "waiting", None, service.port, str(service.log))
        state = states.STARTING if running.first_answer_s is None else states.READY
        if running.restart_at_s is not None:
            state = states.RESTARTING
        return ProcessState(service.name, state, running.mark, service.port, str(service.log), running.restarts)
