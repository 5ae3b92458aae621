"""A Docker engine for this test alone, in a network of its own.

Its bridges, rules and published ports live in a network namespace that has no way out: the machine's own stay as they
are, whatever listens on it is not in the way, and no container can reach or fetch anything from outside.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from tradewind.stack.processes import ProcessMark, end_sessions, spawn

PROGRAMS = ("dockerd", "docker", "containerd", "runc", "docker-init", "docker-proxy", "iptables", "debootstrap")
OLDEST_COMPOSE = (2, 20)
_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


def missing() -> str:
    """What this machine lacks to run the engine, with what installs it; empty when nothing."""
    if os.geteuid() != 0:
        return "it needs root"
    absent = [name for name in PROGRAMS if shutil.which(name, path=_PATH) is None]
    if absent:
        return f"{', '.join(absent)} not found: apt-get install docker.io docker-compose debootstrap iptables"
    done = subprocess.run(["docker", "compose", "version", "--short"], capture_output=True, text=True, check=False)
    found = tuple(int(part) for part in done.stdout.strip().lstrip("v").split("-")[0].split(".")[:2] if part.isdigit())
    if found < OLDEST_COMPOSE:
        return "docker compose 2.20 or newer not found: Debian 13's package docker-compose runs on Debian 12 too"
    return ""


class Engine:
    """Started on entering, gone with all its containers on leaving; images and layers stay in its directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._socket = directory / "docker.sock"
        self._process: subprocess.Popen[bytes] | None = None
        self.environment = {
            "PATH": _PATH,
            "HOME": str(directory),
            "DOCKER_HOST": f"unix://{self._socket}",
            # BuildKit would need a frontend of its own; the classic builder is part of the engine.
            "DOCKER_BUILDKIT": "0",
        }
        if "DOCKER_CONFIG" in os.environ:  # where its plugins may lie
            self.environment["DOCKER_CONFIG"] = os.environ["DOCKER_CONFIG"]

    def __enter__(self) -> Engine:
        self._directory.mkdir(parents=True, exist_ok=True)
        config = self._directory / "daemon.json"
        config.write_text(json.dumps({"log-level": "warn", "exec-opts": ["native.cgroupdriver=cgroupfs"]}))
        options = {
            "config-file": config,
            "data-root": self._directory / "data",
            "exec-root": self._directory / "exec",
            "pidfile": self._directory / "pid",
            "host": f"unix://{self._socket}",
            # The compose file makes its own networks.
            "bridge": "none",
        }
        (self._directory / "pid").unlink(missing_ok=True)
        arguments = [f"--{name}={value}" for name, value in options.items()]
        script = 'ip link set lo up && exec dockerd "$@"'
        self._process = spawn(
            ["unshare", "--net", "--mount", "sh", "-c", script, "dockerd", *arguments],
            log=self._directory / "dockerd.log",
            env={"PATH": _PATH, "HOME": str(self._directory)},
        )
        deadline = time.monotonic() + 60
        while self.run("docker", "version", check=False).returncode != 0:
            if self._process.poll() is not None or time.monotonic() > deadline:
                said = (self._directory / "dockerd.log").read_text()[-2000:]
                self.__exit__()
                raise AssertionError(f"the engine did not start:\n{said}")
            time.sleep(0.5)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        if self._process.poll() is None:
            end_sessions([ProcessMark.of(self._process.pid)], first=signal.SIGTERM, grace_s=120)

    # ------------------------------------------------------------------------------------------------------- commands
    def run(
        self, *argv: str, check: bool = True, timeout_s: float = 600, env: dict[str, str] | None = None, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            argv, env=self.environment | (env or {}), capture_output=True, text=True, check=False, timeout=timeout_s,
            **options,
        )  # fmt: skip
        if check and done.returncode != 0:
            said = f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
            raise AssertionError(f"{' '.join(argv[:6])} … ended with {done.returncode}:\n{said}")
        return done

    def docker(self, *argv: str, **options: Any) -> str:
        return self.run("docker", *argv, **options).stdout.strip()

    def has_image(self, name: str) -> bool:
        return self.run("docker", "image", "inspect", name, check=False).returncode == 0

    def import_image(self, name: str, root: Path) -> None:
        """One image of one layer from a directory."""
        with subprocess.Popen(["tar", "-C", root, "--numeric-owner", "-c", "."], stdout=subprocess.PIPE) as packing:
            self.run("docker", "import", "-", name, stdin=packing.stdout)
        assert packing.returncode == 0

    def kill(self, container: str) -> None:
        """What a failure does: the container's first process dies, and with it all others; its policy restarts it.

        `docker kill` would count as stopped by a person.
        """
        pid = int(self.docker("inspect", "--format", "{{.State.Pid}}", container))
        assert pid > 1
        os.kill(pid, signal.SIGKILL)
