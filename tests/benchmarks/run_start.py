"""How long a run takes to start: a child of the warm forkserver (ours) against a spawned one (baseline).

    make bench-run-start

Both runs import torch and transformers, as every stage's work does, and do nothing else. They alternate in one
process tree; the figure is the median from the call to the last event.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path

from cutoff.artifacts import Roots
from cutoff.stage.runs import Runs
from cutoff.telemetry import before_import, configure_logs
from cutoff.v1 import merger_pb2, types_pb2

ROUNDS = 5


def work(request, run):
    """The work of a run: nothing but what all stages import."""
    import torch
    import transformers

    return {"torch": torch.__version__, "transformers": transformers.__version__}


async def seconds(runs: Runs, attempt: int) -> float:
    """One run, from the call to its last event."""
    header = types_pb2.RunHeader(key={"job": "bench", "stage": "merge", "attempt": attempt})
    started = time.monotonic()
    async for event in runs.run(merger_pb2.MergeRequest(run=header), "tests.benchmarks.run_start:work"):
        last = event
    assert last.HasField("finished"), last
    return time.monotonic() - started


async def measure(folder: Path) -> dict[str, object]:
    """Both ways in turn."""
    roots = Roots(folder, folder / "ours", folder, folder)
    ours = Runs("bench", roots, folder, ("torch", "transformers"))
    baseline = Runs("bench", roots, folder)
    await ours.warm_up()
    await seconds(ours, 0)
    times: dict[str, list[float]] = {"ours": [], "baseline": []}
    for attempt in range(1, ROUNDS + 1):
        times["ours"].append(await seconds(ours, attempt))
        times["baseline"].append(await seconds(baseline, attempt))
    medians = {name: statistics.median(values) for name, values in times.items()}
    note = f"median of {ROUNDS}; spawned child as baseline; {os.cpu_count()} cores, {platform.machine()}, no GPU used"
    return {
        "benchmark": "run-start",
        "ours": round(medians["ours"], 3),
        "baseline": round(medians["baseline"], 3),
        "ratio": round(medians["baseline"] / medians["ours"], 1),
        "unit": "s",
        "note": note,
    }


def main() -> None:
    """Prints one JSON line."""
    before_import()
    os.environ.setdefault("CUTOFF_LOG_LEVEL", "WARNING")
    configure_logs("bench")
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(asyncio.run(measure(Path(folder)))))


if __name__ == "__main__":
    main()
