"""The GGUF converter's gRPC service: translates, and nothing else."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc.aio

from cutoff.artifacts import Roots
from cutoff.gguf_converter.install import remove_leftovers, uninstall_gguf
from cutoff.gguf_converter.install_checks import check_install, requested_spec
from cutoff.gguf_converter.install_records import RECORDS
from cutoff.gguf_converter.model_checks import check_model
from cutoff.stage import server
from cutoff.stage.runs import Runs
from cutoff.v1 import gguf_converter_pb2, gguf_converter_pb2_grpc


class GgufConverterServicer(gguf_converter_pb2_grpc.GgufConverterServiceServicer):
    """See gguf_converter.proto."""

    def __init__(self, runs: Runs, roots: Roots) -> None:
        self._runs = runs
        self._roots = roots

    async def Convert(
        self, request: gguf_converter_pb2.ConvertRequest, context: Any
    ) -> AsyncIterator[gguf_converter_pb2.ConvertResponse]:
        """Makes and checks GGUF files."""
        async for event in self._runs.run(request, "cutoff.gguf_converter.work:convert"):
            yield gguf_converter_pb2.ConvertResponse(event=event)

    async def WriteCard(
        self, request: gguf_converter_pb2.WriteCardRequest, context: Any
    ) -> AsyncIterator[gguf_converter_pb2.WriteCardResponse]:
        """Writes the model card."""
        async for event in self._runs.run(request, "cutoff.gguf_converter.work:write_card"):
            yield gguf_converter_pb2.WriteCardResponse(event=event)

    async def CheckInstall(
        self, request: gguf_converter_pb2.CheckInstallRequest, context: Any
    ) -> gguf_converter_pb2.CheckInstallResponse:
        """Says whether a model could be installed."""
        folder = await asyncio.to_thread(check_install, self._roots, request)
        return gguf_converter_pb2.CheckInstallResponse(folder=str(folder))

    async def CheckModel(
        self, request: gguf_converter_pb2.CheckModelRequest, context: Any
    ) -> gguf_converter_pb2.CheckModelResponse:
        """Says whether a model could be converted."""
        version = await asyncio.to_thread(check_model, self._roots, request)
        return gguf_converter_pb2.CheckModelResponse(llama_cpp=version)

    async def Install(
        self, request: gguf_converter_pb2.InstallRequest, context: Any
    ) -> AsyncIterator[gguf_converter_pb2.InstallResponse]:
        """Installs one GGUF."""
        spec = requested_spec(request.spec)
        async for event in self._runs.run(request, "cutoff.gguf_converter.work:install"):
            if event.HasField("failed"):
                await asyncio.to_thread(remove_leftovers, self._roots, spec)
            yield gguf_converter_pb2.InstallResponse(event=event)

    async def Uninstall(
        self, request: gguf_converter_pb2.UninstallRequest, context: Any
    ) -> gguf_converter_pb2.UninstallResponse:
        """Removes one GGUF from the models folder."""
        roots, spec = self._roots, requested_spec(request.spec)
        removed = await asyncio.to_thread(uninstall_gguf, roots.models, spec, roots.artifacts / RECORDS, request.sha256)
        return gguf_converter_pb2.UninstallResponse(path=str(removed or ""))


def register(grpc_server: grpc.aio.Server, runs: Runs, roots: Roots) -> Sequence[str]:
    """Adds the servicer to a server."""
    servicer = GgufConverterServicer(runs, roots)
    gguf_converter_pb2_grpc.add_GgufConverterServiceServicer_to_server(servicer, grpc_server)
    return ["cutoff.v1.GgufConverterService"]


SERVICE = server.StageService(
    "gguf-converter", 50054, 9104, ("torch", "transformers"), register, ("artifacts", "models")
)


def main() -> None:
    """The console script cutoff-gguf-converter."""
    sys.exit(server.main(SERVICE))


if __name__ == "__main__":
    main()
