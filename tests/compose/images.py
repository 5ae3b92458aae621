"""Stand-ins for the images that docker-compose.yaml pins, from Debian's packages, under the very names that it pins.

What is fetched is fetched by this machine's own tools, as they are configured here: debootstrap and apt from its Debian
mirror, pip from its package index. Nothing of that configuration goes into an image: the stand-in for Airflow's image
carries the wheels and the packages that the Dockerfile installs, and the build has no network.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from tests.compose.engine import Engine
from tradewind.settings import PROJECT_DIR

BASE = "tradewind-stand-in:debian"
STAND_INS = Path(__file__).parent / "standins"
# The directory under `standins` for each repository that the compose file and the Dockerfile name.
REPOSITORIES = {
    "postgres": "postgres",
    "redis": "redis",
    "apache/airflow": "airflow",
    "prom/statsd-exporter": "statsd-exporter",
    "prom/prometheus": "prometheus",
    "grafana/grafana": "grafana",
    "mher/flower": "flower",
}
_PACKAGES = (
    "ca-certificates", "curl", "postgresql", "procps", "prometheus", "python-is-python3", "python3-venv",
    "python3-yaml", "redis-server", "wget",
)  # fmt: skip
# The users that the real images bring, which the compose file names by number.
_USERS = {999: "server", 472: "grafana", 50000: "airflow"}
_DOCKERFILE = PROJECT_DIR / "include" / "ops" / "Dockerfile"
_LOCKS = (PROJECT_DIR / "requirements.txt", PROJECT_DIR / "include" / "ops" / "requirements-image.txt")
_FLOWER_LOCK = STAND_INS / "flower" / "requirements.txt"


def pinned(compose: dict[str, Any]) -> dict[str, str]:
    """Each image that must be there before the build, with the directory of its stand-in."""
    dockerfile = _DOCKERFILE.read_text()
    names = {str(service["image"]) for service in compose["services"].values() if not service.get("build")}
    names |= set(re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE))
    return {name: REPOSITORIES[name.partition(":")[0]] for name in names if name.partition(":")[0] in REPOSITORIES}


def make_stand_ins(engine: Engine, directory: Path, compose: dict[str, Any]) -> None:
    """Make what is missing of them; the first time takes minutes."""
    root = directory / "root"
    if not engine.has_image(BASE):
        _bootstrap(root)
        engine.import_image(BASE, root)
    for image, kind in pinned(compose).items():
        # What is installed in it may have changed since it was made.
        sources = {"airflow": (*_LOCKS, _DOCKERFILE), "flower": (_FLOWER_LOCK,)}.get(kind, ())
        label = f"sources={kind}-{hashlib.sha256(b''.join(path.read_bytes() for path in sources)).hexdigest()}"
        if engine.docker("images", "--quiet", "--filter", f"label={label}", image):
            continue
        context = directory / "context"
        shutil.rmtree(context, ignore_errors=True)
        shutil.copytree(STAND_INS / kind, context)
        if kind == "airflow":
            _fetch_packages(root, context / "packages")
            _fetch_wheels(root, directory / "wheels", _LOCKS)
            shutil.copytree(directory / "wheels", context / "wheels", copy_function=os.link)
        if kind == "flower":
            _fetch_wheels(root, context / "wheels", (_FLOWER_LOCK,))
        if kind == "statsd-exporter":
            shutil.copy(PROJECT_DIR / "tests" / "support" / "statsd_exporter.py", context)
        engine.docker("build", "--network", "none", "--label", label, "--tag", image, str(context), timeout_s=1200)
        shutil.rmtree(context)


def _bootstrap(root: Path) -> None:
    """The one Debian root that all of them share."""
    release = platform.freedesktop_os_release()
    assert release["ID"] == "debian", "the stand-ins are made of Debian's packages"
    shutil.rmtree(root, ignore_errors=True)
    _call("debootstrap", "--variant=minbase", f"--include={','.join(_PACKAGES)}", release["VERSION_CODENAME"],
          str(root), _mirror(release["VERSION_CODENAME"]))  # fmt: skip
    with (root / "etc" / "passwd").open("a") as users:
        users.writelines(f"{name}:x:{number}:0::/nonexistent:/bin/sh\n" for number, name in _USERS.items())
    for path in ("usr/share/doc", "usr/share/man", "var/cache/apt/archives", "var/lib/postgresql", "var/lib/redis"):
        shutil.rmtree(root / path)
    (root / "var/cache/apt/archives/partial").mkdir(parents=True)


def _mirror(suite: str) -> str:
    """Where this machine gets its packages from."""
    said = _call("apt-get", "indextargets", "--format", "$(RELEASE) $(REPO_URI)", "Created-By: Packages")
    for line in said.splitlines():
        release, _, address = line.partition(" ")
        if release == suite:
            return address
    raise AssertionError(f"apt knows no mirror of {suite}: run apt-get update")


def _fetch_packages(root: Path, target: Path) -> None:
    """What the Dockerfile asks apt for, as a repository in a directory."""
    dockerfile = _DOCKERFILE.read_text()
    names = re.findall(r"--no-install-recommends ([a-z0-9 .+-]+)", dockerfile)[0].split()
    target.mkdir()
    (target / "partial").mkdir()
    _call("chroot", str(root), "apt-get", "update", "-qq")
    _call("chroot", str(root), "apt-get", "install", "-qq", "--download-only", "--no-install-recommends", *names)
    index = []
    for package in sorted((root / "var/cache/apt/archives").glob("*.deb")):
        shutil.copy(package, target)
        digest = hashlib.sha256(package.read_bytes()).hexdigest()
        fields = _call("dpkg-deb", "--field", str(package)).strip()
        index.append(f"{fields}\nFilename: ./{package.name}\nSize: {package.stat().st_size}\nSHA256: {digest}\n")
    (target / "Packages").write_text("\n".join(index))


def _fetch_wheels(root: Path, target: Path, locks: Iterable[Path]) -> None:
    """Every package of these locks, for the root's Python, compared with its hashes here and again in the image."""
    script = "import platform; print(platform.python_version())"
    version = _call("chroot", str(root), "python3", "-c", script).strip()
    minor = version.rpartition(".")[0]
    assert minor == "{}.{}".format(*sys.version_info), f"run this test with Python {minor}, as Debian has it here"
    target.mkdir(exist_ok=True)
    tools, wanted = root.with_name("fetching"), root.with_name("wanted.txt")
    if not tools.exists():
        _call(sys.executable, "-m", "venv", str(tools))
    environment = {"python_version": minor, "python_full_version": version}
    wanted.write_text("".join(_wanted(lock, environment) for lock in locks))
    _call(str(tools / "bin" / "pip"), "download", "-q", "--no-deps", "--require-hashes", "--only-binary", ":all:",
          "-d", str(target), "-r", str(wanted))  # fmt: skip


def _wanted(lock: Path, environment: dict[str, str]) -> str:
    """The lock's packages that such a Python installs; pip itself would ask the Python that it runs on."""
    kept = []
    for block in re.split(r"(?m)^(?=[A-Za-z0-9])", lock.read_text())[1:]:
        line, _, hashes = block.partition("\n")
        requirement = Requirement(line.rstrip(" \\"))
        if requirement.marker is None or requirement.marker.evaluate(environment):
            kept.append(f"{line.partition(';')[0].rstrip(' ' + chr(92))} \\\n{hashes}")
    return "".join(kept)


def _call(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=1800)
    said = (done.stderr or done.stdout)[-2000:]
    assert done.returncode == 0, f"{' '.join(argv[:4])} … ended with {done.returncode}:\n{said}"
    return done.stdout
