"""The composed system, as a user of this host has it: `docker compose` and the `cutoff` command."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
SERVICES = ("coordinator", "trainer", "merger", "gguf-converter", "evaluator")
PROMETHEUS = "cutoff-test/prometheus:bookworm"
UID = os.getuid() or 1000
"""Whom the containers run as: whoever runs the tests, and never root."""


def run(command: list[str], timeout: float = 600, **options: Any) -> str:
    """What a command prints; its errors are shown when it fails."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False, **options)
    said = f"{done.stdout[-3000:]}\n{done.stderr[-6000:]}"
    assert done.returncode == 0, f"{' '.join(command)}: exit {done.returncode}\n{said}"
    return done.stdout


def docker(*arguments: str, timeout: float = 600) -> str:
    """What a docker command prints."""
    return run(["docker", *arguments], timeout)


def build_inputs() -> dict[str, str]:
    """The variables of deploy/compose.closed-network.yaml, where this host builds behind a proxy with its own CA.

    Either they are set, or pip here is configured with a CA bundle and a folder of wheels.
    """
    if os.environ.get("CUTOFF_BUILD_CA"):
        return {name: os.environ[name] for name in ("CUTOFF_BUILD_CA", "CUTOFF_BUILD_WHEELS")}
    listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True)
    lines = (line.split("=", 1) for line in listed.stdout.splitlines() if "=" in line)
    # A name says where it was set, too: global.cert in a file, :env:.cert by PIP_CERT.
    settings = {name.rpartition(".")[2]: value.strip("'") for name, value in lines}
    ca, wheels = settings.get("cert", ""), settings.get("find-links", "")
    return {"CUTOFF_BUILD_CA": ca, "CUTOFF_BUILD_WHEELS": wheels} if ca and wheels else {}


def command() -> str:
    """The `cutoff` command of this host."""
    return str(Path(sys.executable).with_name("cutoff"))


def let_containers_in(folder: Path) -> None:
    """Opens one of pytest's temporary folders, which nobody else may enter, to the containers' user."""
    for one in (folder, *folder.parents[:2]):
        one.chmod(0o755)


def make_secrets(folder: Path) -> None:
    """Makes a folder of secrets that belong to the containers' user."""
    run([command(), "init", "--out", str(folder), *(["--owner", f"{UID}:{UID}"] if os.getuid() == 0 else [])])
    let_containers_in(folder.parent)


def free_port() -> int:
    """A port of loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Stack:
    """One compose project of its own: its name, ports, folders and volumes are nobody else's."""

    folder: Path
    """Holds models/ and whatever else the host gives to the containers."""
    world: Path
    """A demo world: its datasets and its base model are mounted."""
    project: str = "cutoff-test"
    port: int = field(default_factory=free_port)
    settings: Mapping[str, str] = field(default_factory=dict)
    """Further variables, as a user's .env has them."""

    @property
    def environment(self) -> Mapping[str, str]:
        """What compose and the command see; nothing of this session's own cutoff settings."""
        own = {
            "CUTOFF_DATASETS": str(self.world / "datasets"),
            "CUTOFF_BASE_MODELS": str(self.world),
            "LMSTUDIO_MODELS": str(self.models),
            "CUTOFF_PORT": str(self.port),
            "CUTOFF_ADDRESS": f"127.0.0.1:{self.port}",
            "CUTOFF_UID": str(UID),
            "CUTOFF_GID": str(UID),
            "PROMETHEUS_IMAGE": PROMETHEUS,
        }
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("CUTOFF_")}
        return {**inherited, **build_inputs(), **own, **self.settings}

    @property
    def models(self) -> Path:
        """The host's LM Studio models folder."""
        return self.folder / "models"

    def compose(self, *arguments: str, files: tuple[str, ...] = ("compose.yaml",), timeout: float = 600) -> str:
        """What a docker compose command prints."""
        options = [part for file in files for part in ("-f", file)]
        whole = ["docker", "compose", "-p", self.project, *options, *arguments]
        return run(whole, timeout, env=self.environment, cwd=ROOT)

    def make_models(self) -> None:
        """Makes the models folder, owned by the containers' user."""
        self.models.mkdir()
        if os.getuid() == 0:
            os.chown(self.models, UID, UID)

    def build(self, *services: str, files: tuple[str, ...] = ("compose.yaml",), timeout: float = 2400) -> None:
        """Builds images, with what a closed network needs where this is one."""
        closed = ("deploy/compose.closed-network.yaml",) if build_inputs() else ()
        self.compose("build", *services, files=(*files, *closed), timeout=timeout)

    def up(self) -> float:
        """Starts what a user starts, waits until it is healthy, and returns the seconds that took."""
        started = time.monotonic()
        self.compose("up", "-d", "--wait", "--no-build")
        return time.monotonic() - started

    def watch(self) -> None:
        """Starts Prometheus beside the services."""
        self.compose("--profile", "monitoring", "up", "-d", "--no-build", "--no-deps", "prometheus")

    def down(self) -> None:
        """Removes everything, volumes included."""
        self.compose("--profile", "*", "down", "-v", "--remove-orphans")

    def cutoff(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Runs the `cutoff` command of this host."""
        return subprocess.run(
            [command(), *arguments],
            env={**self.environment, **environment}, cwd=self.folder, capture_output=True, text=True, timeout=900,
            check=False,
        )  # fmt: skip

    def container(self, service: str) -> str:
        """The name of a service's container."""
        return f"{self.project}-{service}-1"

    def inspect(self, service: str) -> dict[str, Any]:
        """What `docker inspect` says of a service's container."""
        found: list[dict[str, Any]] = json.loads(docker("inspect", self.container(service)))
        return found[0]

    def execute(self, service: str, *command: str) -> subprocess.CompletedProcess[str]:
        """Runs a command in a service's container."""
        whole = ["docker", "exec", self.container(service), *command]
        return subprocess.run(whole, capture_output=True, text=True, timeout=120, check=False)
