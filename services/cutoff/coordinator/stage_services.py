"""The short calls the coordinator makes to stage services itself; the long ones go through the scheduler."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from cutoff.coordinator.gpu_memory import Reading, run_groups
from cutoff.coordinator.hosts import Addresses, ask
from cutoff.errors import Unavailable
from cutoff.rpc import ClientSecurity, Peer
from cutoff.v1 import gguf_converter_pb2, run_pb2, types_pb2

_CANCEL_SECONDS = 120.0
"""A cancel waits for the run's grace period; see `stage.runs.Limits`."""

_CONVERTER = "gguf-converter"
"""What the converter's certificate says, whatever the address."""

_READING_SECONDS = 600.0
"""An installed file may have to be read through, to be known again."""


async def cancel_run(
    address: str, service: str, key: types_pb2.RunKey, after_sequence: int = 0
) -> list[types_pb2.Event]:
    """Stops a run; returns when no process of it is left, with what it said after an event, without progress.

    Args:
        address: Where its service listens.
        service: The service's name, which its certificate carries.
        key: The run's.
        after_sequence: The last event that is known of it.

    Raises:
        NotFound: The service never had this run.
        Unavailable: The service does not answer.
    """

    def call() -> list[types_pb2.Event]:
        with Peer(address, ClientSecurity.between_services(), service) as peer:
            request = run_pb2.CancelRunRequest(key=key, after_sequence=after_sequence)
            return list(peer.unary("RunService/CancelRun", request, run_pb2.CancelRunResponse, _CANCEL_SECONDS).events)

    return await asyncio.shield(asyncio.to_thread(call))


async def list_runs(address: str, service: str) -> list[run_pb2.Run]:
    """The runs a service knows.

    Args:
        address: Where it listens.
        service: Its name, which its certificate carries.

    Raises:
        Unavailable: The service does not answer.
    """
    return list((await asyncio.to_thread(ask, address, service)).runs)


async def read_devices(services: Addresses, service: str) -> Reading:
    """The GPUs of a host, and the process groups of the runs there.

    Args:
        services: The host's.
        service: Which of them to ask for the GPUs.

    Raises:
        Unavailable: The service does not answer.
    """

    def call() -> list[run_pb2.Device]:
        with Peer(services.of(service), ClientSecurity.between_services(), service) as peer:
            answer = peer.unary("RunService/ListDevices", run_pb2.ListDevicesRequest(), run_pb2.ListDevicesResponse)
            return list(answer.devices)

    devices = await asyncio.to_thread(call)
    runs: list[run_pb2.Run] = []
    for each in ("trainer", "evaluator") if devices else ():
        with suppress(Unavailable):  # one that does not answer has none
            runs += await list_runs(services.of(each), each)
    return Reading(devices, run_groups(runs))


async def check_install(address: str, request: gguf_converter_pb2.CheckInstallRequest) -> None:
    """Asks the converter whether it has the job's llama.cpp, and could install the model under its name.

    Raises:
        CutoffError: It could not, and why.
        Unavailable: The service does not answer.
    """

    def call() -> None:
        with Peer(address, ClientSecurity.between_services(), _CONVERTER) as peer:
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
        with Peer(address, ClientSecurity.between_services(), _CONVERTER) as peer:
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
        with Peer(address, ClientSecurity.between_services(), _CONVERTER) as peer:
            method, response = "GgufConverterService/Uninstall", gguf_converter_pb2.UninstallResponse
            peer.unary(method, request, response, _READING_SECONDS)

    await asyncio.to_thread(call)
