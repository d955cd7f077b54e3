"""The merger's gRPC service: translates, and nothing else."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc.aio

from cutoff.artifacts import Roots
from cutoff.stage import server
from cutoff.stage.runs import Runs
from cutoff.v1 import merger_pb2, merger_pb2_grpc


class MergerServicer(merger_pb2_grpc.MergerServiceServicer):
    """See merger.proto."""

    def __init__(self, runs: Runs) -> None:
        self._runs = runs

    async def Merge(self, request: merger_pb2.MergeRequest, context: Any) -> AsyncIterator[merger_pb2.MergeResponse]:
        """Merges an adapter into its base."""
        async for event in self._runs.run(request, "cutoff.merger.work:merge"):
            yield merger_pb2.MergeResponse(event=event)


def register(grpc_server: grpc.aio.Server, runs: Runs, _: Roots) -> Sequence[str]:
    """Adds the servicer to a server."""
    merger_pb2_grpc.add_MergerServiceServicer_to_server(MergerServicer(runs), grpc_server)
    return ["cutoff.v1.MergerService"]


SERVICE = server.StageService("merger", 50053, 9103, ("torch", "transformers"), register)


def main() -> None:
    """The console script cutoff-merger."""
    sys.exit(server.main(SERVICE))


if __name__ == "__main__":
    main()
