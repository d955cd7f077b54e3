"""A stage service as a process: its gRPC server, its runs, its metrics, from start to graceful stop.

    cutoff-trainer [--listen 127.0.0.1:50052] [--metrics-port 9102]

Environment: CUTOFF_LISTEN and CUTOFF_METRICS_PORT as the flags; CUTOFF_LOCKS (the host's folder of device
locks, default $CUTOFF_CACHE/locks); CUTOFF_START_METHOD=spawn where a driver does not survive a fork;
CUTOFF_LEASE_SECONDS (`stage/lease.py`); the roots (`artifacts.Roots`) and the security variables (`rpc/security.py`).
"""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc.aio

from cutoff.artifacts import Roots, artifacts_id, close_folders
from cutoff.errors import CutoffError
from cutoff.rpc import Door, serve_until_stopped
from cutoff.spec import close_servers
from cutoff.stage.device_memory import read_devices
from cutoff.stage.runs import Runs
from cutoff.stage.terminal import EXIT_FAILED, show_error
from cutoff.telemetry import before_import, configure_logs, logger, serve_metrics
from cutoff.v1 import run_pb2, run_pb2_grpc

_LOG = logger(__name__)


@dataclass(frozen=True, slots=True)
class StageService:
    """What makes one stage service different from the others."""

    name: str
    """As in compose.yaml: trainer, merger, gguf-converter, evaluator."""
    port: int
    metrics_port: int
    preload: Sequence[str]
    """Modules that all runs need and that survive a fork: torch does, trl does not (it touches CUDA)."""
    register: Callable[[grpc.aio.Server, Runs, Roots], Sequence[str]]
    """Adds the servicer; returns the full names of its services."""
    writes: Sequence[str] = ("artifacts",)
    """The roots it writes to, as `Roots` names them; the room there is exported."""


class RunServicer(run_pb2_grpc.RunServiceServicer):
    """Answers about runs; see run.proto."""

    def __init__(self, runs: Runs, roots: Roots) -> None:
        self._runs = runs
        self._roots = roots

    async def ListRuns(self, request: run_pb2.ListRunsRequest, context: Any) -> run_pb2.ListRunsResponse:
        """The runs this service knows, and what its artifacts folder calls itself."""
        return run_pb2.ListRunsResponse(runs=self._runs.all(), artifacts_id=artifacts_id(self._roots.artifacts))

    async def CancelRun(self, request: run_pb2.CancelRunRequest, context: Any) -> run_pb2.CancelRunResponse:
        """Stops a run and returns it as it is then."""
        run = await self._runs.cancel(request.key)
        return run_pb2.CancelRunResponse(run=run, events=self._runs.said(request.key, request.after_sequence))

    async def ListDevices(self, request: run_pb2.ListDevicesRequest, context: Any) -> run_pb2.ListDevicesResponse:
        """The GPUs this service sees."""
        return run_pb2.ListDevicesResponse(devices=await asyncio.to_thread(read_devices))


def main(service: StageService, arguments: Sequence[str] | None = None) -> int:
    """Runs the service until it is told to stop; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog=f"cutoff-{service.name}", description=f"The {service.name} service of cutoff."
    )
    listen = os.environ.get("CUTOFF_LISTEN", f"127.0.0.1:{service.port}")
    metrics = int(os.environ.get("CUTOFF_METRICS_PORT", service.metrics_port))
    parser.add_argument("--listen", default=listen, help="host:port or unix:/path (default: %(default)s)")
    parser.add_argument("--metrics-port", type=int, default=metrics, help="0 takes a free one (default: %(default)s)")
    options = parser.parse_args(arguments)
    configure_logs(service.name)
    before_import()  # the children inherit the environment that these set
    close_folders()
    close_servers()
    try:
        roots = Roots.from_environment()
        address = os.environ.get("CUTOFF_METRICS_ADDRESS", "127.0.0.1")
        disks = {name: getattr(roots, name) for name in service.writes}
        port = serve_metrics(service.name, options.metrics_port, address, disks)
        _LOG.info("metrics", port=port)
        asyncio.run(_serve(service, options.listen, roots))
    except CutoffError as error:
        show_error(error)
        return EXIT_FAILED
    return 0


async def _serve(service: StageService, listen: str, roots: Roots) -> None:
    locks = Path(os.environ.get("CUTOFF_LOCKS") or roots.cache / "locks")
    preload = () if os.environ.get("CUTOFF_START_METHOD") == "spawn" else service.preload
    runs = Runs(service.name, roots, locks, preload)

    def register(server: grpc.aio.Server) -> Sequence[str]:
        run_pb2_grpc.add_RunServiceServicer_to_server(RunServicer(runs, roots), server)
        return ["cutoff.v1.RunService", *service.register(server, runs, roots)]

    warming = asyncio.create_task(runs.warm_up())
    await serve_until_stopped(listen, register, runs.close, Door(f"the {service.name}"))
    await warming
