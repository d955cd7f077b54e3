"""The short calls the coordinator makes to stage services itself; the long ones go through the scheduler."""

from __future__ import annotations

import asyncio

from cutoff.rpc import ClientSecurity, Peer
from cutoff.v1 import gguf_converter_pb2, run_pb2, types_pb2

_CANCEL_SECONDS = 120.0
"""A cancel waits for the run's grace period; see `stage.runs.Limits`."""

_READING_SECONDS = 600.0
"""An installed file may have to be read through, to be known again."""


async def cancel_run(address: str, key: types_pb2.RunKey) -> None:
    """Stops a run; returns when no process of it is left.

    Raises:
        NotFound: The service never had this run.
        Unavailable: The service does not answer.
    """

    def call() -> None:
        with Peer(address, ClientSecurity.between_services()) as peer:
            request = run_pb2.CancelRunRequest(key=key)
            peer.unary("RunService/CancelRun", request, run_pb2.CancelRunResponse, _CANCEL_SECONDS)

    await asyncio.shield(asyncio.to_thread(call))


async def list_runs(address: str) -> list[run_pb2.Run]:
    """The runs a service knows.

    Raises:
        Unavailable: The service does not answer.
    """

    def call() -> list[run_pb2.Run]:
        with Peer(address, ClientSecurity.between_services()) as peer:
            return list(peer.unary("RunService/ListRuns", run_pb2.ListRunsRequest(), run_pb2.ListRunsResponse).runs)

    return await asyncio.to_thread(call)


async def check_install(address: str, request: gguf_converter_pb2.CheckInstallRequest) -> None:
    """Asks the converter whether it has the job's llama.cpp, and could install the model under its name.

    Raises:
        CutoffError: It could not, and why.
        Unavailable: The service does not answer.
    """

    def call() -> None:
        with Peer(address, ClientSecurity.between_services()) as peer:
            method, response = "GgufConverterService/CheckInstall", gguf_converter_pb2.CheckInstallResponse
            peer.unary(method, request, response, _READING_SECONDS)

    await asyncio.to_thread(call)


async def check_model(address: str, request: gguf_converter_pb2.CheckModelRequest) -> None:
    """Asks the converter whether its llama.cpp knows the model, and whether what the job makes finds room.

    Raises:
        CutoffError: It does not, and why.
        Unavailable: The service does not answer.
    """

    def call() -> None:
        with Peer(address, ClientSecurity.between_services()) as peer:
            method, response = "GgufConverterService/CheckModel", gguf_converter_pb2.CheckModelResponse
            peer.unary(method, request, response, _READING_SECONDS)

    await asyncio.to_thread(call)


async def uninstall(address: str, request: gguf_converter_pb2.UninstallRequest) -> None:
    """Has the converter remove an installed model; nothing happens when it is not there.

    Raises:
        CutoffError: It could not, and why.
        Unavailable: The service does not answer.
    """

    def call() -> None:
        with Peer(address, ClientSecurity.between_services()) as peer:
            method, response = "GgufConverterService/Uninstall", gguf_converter_pb2.UninstallResponse
            peer.unary(method, request, response, _READING_SECONDS)

    await asyncio.to_thread(call)
