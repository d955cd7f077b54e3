"""The short calls the coordinator makes to stage services itself; the long ones go through the scheduler."""

from __future__ import annotations

import asyncio

from cutoff.rpc import ClientSecurity, Peer
from cutoff.v1 import gguf_converter_pb2, job_pb2, run_pb2, types_pb2

_CANCEL_SECONDS = 120.0
"""A cancel waits for the run's grace period; see `stage.runs.Limits`."""


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


async def check_install(address: str, spec: job_pb2.JobSpec) -> None:
    """Asks the converter whether it has the job's llama.cpp, and could install the model under its name.

    Raises:
        CutoffError: It could not, and why.
        Unavailable: The service does not answer.
    """

    def call() -> None:
        with Peer(address, ClientSecurity.between_services()) as peer:
            request = gguf_converter_pb2.CheckInstallRequest(
                spec=spec.install, llama_cpp_path=spec.convert.llama_cpp_path
            )
            peer.unary("GgufConverterService/CheckInstall", request, gguf_converter_pb2.CheckInstallResponse)

    await asyncio.to_thread(call)
