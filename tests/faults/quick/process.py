"""One process of the quick system: started, killed, started again, by its module's name."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import psutil
from grpc_health.v1 import health_pb2, health_pb2_grpc

from cutoff.process import tethered
from cutoff.rpc import ClientSecurity, open_channel

_START_SECONDS = 120.0


def while_awake(seconds: float, pause: float = 0.1) -> Iterator[None]:
    """Goes round until so many seconds were spent sleeping here; those in which the whole machine stood still, or all
    of these processes did, are no fault of whoever is waited for.
    """
    for _ in range(round(seconds / pause)):
        yield
        time.sleep(pause)


@dataclass
class Process:
    """A server of the system; never outlives this test process."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    popen: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def address(self) -> str:
        """Where it listens."""
        return self.environment["CUTOFF_LISTEN"]

    @property
    def pid(self) -> int:
        assert self.popen is not None, f"{self.name} was never started"
        return self.popen.pid

    @property
    def running(self) -> bool:
        return self.popen is not None and self.popen.poll() is None

    def start(self, death: object = "", **environment: str) -> None:
        """Starts it, to die as FAULTS_DEATH says."""
        assert not self.running, f"{self.name} runs already"
        with self.log.open("ab") as log:
            self.popen = subprocess.Popen(
                tethered([sys.executable, *self.command]),
                env={**os.environ, **self.environment, **environment, "FAULTS_DEATH": str(death)},
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def wait_healthy(self) -> float:
        """Waits until it answers; returns the seconds."""
        began = time.monotonic()
        with open_channel(self.address, ClientSecurity(None, None)) as channel:
            check = health_pb2_grpc.HealthStub(channel).Check
            for _ in while_awake(_START_SECONDS, 0.05):
                try:
                    check(health_pb2.HealthCheckRequest(), timeout=5)
                except grpc.RpcError:
                    if not self.running:
                        break
                else:
                    return time.monotonic() - began
        raise AssertionError(f"the {self.name} does not run: {self.last_words()}")

    def kill(self) -> None:
        """kill -9, of this process alone."""
        if self.running:
            os.kill(self.pid, signal.SIGKILL)
        self.wait_dead(10)

    def stop(self) -> None:
        """SIGTERM, and SIGKILL where that does not help; returns when it is gone, and all it had started."""
        if not self.running:
            return
        family = self.family()
        os.kill(self.pid, signal.SIGTERM)
        try:
            self.popen.wait(20)
        except subprocess.TimeoutExpired:
            self.kill()
        for one in psutil.wait_procs(family, timeout=5)[1]:
            one.kill()

    def wait_dead(self, seconds: float) -> None:
        self.popen.wait(seconds)

    def family(self) -> list[psutil.Process]:
        """It and everything it has started, however deep."""
        try:
            own = psutil.Process(self.pid)
            return [own, *own.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def freeze(self) -> list[psutil.Process]:
        """SIGSTOP to it and everything it has started; returns who was stopped, for `thaw`."""
        stopped = self.family()
        for one in stopped:
            one.suspend()
        return stopped

    def last_words(self, lines: int = 8) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


def thaw(stopped: Sequence[psutil.Process]) -> None:
    """SIGCONT to whoever `freeze` stopped."""
    for one in reversed(stopped):
        if one.is_running():
            one.resume()
