"""Ray's processes are killed under a coordinator: it starts itself anew, with the same process id and another Ray."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import grpc
import psutil
import pytest

from cutoff.client import Client
from cutoff.errors import Unavailable
from cutoff.rpc import ClientSecurity

pytestmark = pytest.mark.fault


@pytest.fixture
def coordinator():
    """A coordinator whose services are not there; its process and address."""
    with tempfile.TemporaryDirectory(prefix="cutoff-") as folder:  # a short one: sockets have short names
        address = f"unix:{folder}/c.sock"
        environment = {
            **os.environ, "CUTOFF_STATE": folder, "CUTOFF_ARTIFACTS": f"{folder}/output", "CUTOFF_LISTEN": address,
            "CUTOFF_METRICS_PORT": "0", "RAY_TMPDIR": folder, "CUTOFF_DATABASE_URL": "", "RAY_ADDRESS": "",
        }  # fmt: skip
        with Path(folder, "log").open("wb") as log:
            program = [sys.executable, "-m", "cutoff.coordinator.main"]
            process = subprocess.Popen(program, env=environment, stdout=log, stderr=log, start_new_session=True)
        try:
            yield process, address
        finally:
            sys.stdout.write(Path(folder, "log").read_text(errors="replace")[-3000:])
            for child in psutil.Process(process.pid).children(recursive=True):
                child.kill()
            process.kill()
            process.wait()


def wait_until_it_answers(address: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            with Client(address, ClientSecurity(None, None)) as client:
                list(client.jobs(1))
        except (Unavailable, grpc.RpcError):
            assert time.monotonic() < deadline, "it does not answer"
            time.sleep(0.1)
        else:
            return


def part_of_ray(coordinator: int, name: str) -> psutil.Process | None:
    found = [child for child in psutil.Process(coordinator).children(recursive=True) if child.name().startswith(name)]
    alive = [child for child in found if child.status() != psutil.STATUS_ZOMBIE]
    return alive[0] if alive else None


@pytest.mark.parametrize("part", ["raylet", "gcs_server"])
def test_the_coordinator_starts_itself_anew(coordinator, part):
    process, address = coordinator
    wait_until_it_answers(address, 120)
    killed = part_of_ray(process.pid, part)
    assert killed is not None
    began = time.monotonic()
    os.kill(killed.pid, signal.SIGKILL)
    while (now := part_of_ray(process.pid, part)) is None or now.pid == killed.pid:
        assert time.monotonic() - began < 120, "there is no new Ray"
        assert process.poll() is None, "it ended"
        time.sleep(0.1)
    wait_until_it_answers(address, 120)
    sys.stdout.write(f"after {part} was killed it answers again after {time.monotonic() - began:.1f} s\n")
