"""`cutoff doctor`: looks at everything cutoff needs, without changing anything. Each check is a plain function."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from cutoff.artifacts import GIB, Roots
from cutoff.client.api import DEFAULT_ADDRESS, Client
from cutoff.client.credentials import find_security
from cutoff.client.doctor import disks, doors, gpus, llama, lmstudio, packages, system
from cutoff.client.doctor.findings import Finding
from cutoff.errors import CutoffError
from cutoff.rpc import open_channel
from cutoff.v1 import operator_pb2

PORTS = {"coordinator": 50051, "trainer": 50052, "merger": 50053, "gguf-converter": 50054, "evaluator": 50055}


def examine(roots: Roots) -> list[Finding]:
    """All findings, in the order of what builds on what."""
    return list(_findings(roots))


def _findings(roots: Roots) -> Iterator[Finding]:
    yield packages.python()
    yield packages.packages()
    torch = packages.torch_build()
    yield packages.torch(torch)
    yield from gpus.nvidia()
    yield from gpus.amd()
    yield from llama.build(roots.cache, stages_here=torch is not None)
    yield disks.datasets(roots.datasets)
    yield disks.written("artifacts", "CUTOFF_ARTIFACTS", roots.artifacts)
    yield disks.written("cache", "CUTOFF_CACHE", roots.cache, little=5 * GIB)
    yield lmstudio.models_folder(roots.models)
    yield from lmstudio.same_disk(roots.models, roots.artifacts)
    yield from lmstudio.layout(roots.models)
    yield from doors.doors()
    yield system.clock(time.time())
    address = os.environ.get("CUTOFF_ADDRESS") or DEFAULT_ADDRESS
    for name, number in PORTS.items():
        yield system.port(name, number, _healthy)
    yield from system.system(_status, address, named="CUTOFF_ADDRESS" in os.environ)


def _status() -> operator_pb2.GetStatusResponse:
    with Client() as client:
        return client.status()


def _healthy(address: str) -> bool:
    """Whether somebody at an address speaks the health protocol; what is shown there is what a user shows."""
    try:
        with open_channel(address, find_security(address)) as channel:
            health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
    except (grpc.RpcError, CutoffError):
        return False
    return True
