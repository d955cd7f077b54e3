"""The quick system: folders, addresses, five processes, and a client."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from cutoff.artifacts import Roots
from cutoff.client import Client
from cutoff.coordinator.job import TERMINAL
from cutoff.coordinator.store import Store
from cutoff.errors import Unavailable
from cutoff.rpc import ClientSecurity
from cutoff.spec import JobSpec
from cutoff.v1 import job_pb2
from tests.faults.quick.ledger import Ledger
from tests.faults.quick.process import Process, while_awake
from tests.faults.quick.stage import SERVICES

ROOT = Path(__file__).parents[3]

QUICK_RETRIES = " ".join(["0.3"] * 100)
"""A sweep kills one stage more often than a user's system retries it."""


class System:
    """A coordinator and four stage services, each of which may be killed and started again.

    Args:
        ray_stays: Whether its Ray outlives its coordinators, a second faster to come back to; otherwise one starts and
            ends with each of them, as in a user's system.
        lease: Seconds that a run goes on with nobody watching, and all that follows from it (`stage.lease`).
        folders: In place of the system's own: state, artifacts, models.
        environment: Further variables of all processes.
    """

    def __init__(
        self,
        ray_stays: bool = False,
        lease: float = 600.0,
        folders: Mapping[str, Path] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="faults-"))  # a socket's path must be short
        own = {name: self.folder / name for name in ("datasets", "artifacts", "models", "state", "ledger", "base")}
        own |= folders or {}
        for path in own.values():
            path.mkdir(parents=True, exist_ok=True)
        self.roots = Roots(own["datasets"], own["artifacts"], own["models"], Roots.from_environment().cache)
        self.state = own["state"]
        self.ledger = Ledger(own["ledger"])
        (self.roots.datasets / "dev.jsonl").write_text("{}\n")
        (own["base"] / "config.json").write_text("{}")
        self._environment = {
            "PYTHONPATH": f"{ROOT / 'services'}:{ROOT}",
            "CUTOFF_DATASETS": str(self.roots.datasets),
            "CUTOFF_ARTIFACTS": str(self.roots.artifacts),
            "CUTOFF_BASE_MODEL_PATHS": "/",
            "LMSTUDIO_MODELS": str(self.roots.models),
            "CUTOFF_CACHE": str(self.roots.cache),
            "CUTOFF_STATE": str(self.state),
            "CUTOFF_DATABASE_URL": "",
            "CUTOFF_LOCKS": str(self.folder / "locks"),
            "CUTOFF_METRICS_PORT": "0",
            "CUTOFF_GPUS": "1",
            "CUTOFF_RETRY_SECONDS": QUICK_RETRIES,
            "RAY_TMPDIR": str(self.folder),
            "RAY_ADDRESS": "",
            "FAULTS_LEDGER": str(self.ledger.folder),
            "CUTOFF_LEASE_SECONDS": str(lease),
            **{f"CUTOFF_{name.upper().replace('-', '_')}_ADDRESS": self.address(name) for name in SERVICES},
            **(environment or {}),
        }
        self._ray = contextlib.ExitStack()
        if ray_stays:
            # Attempts find the services by the environment of their host's Ray: no two systems can share one.
            self._environment |= self._ray.enter_context(ray_cluster(self._environment))
        self.coordinator = self._process("coordinator", ["-m", "tests.faults.quick.coordinator"])
        self._replaced: list[Process] = []
        self.services = {name: self._process(name, ["-m", "tests.faults.quick.stage", name]) for name in SERVICES}

    def _process(self, name: str, command: list[str]) -> Process:
        environment = {**self._environment, "CUTOFF_LISTEN": self.address(name)}
        return Process(name, command, environment, self.folder / f"{name}.log")

    def address(self, name: str) -> str:
        """Where a process of this name listens."""
        return f"unix:{self.folder}/{name}.sock"

    def another(self, name: str) -> Process:
        """A further service of this name, to be started where the first one listened."""
        (self.folder / f"{name}.sock").rename(self.folder / f"{name}.sock-{uuid.uuid4().hex[:4]}")
        before = self.services[name]
        self._replaced.append(before)
        self.services[name] = replace(before, log=before.log.with_suffix(".another.log"))
        return self.services[name]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        for process in (self.coordinator, *self.services.values(), *self._replaced):
            if error is not None:
                print(f"== {process.name}\n{process.last_words(12) if process.log.exists() else ''}")  # noqa: T201
            process.stop()
        self._ray.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def start_services(self) -> None:
        """Starts all four, and waits until they answer."""
        for process in self.services.values():
            process.start()
        for process in self.services.values():
            process.wait_healthy()

    def start(self) -> None:
        """Starts everything, and waits until it answers."""
        self.coordinator.start()
        self.start_services()
        self.coordinator.wait_healthy()

    def client(self) -> Client:
        """A client of the coordinator."""
        return Client(self.coordinator.address, ClientSecurity(None, None))

    def spec(self, name: str = "quick", gpus: float = 1, **train: float) -> JobSpec:
        """A job; its training takes `epochs` steps with a checkpoint every `save_steps`."""
        return JobSpec.model_validate(
            {
                "name": name,
                "base_model": str(self.folder / "base"),
                "dataset": {"dev": "dev.jsonl"},
                "train": {"epochs": 8, "save_steps": 4, **train},
                "evaluate": {"targets": ["gguf"]},
                "install": {"model_name": name, "require": "none"},
                "resources": {"gpus": gpus},
            }
        )

    @contextlib.contextmanager
    def store(self) -> Iterator[Store]:
        """The store, for a look while no coordinator runs."""
        store = Store(f"sqlite:///{self.state / 'jobs.db'}")
        try:
            yield store
        finally:
            store.close()

    def stored(self, name: str) -> job_pb2.Job:
        """A job as the store has it, whether a coordinator runs or not."""
        with self.store() as store:
            return store.get(name)

    def submit(self, spec: JobSpec, request_id: str | None = None, seconds: float = 120) -> str:
        """Submits until it is acknowledged, with one request_id; returns the job's name."""
        request_id = request_id or uuid.uuid4().hex
        for _ in while_awake(seconds):
            with contextlib.suppress(Unavailable), self.client() as client:
                return client.submit(spec, request_id).name
        raise AssertionError("never acknowledged")

    def wait_terminal(self, name: str, seconds: float = 180) -> job_pb2.Job:
        """The job when it has ended; one that has not by then is stuck."""
        with self.client() as client:
            for _ in while_awake(seconds):
                with contextlib.suppress(Unavailable):
                    if (job := client.get(name)).state in TERMINAL:
                        return job
        raise AssertionError(f"stuck: {job}")

    def wait_for(self, what: str, seconds: float = 120, **like: Any) -> dict[str, Any]:
        """The newest line of the ledger that tells of this."""
        for _ in while_awake(seconds, 0.02):
            if lines := self.ledger.lines(what, **like):
                return lines[-1]
        raise AssertionError(f"never {what} {like}: {self.ledger.lines('begun')}")

    def store_is_intact(self) -> bool:
        """What SQLite says of its file."""
        with contextlib.closing(sqlite3.connect(self.state / "jobs.db")) as database:
            return database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]

    def installed(self) -> list[Path]:
        """Every file in the models folder."""
        return sorted(path for path in self.roots.models.rglob("*") if path.is_file())


@contextlib.contextmanager
def ray_cluster(environment: Mapping[str, str]) -> Iterator[Mapping[str, str]]:
    """A Ray head with two GPUs that nobody looks for, which coordinators come to and leave; yields what lets them in.

    It does not free what a killed coordinator held by dying with it.
    """
    folder = Path(tempfile.mkdtemp(prefix="ray-"))
    (folder / "token").write_text(uuid.uuid4().hex * 2)
    (folder / "token").chmod(0o600)
    own = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(folder / "token"), "RAY_USAGE_STATS_ENABLED": "0"}
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    head = subprocess.Popen(
        [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", f"--port={port}",
         "--node-ip-address=127.0.0.1", "--num-gpus=2", "--num-cpus=8", "--include-dashboard=false",
         f"--temp-dir={folder}", f"--object-store-memory={100 << 20}"],
        env={**os.environ, **environment, "RAY_worker_niceness": "0", **own},
        stdout=(folder / "head.log").open("w"), stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while "Ray runtime started" not in (folder / "head.log").read_text():
            assert head.poll() is None and time.monotonic() < deadline, (folder / "head.log").read_text()  # noqa: PT018
            time.sleep(0.2)
        yield {**own, "RAY_ADDRESS": f"127.0.0.1:{port}"}
    finally:
        head.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            head.wait(20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(head.pid, 9)
        shutil.rmtree(folder, ignore_errors=True)
