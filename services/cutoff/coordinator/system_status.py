"""How the system is, as the coordinator sees it: its stage services, its queue, its disks, its clock."""

from __future__ import annotations

import asyncio
import importlib.metadata
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from cutoff.coordinator.draining import Draining
from cutoff.coordinator.hosts import Addresses
from cutoff.coordinator.store import Store
from cutoff.errors import CutoffError
from cutoff.rpc import ClientSecurity, open_channel
from cutoff.v1 import job_pb2, operator_pb2

_SECONDS = 5.0
"""How long a service may take to say how it is."""
_State = operator_pb2.ServiceStatus


class SystemStatus:
    """Asks when it is asked.

    Args:
        store: The jobs.
        draining: Whether the coordinator drains.
        addresses: Of the stage services.
        roots: From a root's name to its folder.
        count_gpus: How many there are, and how many are free.
    """

    def __init__(
        self,
        store: Store,
        draining: Draining,
        addresses: Addresses,
        roots: Mapping[str, Path],
        count_gpus: Callable[[], tuple[float, float]],
    ) -> None:
        self._store = store
        self._draining = draining
        self._addresses = addresses
        self._roots = roots
        self._count_gpus = count_gpus

    async def now(self) -> operator_pb2.GetStatusResponse:
        """The status."""
        asked = [asyncio.to_thread(_health, name, address) for name, address in _named(self._addresses)]
        gpus, free = self._count_gpus()
        status = operator_pb2.GetStatusResponse(
            version=importlib.metadata.version("cutoff"),
            draining=self._draining.on,
            unfinished_jobs=len(self._store.unfinished()),
            waiting_attempts=self._draining.attempts(job_pb2.Attempt.STATE_WAITING),
            running_attempts=self._draining.attempts(job_pb2.Attempt.STATE_RUNNING),
            services=await asyncio.gather(*asked),
            disks=[_disk(name, path) for name, path in self._roots.items() if path.is_dir()],
            gpus=gpus,
            free_gpus=free,
        )
        status.time.GetCurrentTime()  # last: whoever asks compares it with the time at which the answer comes
        return status


def _named(addresses: Addresses) -> Iterator[tuple[str, str]]:
    for name in ("trainer", "merger", "gguf_converter", "evaluator"):
        yield name.replace("_", "-"), getattr(addresses, name)


def _health(name: str, address: str) -> operator_pb2.ServiceStatus:
    status = operator_pb2.ServiceStatus(name=name, address=address)
    try:
        with open_channel(address, ClientSecurity.between_services(), name) as channel:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=_SECONDS)
    except (grpc.RpcError, CutoffError) as error:
        status.state = _State.STATE_UNREACHABLE
        status.message = str(error.details() if isinstance(error, grpc.Call) else error)
        return status
    serving = answer.status == health_pb2.HealthCheckResponse.SERVING
    status.state = _State.STATE_SERVING if serving else _State.STATE_NOT_SERVING
    return status


def _disk(root: str, path: Path) -> operator_pb2.Disk:
    usage = shutil.disk_usage(path)
    return operator_pb2.Disk(root=root, path=str(path), free_bytes=usage.free, size_bytes=usage.total)
