"""The trainer's gRPC service: translates, and nothing else."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc.aio

from cutoff.artifacts import Roots
from cutoff.stage import server
from cutoff.stage.runs import Runs
from cutoff.v1 import trainer_pb2, trainer_pb2_grpc


class TrainerServicer(trainer_pb2_grpc.TrainerServiceServicer):
    """See trainer.proto."""

    def __init__(self, runs: Runs) -> None:
        self._runs = runs

    async def Prepare(
        self, request: trainer_pb2.PrepareRequest, context: Any
    ) -> AsyncIterator[trainer_pb2.PrepareResponse]:
        """Checks data and model."""
        async for event in self._runs.run(request, "cutoff.trainer.work:prepare"):
            yield trainer_pb2.PrepareResponse(event=event)

    async def Train(self, request: trainer_pb2.TrainRequest, context: Any) -> AsyncIterator[trainer_pb2.TrainResponse]:
        """Trains an adapter."""
        async for event in self._runs.run(request, "cutoff.trainer.work:train"):
            yield trainer_pb2.TrainResponse(event=event)

    async def Relearn(
        self, request: trainer_pb2.RelearnRequest, context: Any
    ) -> AsyncIterator[trainer_pb2.RelearnResponse]:
        """Trains a merged model a little further."""
        async for event in self._runs.run(request, "cutoff.trainer.work:relearn"):
            yield trainer_pb2.RelearnResponse(event=event)


def register(grpc_server: grpc.aio.Server, runs: Runs, _: Roots) -> Sequence[str]:
    """Adds the servicer to a server."""
    trainer_pb2_grpc.add_TrainerServiceServicer_to_server(TrainerServicer(runs), grpc_server)
    return ["cutoff.v1.TrainerService"]


_PRELOADED = (
    *("torch", "torch._inductor.compile_fx", "transformers", "transformers.modeling_utils", "accelerate", "datasets"),
    *("transformers.models.auto.modeling_auto", "transformers.generation.utils", "cutoff.trainer.prepare"),
)
"""What a run imports and takes long; not peft, which imports bitsandbytes, which asks torch for CUDA."""

SERVICE = server.StageService("trainer", 50052, 9102, _PRELOADED, register, ("artifacts", "cache"))


def main() -> None:
    """The console script cutoff-trainer."""
    sys.exit(server.main(SERVICE))


if __name__ == "__main__":
    main()
