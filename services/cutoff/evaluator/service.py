"""The evaluator's gRPC service: translates, and nothing else."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc.aio

from cutoff.artifacts import Roots
from cutoff.stage import server
from cutoff.stage.runs import Runs
from cutoff.v1 import evaluator_pb2, evaluator_pb2_grpc


class EvaluatorServicer(evaluator_pb2_grpc.EvaluatorServiceServicer):
    """See evaluator.proto."""

    def __init__(self, runs: Runs) -> None:
        self._runs = runs

    async def Evaluate(
        self, request: evaluator_pb2.EvaluateRequest, context: Any
    ) -> AsyncIterator[evaluator_pb2.EvaluateResponse]:
        """Evaluates one target."""
        async for event in self._runs.run(request, "cutoff.evaluator.work:evaluate"):
            yield evaluator_pb2.EvaluateResponse(event=event)

    async def WriteReport(
        self, request: evaluator_pb2.WriteReportRequest, context: Any
    ) -> AsyncIterator[evaluator_pb2.WriteReportResponse]:
        """Puts a job's evaluations side by side."""
        async for event in self._runs.run(request, "cutoff.evaluator.job_report.work:write"):
            yield evaluator_pb2.WriteReportResponse(event=event)


def register(grpc_server: grpc.aio.Server, runs: Runs, _: Roots) -> Sequence[str]:
    """Adds the servicer to a server."""
    evaluator_pb2_grpc.add_EvaluatorServiceServicer_to_server(EvaluatorServicer(runs), grpc_server)
    return ["cutoff.v1.EvaluatorService"]


SERVICE = server.StageService("evaluator", 50055, 9105, ("torch", "transformers"), register)


def main() -> None:
    """The console script cutoff-evaluator."""
    sys.exit(server.main(SERVICE))


if __name__ == "__main__":
    main()
