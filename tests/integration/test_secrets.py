"""A job with secrets in its environment: none of them is in a log, a record, an artifact, a metric or `ps`."""

from __future__ import annotations

import os
import secrets
import threading
import urllib.request
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from cutoff.client import Client
from cutoff.client.local import LocalSystem
from cutoff.v1 import job_pb2

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

_VARIABLES = ("HF_TOKEN", "WANDB_API_KEY", "LM_API_TOKEN")


@pytest.fixture
def canaries(monkeypatch, tmp_path):
    """Secrets as users have them: in variables, and cutoff's token in a file."""
    made = {name: f"canary{secrets.token_hex(16)}" for name in _VARIABLES}
    for name, value in made.items():
        monkeypatch.setenv(name, value)
    made["token"] = f"canary{secrets.token_hex(16)}"
    (tmp_path / "token").write_text(made["token"])
    monkeypatch.setenv("CUTOFF_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("CUTOFF_LOG_LEVEL", "DEBUG")
    return made


class Processes(threading.Thread):
    """Collects the command lines of all processes, as `ps` shows them, while a job runs."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.lines: set[str] = set()
        self.enough = threading.Event()

    def run(self) -> None:
        while not self.enough.wait(0.5):
            for process in psutil.process_iter(["cmdline"]):
                self.lines.add(" ".join(process.info["cmdline"] or ()))


def metrics_of(system: LocalSystem) -> str:
    """What every process of the system serves to Prometheus, Ray's included."""
    found = []
    for process in system._processes.values():
        for one in [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]:
            for connection in one.net_connections("tcp") if one.is_running() else ():
                if connection.status == psutil.CONN_LISTEN:
                    try:
                        url = f"http://127.0.0.1:{connection.laddr.port}/metrics"
                        found.append(urllib.request.urlopen(url, timeout=3).read().decode(errors="replace"))
                    except (OSError, ValueError):
                        continue  # it speaks no HTTP
                    except Exception:  # noqa: BLE001 - http.client's own errors: it is gRPC
                        continue
    return "\n".join(found)


def test_no_secret_is_anywhere(canaries, roots, small_world, llama, tmp_path, capfd):
    own = replace(roots, artifacts=tmp_path / "output", models=tmp_path / "models")
    own.models.mkdir()
    processes = Processes()
    processes.start()
    spec = small_world.job(roots.datasets, install={"model_name": "secret", "require": "none"},
                           train={"epochs": 1}, evaluate={"targets": ["gguf"]})  # fmt: skip
    with LocalSystem(own) as system, Client(system.address) as client:
        name = client.submit(spec).name
        events = [event.SerializeToString() for event in client.watch(name)]
        job = client.get(name)
        metrics = metrics_of(system)
        state = {path: path.read_bytes() for path in _files(Path(system._private))}
    processes.enough.set()
    processes.join()
    assert job.state == job_pb2.Job.STATE_SUCCEEDED, job.failure
    assert "cutoff_grpc_requests_total" in metrics
    said = capfd.readouterr()
    places = {
        "job record": job.SerializeToString(),
        "events": b"".join(events),
        "metrics": metrics.encode(),
        "ps": "\n".join(processes.lines).encode(),
        "this command": (said.out + said.err).encode(),
        **{str(path): content for path, content in state.items()},
        **{str(path): path.read_bytes() for path in [*_files(own.artifacts), *_files(own.models)]},
    }
    assert any(path.endswith("jobs.db") for path in places)
    assert any(path.endswith("log.txt") for path in places)
    found = {(secret, place) for place, content in places.items() for secret, value in canaries.items()
             if value.encode() in content}  # fmt: skip
    print(f"| secrets found | {len(canaries)} secrets, {len(places)} places | {len(found)} |")  # noqa: T201
    assert found == set()


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink() and os.access(path, os.R_OK)]
