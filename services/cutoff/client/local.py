"""The whole system as processes on this machine: what `cutoff run` and `cutoff serve` start and stop.

Nothing outlives it: each process is tied to this one (`process.tethered`), in a session of its own so that
Ctrl-C reaches only the command, which then stops them in order.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from cutoff.artifacts import BASE_MODEL_PATHS, Roots
from cutoff.errors import ProgramFailed, Refused
from cutoff.process import stop_group, tethered
from cutoff.rpc import ClientSecurity, open_channel
from cutoff.spec import ALLOWED_SERVERS
from cutoff.telemetry.rotation import limit_bytes, rotate

_MODULES = {
    "trainer": "cutoff.trainer.service",
    "merger": "cutoff.merger.service",
    "gguf-converter": "cutoff.gguf_converter.service",
    "evaluator": "cutoff.evaluator.service",
    "coordinator": "cutoff.coordinator.main",
}
"""In the order they are started; the coordinator is stopped first."""

_START_SECONDS = 120.0
_STOP_SECONDS = 75.0
"""Longer than a run's grace period."""
_ROTATE_SECONDS = 60.0
"""Between two looks at how long the services' logs have grown."""


class LocalSystem:
    """Coordinator and stage services as child processes; use as a context manager.

    Args:
        roots: Given to all of them.
        ports: Listen on the usual loopback ports and keep state below the artifacts root; otherwise
            everything is private to this system: Unix sockets and state in a folder that goes with it.
    """

    def __init__(self, roots: Roots, ports: bool = False) -> None:
        self._roots = roots
        self._ports = ports
        self._private = Path(tempfile.mkdtemp(prefix="cutoff-"))
        self._logs = roots.artifacts / "logs"
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._over = threading.Event()
        self._log_bytes = limit_bytes()

    @property
    def address(self) -> str:
        """The coordinator's."""
        return self._address("coordinator")

    def __enter__(self) -> Self:
        try:
            self._logs.mkdir(parents=True, exist_ok=True)
            for name in _MODULES:
                self._check_free(name)
            threading.Thread(target=self._rotate_logs, daemon=True).start()
            for name in _MODULES:
                self._start(name)
            for name in _MODULES:
                self._wait_healthy(name)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Stops everything: the coordinator, which lets go of its jobs, and then the services."""
        self._over.set()
        coordinator = self._processes.pop("coordinator", None)
        _stop([coordinator] if coordinator else [])
        _stop(list(self._processes.values()))
        self._processes.clear()
        shutil.rmtree(self._private, ignore_errors=True)

    def watch(self) -> None:
        """Returns never, unless one of the processes ends.

        Raises:
            ProgramFailed: One ended.
        """
        while True:
            for name, process in self._processes.items():
                if process.poll() is not None:
                    raise self._died(name)
            time.sleep(1)

    def _rotate_logs(self) -> None:
        """On a thread of its own: the services append to files that are ours to limit."""
        while True:
            for log in self._logs.glob("*.log"):
                with contextlib.suppress(OSError):
                    rotate(log, self._log_bytes)
            if self._over.wait(_ROTATE_SECONDS):
                return

    def _start(self, name: str) -> None:
        with (self._logs / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                tethered([sys.executable, "-m", _MODULES[name]], signal.SIGTERM),
                env={**os.environ, **self._environment(name)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _environment(self, name: str) -> Mapping[str, str]:
        # A system of one's own has a state of its own: it takes up nobody else's jobs.
        own = {"CUTOFF_STATE": str(self._private), "CUTOFF_DATABASE_URL": "", "RAY_ADDRESS": ""}
        # The one who submits is the one whose programs, folders and servers these are.
        own |= {"CUTOFF_LLAMA_CPP_PATHS": "/", ALLOWED_SERVERS: "*"}
        own["CUTOFF_LEASE_SECONDS"] = os.environ.get("CUTOFF_LEASE_SECONDS") or "120"  # nobody restarts its parts
        private = {} if self._ports else {"CUTOFF_METRICS_PORT": "0", **own}
        stages = [service for service in _MODULES if service != "coordinator"]
        return {
            "CUTOFF_DATASETS": str(self._roots.datasets),
            "CUTOFF_ARTIFACTS": str(self._roots.artifacts),
            "LMSTUDIO_MODELS": str(self._roots.models),
            "CUTOFF_CACHE": str(self._roots.cache),
            "CUTOFF_LISTEN": self._address(name),
            "RAY_TMPDIR": str(self._private),
            BASE_MODEL_PATHS: os.environ.get(BASE_MODEL_PATHS, "/"),
            "PYTHONSAFEPATH": "1",  # a gguf.py in the folder that `cutoff run` was called in is no module of ours
            **{f"CUTOFF_{stage.upper().replace('-', '_')}_ADDRESS": self._address(stage) for stage in stages},
            **private,
        }

    def _address(self, name: str) -> str:
        if not self._ports:
            return f"unix:{self._private}/{name}.sock"
        port = 50051 if name == "coordinator" else 50052 + list(_MODULES).index(name)
        return f"127.0.0.1:{port}"

    def _wait_healthy(self, name: str) -> None:
        """Waits until a process answers the health protocol.

        Raises:
            ProgramFailed: It ended, or did not answer in time.
        """
        deadline = time.monotonic() + _START_SECONDS
        with open_channel(self._address(name), ClientSecurity.from_environment()) as channel:
            check = health_pb2_grpc.HealthStub(channel).Check
            while time.monotonic() < deadline and self._processes[name].poll() is None:
                try:
                    check(health_pb2.HealthCheckRequest(), timeout=5, wait_for_ready=True)
                except grpc.RpcError:
                    time.sleep(0.1)
                else:
                    return
        raise self._died(name)

    def _check_free(self, name: str) -> None:
        """Refuses a port where somebody listens: its answers would be taken for this system's.

        Raises:
            Refused: Somebody does.
        """
        if not self._ports:
            return
        host, _, port = self._address(name).rpartition(":")
        with socket.socket() as probe:
            if probe.connect_ex((host, int(port))) == 0:
                raise Refused(f"somebody listens on {host}:{port} already", "is another `cutoff serve` running?")

    def _died(self, name: str) -> ProgramFailed:
        log = self._logs / f"{name}.log"
        last = log.read_text(errors="replace").splitlines()[-5:]
        return ProgramFailed(f"the {name} does not run:\n" + "\n".join(last), f"see {log}")


def _stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """SIGTERM to all of them, and SIGKILL to what is left after the runs' grace."""
    for process in processes:
        process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + _STOP_SECONDS
    for process in processes:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, deadline - time.monotonic()))
        stop_group(process.pid, grace=0)
        process.wait()
