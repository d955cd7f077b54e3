"""The composed system (ours) against the same services as processes (baseline): start, memory at rest, job time.

    make bench-containers         (the CPU images must be there: make test-containers or make images)

Both run the demo's job on the same world, in turn, in this process tree; figures are medians. One JSON line a row.
"""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import psutil
import yaml

from cutoff.artifacts import Roots
from cutoff.client import Client
from cutoff.client.local import LocalSystem
from cutoff.demo import DEFAULT_FACTS, create
from cutoff.spec import load_job_yaml
from tests.containers.stack import SERVICES, Stack, docker

ROUNDS = 3
REST_SECONDS = 30.0
"""After the start, until everything that is preloaded is there."""
_MACHINE = f"{os.cpu_count()} cores, {platform.machine()}, no GPU used"
_UNITS = {"kB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


def main() -> None:
    """Prints the rows."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as running:
        folder = Path(name)
        folder.chmod(0o755)
        stack, roots = prepare(folder)
        starts = {"ours": measured(stack.up)}
        running.callback(stack.down)
        system = LocalSystem(roots)
        starts["baseline"] = measured(lambda: running.enter_context(system))
        time.sleep(REST_SECONDS)
        row("containers-start", starts, "s", f"images present, to all healthy, one run each; {_MACHINE}")
        row("containers-idle-memory", *idle_memory(stack))
        row("containers-job-time", job_times(stack, roots, system), "s", f"median of {ROUNDS}, demo job; {_MACHINE}")


def prepare(folder: Path) -> tuple[Stack, Roots]:
    """A world, seen by the containers where it is mounted and by the processes where it lies."""
    world, cache = folder / "world", Roots.from_environment().cache
    create(world, facts=DEFAULT_FACTS, seed=1, cache=cache, on_progress=lambda *_: None)
    stack = Stack(folder, world, project="cutoff-bench")
    stack.make_models()
    job = yaml.safe_load((world / "job.yaml").read_text())
    (folder / "containers.yaml").write_text(yaml.safe_dump({**job, "base_model": "/base-models/base"}))
    stack.down()
    return stack, Roots(world / "datasets", folder / "output", folder / "process-models", cache)


def measured(work: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    started = time.monotonic()
    work()
    return time.monotonic() - started


def idle_memory(stack: Stack) -> tuple[dict[str, float], str, str]:
    """Memory at rest of both, in MB; the composed system's by service in the note."""
    by_service = {service: container_memory(stack.container(service)) / 1e6 for service in SERVICES}
    # PSS shares out among processes the pages they have in common, so that a sum counts none twice.
    own = psutil.Process()
    processes = sum(process.memory_full_info().pss for process in own.children(recursive=True)) / 1e6
    note = ", ".join(f"{service} {size:.0f}" for service, size in by_service.items())
    return {"ours": sum(by_service.values()), "baseline": processes}, "MB", f"{note}; {_MACHINE}"


def container_memory(container: str) -> float:
    """Bytes that Docker counts for a container."""
    shown = docker("stats", "--no-stream", "--format", "{{.MemUsage}}", container)
    number, unit = re.match(r"([\d.]+)(\w+)", shown).groups()  # type: ignore[union-attr]
    return float(number) * _UNITS[unit]


def job_times(stack: Stack, roots: Roots, system: LocalSystem) -> dict[str, float]:
    """The demo's job in both, in turn, from submission to its end."""
    times: dict[str, list[float]] = {"ours": [], "baseline": []}
    for _ in range(ROUNDS):
        times["ours"].append(measured(lambda: in_containers(stack)))
        times["baseline"].append(measured(lambda: in_processes(roots, system)))
    return {name: statistics.median(values) for name, values in times.items()}


def in_containers(stack: Stack) -> None:
    """One job, submitted from this host."""
    done = stack.cutoff("submit", str(stack.folder / "containers.yaml"), "--watch")
    assert done.returncode == 0, done.stderr[-2000:]


def in_processes(roots: Roots, system: LocalSystem) -> None:
    """One job of the processes, by the same client."""
    with Client(system.address) as client:
        job = client.submit(load_job_yaml(roots.datasets.parent / "job.yaml"))
        for _ in client.watch(job.name):
            pass
        assert client.get(job.name).result.installed_path, client.get(job.name).failure


def row(name: str, values: dict[str, float], unit: str, note: str) -> None:
    """Prints one row."""
    ours, baseline = values["ours"], values["baseline"]
    ratio = round(ours / baseline, 3)
    found = {"benchmark": name, "ours": round(ours, 2), "baseline": round(baseline, 2), "ratio": ratio}
    print(json.dumps({**found, "unit": unit, "note": note}), flush=True)


if __name__ == "__main__":
    main()
