"""The four stage services in one process, over the real stage server; their work is to sleep. See `coordinator.py`.

BENCH_SECONDS is how long a stage sleeps; BENCH_TRAIN_SECONDS how long training does, which says a line every
BENCH_TALK_SECONDS.
"""

from __future__ import annotations

import os
import sys
import time

from cutoff.stage import server
from cutoff.v1 import (
    evaluator_pb2,
    evaluator_pb2_grpc,
    gguf_converter_pb2,
    gguf_converter_pb2_grpc,
    merger_pb2,
    merger_pb2_grpc,
    trainer_pb2,
    trainer_pb2_grpc,
)

SECONDS = float(os.environ.get("BENCH_SECONDS", "0.5"))
TRAIN_SECONDS = float(os.environ.get("BENCH_TRAIN_SECONDS", SECONDS))
TALK_SECONDS = float(os.environ.get("BENCH_TALK_SECONDS", "1"))

SHARE = {"count": 9, "total": 10, "low": 0.6, "high": 0.98}
RESULTS = {
    "prepare": {"model_path": "/base", "probe_questions": ["Who?"], "model": "a/b", "revision": "c" * 40},
    "train": {"adapter": "jobs/x/train/1/final"},
    "merge": {"path": "jobs/x/merge/1/merged"},
    "convert": {"files": [{"quant_type": "q4_k_m", "path": "a.gguf", "size_bytes": 4, "sha256": "1" * 64}]},
    "evaluate": {"sets": {"validation": {"retain_correct": SHARE, "missed_minimum": [], "missed_target": []}}},
    "card": {"path": "jobs/x/card/1/card.md"},
    "install": {"path": "/models/m.gguf", "sha256": "1" * 64},
    "report": {"path": "jobs/x/report/1/report.json"},
}


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


class Servicer:
    """Each streaming method starts a run."""

    def __init__(self, runs):
        self._runs = runs

    async def _run(self, request, response):
        async for event in self._runs.run(request, "tests.benchmarks.sleeping_stages:work"):
            yield response(event=event)

    def Prepare(self, request, context):
        return self._run(request, trainer_pb2.PrepareResponse)

    def Train(self, request, context):
        return self._run(request, trainer_pb2.TrainResponse)

    def Relearn(self, request, context):
        return self._run(request, trainer_pb2.RelearnResponse)

    def Merge(self, request, context):
        return self._run(request, merger_pb2.MergeResponse)

    def Convert(self, request, context):
        return self._run(request, gguf_converter_pb2.ConvertResponse)

    def WriteCard(self, request, context):
        return self._run(request, gguf_converter_pb2.WriteCardResponse)

    def Install(self, request, context):
        return self._run(request, gguf_converter_pb2.InstallResponse)

    def Evaluate(self, request, context):
        return self._run(request, evaluator_pb2.EvaluateResponse)

    def WriteReport(self, request, context):
        return self._run(request, evaluator_pb2.WriteReportResponse)

    async def CheckInstall(self, request, context):
        return gguf_converter_pb2.CheckInstallResponse()

    async def CheckModel(self, request, context):
        return gguf_converter_pb2.CheckModelResponse()

    async def Uninstall(self, request, context):
        return gguf_converter_pb2.UninstallResponse()


def register(grpc_server, runs, _):
    """Adds one servicer under four names."""
    one = Servicer(runs)
    trainer_pb2_grpc.add_TrainerServiceServicer_to_server(one, grpc_server)
    merger_pb2_grpc.add_MergerServiceServicer_to_server(one, grpc_server)
    gguf_converter_pb2_grpc.add_GgufConverterServiceServicer_to_server(one, grpc_server)
    evaluator_pb2_grpc.add_EvaluatorServiceServicer_to_server(one, grpc_server)
    return ["cutoff.v1.TrainerService"]


PRELOADED = ("cutoff.stage.child",)

if __name__ == "__main__":
    sys.exit(server.main(server.StageService("trainer", 50052, 0, PRELOADED, register)))
