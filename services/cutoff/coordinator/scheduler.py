"""Where and when an attempt runs: the only room that knows Ray.

Ray holds the hardware, services do the work. An attempt is an actor (`max_restarts=0`: the retry policy is
ours) that exists as long as the attempt, holds its CPUs and GPUs, and drives the stage service through one
gRPC stream. It passes the service the device ids that Ray gave it, and the coordinator each event.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cutoff.errors import CutoffError, Refused, Unavailable
from cutoff.rpc import ClientSecurity, Peer, failure_of
from cutoff.v1 import types_pb2

os.environ["RAY_AUTH_MODE"] = "token"  # Ray reads it when it is imported, and lets anybody in without it
import ray
import ray.exceptions

_MOST_SLOTS = 8
"""Attempts without a GPU that run side by side on one host; Ray keeps an idle process of 60 MB ready for each."""


@dataclass(frozen=True, slots=True)
class Call:
    """A streaming call that starts a run, or attaches to one."""

    address: str
    """The stage service's."""
    method: str
    """As in "TrainerService/Train"."""
    request: Any
    """The proto request; its field `run` is the header."""
    response: Any
    """The proto class of the responses; each carries an `event`."""
    gpus: float


def start_ray(address: str | None, state: Path, gpus: str | None = None, host: str | None = None) -> None:
    """Connects to a Ray cluster, or starts one on this machine. Always with token authentication.

    Args:
        address: A cluster's; None starts one that ends with this process.
        state: Where the token is kept, readable by this user only, unless RAY_AUTH_TOKEN_PATH names one.
        gpus: How many GPUs this host lends to jobs; None or "" counts those that this process sees.
        host: The name under which other hosts' Ray workers reach this one; None leaves the choice of an address
            to Ray, which takes one that leads out.

    Raises:
        Refused: `gpus` is not a number, or `host` has no address.
    """
    if gpus and not gpus.isdigit():
        raise Refused(f"CUTOFF_GPUS={gpus} is not a number of GPUs", "set it to 0, 1, 2, ...")
    if not os.environ.get("RAY_AUTH_TOKEN_PATH"):
        os.environ["RAY_AUTH_TOKEN_PATH"] = str(_token_file(state / "ray-token"))
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_worker_niceness", "0")  # 15 by default: events would wait for whatever else computes
    if address:
        ray.init(address, log_to_driver=False, logging_level=logging.WARNING)
        return
    os.environ.pop("RAY_ADDRESS", None)  # Ray would connect to it
    cpus = min(max(2, os.cpu_count() or 1), _MOST_SLOTS)  # convert runs beside an evaluation, on one core too
    ray.init(
        num_cpus=cpus,
        num_gpus=int(gpus) if gpus else None,
        _node_ip_address=_address_of(host) if host else None,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.WARNING,
        object_store_memory=100 << 20,
    )


def stop_ray() -> None:
    """Leaves the cluster, and ends it when this process started it."""
    ray.shutdown()


def check_resources(gpus: float) -> None:
    """Refuses a job that no host of the cluster could ever run.

    Raises:
        Refused: There is no GPU, or there are too few.
    """
    present = ray.cluster_resources().get("GPU", 0.0)
    if gpus > present:
        raise Refused(
            f"the job asks for {gpus:g} GPU(s), and the cluster has {present:g}",
            "set resources: {gpus: 0} to train on the CPU, or add a GPU host",
        )


def count_gpus() -> tuple[float, float]:
    """How many GPUs the hosts of the cluster have, and how many of them no attempt holds."""
    try:
        return ray.cluster_resources().get("GPU", 0.0), ray.available_resources().get("GPU", 0.0)
    except ray.exceptions.RaySystemError:  # Ray is being stopped
        return 0.0, 0.0


async def drive(call: Call) -> AsyncIterator[types_pb2.Event]:
    """Waits for the hardware, makes the call, and yields its events; the hardware is freed afterwards.

    Raises:
        Unavailable: The host of the attempt was lost.
    """
    actor: Any = None
    try:
        actor = ray.remote(_Attempt).options(max_restarts=0, num_cpus=1, num_gpus=call.gpus).remote()
        stream = actor.drive.options(num_returns="streaming")
        async for reference in stream.remote(call.address, call.method, call.request, call.response):
            yield types_pb2.Event.FromString(await reference)
    except ray.exceptions.RayError as error:
        raise Unavailable(f"the attempt's host was lost: {type(error).__name__}", "it is tried again") from error
    finally:
        if actor is not None:
            ray.kill(actor)


class _Attempt:
    """Holds an attempt's hardware and drives its service."""

    def drive(self, address: str, method: str, request: Any, response: Any) -> Iterator[bytes]:
        """Makes the call; yields serialized events. A call that fails ends with an event that says so."""
        devices = ray.get_runtime_context().get_accelerator_ids().get("GPU", [])
        request.run.devices[:] = [f"cuda:{device}" for device in devices]
        try:
            with Peer(address, ClientSecurity.between_services()) as peer:
                for answer in peer.stream(method, request, response):
                    yield answer.event.SerializeToString()
        except CutoffError as error:
            event = types_pb2.Event(failed=failure_of(error))
            event.time.GetCurrentTime()
            yield event.SerializeToString()


def _address_of(host: str) -> str:
    try:
        return socket.gethostbyname(host)
    except OSError as error:
        raise Refused(
            f"CUTOFF_RAY_HOST={host} is no name of this host: {error}", "set it to one, or to none"
        ) from error


def _token_file(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(32))
    return path
