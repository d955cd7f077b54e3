"""The four stage services in one process, over the real stage server; their work is to sleep. See `coordinator.py`.

BENCH_SECONDS is how long a stage sleeps; BENCH_TRAIN_SECONDS how long training does, which says a line every
BENCH_TALK_SECONDS.
"""

from __future__ import annotations

import os
import sys
import time

from cutoff.stage import server
from tests.fixtures.sleeping_services import RESULTS, register

SECONDS = float(os.environ.get("BENCH_SECONDS", "0.5"))
TRAIN_SECONDS = float(os.environ.get("BENCH_TRAIN_SECONDS", SECONDS))
TALK_SECONDS = float(os.environ.get("BENCH_TALK_SECONDS", "1"))


def work(request, run):
    """Sleeps, and in training says so now and then."""
    kind = run.key.stage.partition("-")[0]
    if kind != "train":
        time.sleep(SECONDS)
        return RESULTS[kind]
    ends = time.monotonic() + TRAIN_SECONDS
    with run.report.phase("training", "step", 10_000) as steps:
        number = 0
        while (left := ends - time.monotonic()) > 0:
            number += 1
            steps.at(number, loss=1 / number)
            run.report.log(f"step {number}")
            time.sleep(min(left, TALK_SECONDS))
    return RESULTS[kind]


def _register(grpc_server, runs, _):
    return register(grpc_server, runs, "tests.benchmarks.sleeping_stages:work")


PRELOADED = ("cutoff.stage.child",)

if __name__ == "__main__":
    sys.exit(server.main(server.StageService("trainer", 50052, 0, PRELOADED, _register)))
