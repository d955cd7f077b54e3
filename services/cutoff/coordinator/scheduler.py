"""Where and when an attempt runs: the only room that knows Ray.

Ray holds the hardware, services do the work. An attempt is a task of Ray's (`max_retries=0`: the retry policy is
ours) that runs as long as the attempt, holds its CPUs and GPUs, and drives the stage service through one gRPC
stream. It passes the service the device ids that Ray gave it, and the coordinator each event. It takes one step at a
time: Ray lets it go on when what it said last was taken (docs/adr/0021).

Where Ray places it, it asks that host's services: their addresses are in the environment of the host's Ray worker.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from cutoff.coordinator.hosts import HOST_LABEL, Addresses, Hosts, Place, check_shared, cpu_slots, host_name
from cutoff.errors import CutoffError, Refused, Unavailable
from cutoff.rpc import ClientSecurity, Peer, failure_of
from cutoff.v1 import types_pb2

os.environ["RAY_AUTH_MODE"] = "token"  # Ray reads it when it is imported, and lets anybody in without it
import ray
import ray.exceptions
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

_RETURN_SECONDS = 120.0
"""How long a host is waited for whose services answer, but whose Ray worker is gone: longer than it takes a worker
to notice that the coordinator was restarted, to end, and to be started again."""

WAIT_MINUTES = 120.0
"""The default of resources.wait_minutes, for jobs of earlier versions."""


_ENDING_SECONDS = 5.0
"""How long an attempt whose last word was heard may take to come to its end."""


def _nowhere_to_tell(_place: Place) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Call:
    """A streaming call that starts a run, or attaches to one."""

    service: str
    """Which: trainer, merger, gguf-converter or evaluator."""
    method: str
    """As in "TrainerService/Train"."""
    request: Any
    """The proto request; its field `run` is the header."""
    response: Any
    """The proto class of the responses; each carries an `event`."""
    gpus: float
    """What is held: a whole number, or a share of one."""
    host: str = ""
    """Where it must be placed; "" leaves that to Ray."""
    artifacts_id: str = ""
    """See `hosts.check_shared`."""
    placed: Callable[[Place], None] = _nowhere_to_tell
    """Told where the call is made, before it is made."""
    memory_bytes: int = 0
    """Of each GPU: what the job's plan needs; 0 where that is not known."""
    priority: int = 0
    """Who is higher gets a GPU first."""
    since: float = 0.0
    """When the job came, in Unix time: within a priority the first to come is served first."""
    wait_minutes: float = WAIT_MINUTES
    """How long it waits for GPU memory that a program outside cutoff holds."""


class NotPlaced(CutoffError):
    """No host had the hardware free in time."""

    reason = "UNAVAILABLE"
    retryable = True


@dataclass(frozen=True, slots=True)
class Held:
    """Hardware that Ray holds for one attempt."""

    node: str
    """The host, as Ray names it."""
    services: Addresses
    """The host's stage services."""
    devices: tuple[str, ...]
    """As torch names them when it sees all of the host's: "cuda:0"."""
    drive: Callable[[], AsyncGenerator[types_pb2.Event, None]]
    """Makes the call there, and yields its events."""


def start_ray(address: str | None, state: Path, gpus: str | None = None, host: str | None = None) -> None:
    """Connects to a Ray cluster, or starts one on this machine. Always with token authentication.

    Args:
        address: A cluster's; None starts one that ends with this process.
        state: Where the token is kept, readable by this user only, unless RAY_AUTH_TOKEN_PATH names one.
        gpus: How many GPUs this host lends to jobs; None or "" counts those that this process sees.
        host: The name under which other hosts' Ray workers reach this one; None leaves the choice of an address
            to Ray, which takes one that leads out.

    Raises:
        Refused: `gpus` is not a number, `host` has no address, or CUTOFF_HOST or CUTOFF_CPUS is wrong.
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
    ray.init(
        "local",  # without it, Ray connects to whatever cluster it finds on this machine
        num_cpus=cpu_slots(),
        labels={HOST_LABEL: host_name()},
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


def dead_processes() -> list[str]:
    """Which of Ray's processes that this one started have ended by themselves; without one of them nothing goes on."""
    node = ray._private.worker._global_node
    return [name for name, _ in node.dead_processes()] if node is not None else []


def kill_processes() -> None:
    """Ends what is left of a Ray that this process started. Leaving it in order takes a minute when a part is dead."""
    node = ray._private.worker._global_node
    if node is not None:
        node.kill_all_processes(check_alive=False)


def check_resources(gpus: float) -> None:
    """Refuses a job that no host of the cluster could ever run.

    Raises:
        Refused: There is no GPU, or there are too few.
    """
    if not gpus:
        return
    present = max((node["Resources"].get("GPU", 0.0) for node in ray.nodes() if node["Alive"]), default=0.0)
    if gpus > present:
        raise Refused(
            f"the job asks for {gpus:g} GPU(s), and no host of the cluster has more than {present:g}",
            "set resources: {gpus: 0} to train on the CPU, or add a GPU host",
        )


def count_gpus() -> tuple[float, float]:
    """How many GPUs the hosts of the cluster have, and how many of them no attempt holds."""
    try:
        return ray.cluster_resources().get("GPU", 0.0), ray.available_resources().get("GPU", 0.0)
    except ray.exceptions.RaySystemError:  # Ray is being stopped
        return 0.0, 0.0


@asynccontextmanager
async def holding(call: Call, patience: float | None = None) -> AsyncIterator[Held]:
    """Holds a call's hardware while the block runs, waiting for it in Ray's queue.

    What holds a GPU takes none of the slots, so that stages without a GPU never wait for those with one.

    Args:
        call: What is to be driven there.
        patience: Seconds to wait; None waits for ever.

    Raises:
        NotPlaced: No host had it free in time.
        Unavailable: The host was lost, the one it must go to is not in the cluster, or two have the same name.
    """
    attempt: _Attempt | None = None
    try:
        options: dict[str, Any] = {"num_cpus": 0 if call.gpus else 1, "num_gpus": call.gpus}
        options["scheduling_strategy"] = "SPREAD"  # by default Ray fills this host by half before it takes another
        if call.host:
            options["scheduling_strategy"] = await asyncio.to_thread(_only_on, call.host)
        attempt = _Attempt(call, options)
        node, services, devices = await asyncio.wait_for(attempt.next(), patience)
        place = Place(await asyncio.to_thread(_host_of, node), services.of(call.service))
        yield Held(node, services, devices, partial(_driven, attempt, place, call))
    except TimeoutError as error:
        raise NotPlaced(f"no host has {call.gpus:g} GPU(s) free") from error
    except ray.exceptions.RayError as error:
        raise _lost(error) from error
    finally:
        if attempt is not None:
            await attempt.end()


async def _driven(attempt: _Attempt, place: Place, call: Call) -> AsyncGenerator[types_pb2.Event, None]:
    """Has an attempt make its call; the first event is a heartbeat: the call is being made."""
    call.placed(place)
    try:
        while True:
            event = types_pb2.Event.FromString(await attempt.next())
            attempt.ending = event.WhichOneof("kind") in ("finished", "failed")
            yield event
    except StopAsyncIteration:
        return
    except ray.exceptions.RayError as error:
        raise _lost(error) from error


def call_failed(event: types_pb2.Event) -> bool:
    """Whether an event says that the call failed, not the run: it has no number in a run."""
    return event.failed.reason == Unavailable.reason and not event.sequence


def _lost(error: Exception) -> Unavailable:
    return Unavailable(f"the attempt's host was lost: {type(error).__name__}", "it is tried again")


class _Attempt:
    """A task of Ray's that holds hardware, and makes a call when it is asked for more than where it is.

    Args:
        call: What it makes.
        options: The hardware, as Ray names it.
    """

    def __init__(self, call: Call, options: Mapping[str, Any]) -> None:
        call.request.run.device_share = call.gpus if 0 < call.gpus < 1 else 0
        made = (call.service, call.artifacts_id, call.method, call.request, call.response)
        self._said = _TASK.options(**options).remote(*made)
        self.ending = False
        """Whether its last word was heard."""

    async def next(self) -> Any:
        """What it says next.

        Raises:
            StopAsyncIteration: Nothing more.
            RayError: Its process or its host was lost.
        """
        return await (await anext(self._said))

    async def end(self) -> None:
        """Frees the hardware: at once, unless the task is at its end already; its process is kept then."""
        try:
            async with asyncio.timeout(_ENDING_SECONDS if self.ending else 0):
                await self.next()
        except StopAsyncIteration:
            return
        except (TimeoutError, ray.exceptions.RayError):
            pass
        ray.cancel(self._said, force=True)


def _attempt(
    service: str, artifacts_id: str, method: str, request: Any, response: Any
) -> Iterator[tuple[str, Addresses, tuple[str, ...]] | bytes]:
    """As a task: says where it is and waits; then makes the call, and says each event, serialized.

    A call that fails ends with an event that says so.
    """
    context, services, devices = ray.get_runtime_context(), Addresses.from_environment(), _devices()
    yield context.get_node_id(), services, devices
    request.run.devices[:] = devices
    yield types_pb2.Event(heartbeat=types_pb2.Heartbeat()).SerializeToString()
    try:
        check_shared(services.of(service), service, artifacts_id)
        with Peer(services.of(service), ClientSecurity.between_services(), service) as peer:
            for answer in peer.stream(method, request, response):
                yield answer.event.SerializeToString()
    except CutoffError as error:
        event = types_pb2.Event(failed=failure_of(error))
        event.time.GetCurrentTime()
        yield event.SerializeToString()


_remote: Any = ray.remote  # its types know fewer options than it takes
_TASK = _remote(
    max_retries=0,
    max_calls=0,  # a process that held a GPU has used none of it: it takes further attempts
    num_returns="streaming",
    _generator_backpressure_num_objects=1,
)(_attempt)


def _devices() -> tuple[str, ...]:
    """Those of the task that asks."""
    return tuple(f"cuda:{device}" for device in ray.get_runtime_context().get_accelerator_ids().get("GPU", []))


def hosts(models: str) -> Hosts:
    """The hosts of the cluster, as Ray knows them.

    Args:
        models: The one that has the models folder, by name, or "any"; "" means the coordinator's.
    """
    own = _host_of(ray.get_runtime_context().get_node_id())

    async def present(host: str) -> bool:
        return bool(await asyncio.to_thread(_nodes_of, host))

    async def returns(host: str) -> bool:
        for _ in range(int(_RETURN_SECONDS)):
            if await present(host):
                return True
            await asyncio.sleep(1)
        return await present(host)

    return Hosts(own, models or own, present, returns)


def _nodes() -> Mapping[str, str]:
    """The living Ray nodes: by id, the host's name; a node that nobody named is called by its id."""
    return {
        node["NodeID"]: (node.get("Labels") or {}).get(HOST_LABEL) or node["NodeID"]
        for node in ray.nodes()
        if node["Alive"]
    }


def _nodes_of(host: str) -> list[str]:
    return [node for node, name in _nodes().items() if name == host]


def _host_of(node: str) -> str:
    nodes = _nodes()
    host = nodes.get(node)
    if host is None:
        raise Unavailable(f"Ray lost its node {node}", "it is tried again")
    if list(nodes.values()).count(host) > 1:
        # A worker that was restarted is there twice until Ray has noticed: some seconds, which a retry outlasts.
        raise Unavailable(
            f"two hosts of the cluster are called {host}", "set CUTOFF_HOST to another name on one of them"
        )
    return host


def _only_on(host: str) -> NodeAffinitySchedulingStrategy:
    nodes = _nodes_of(host)
    if not nodes:
        raise Unavailable(f"host {host} is not in the cluster", "start its Ray worker")
    return NodeAffinitySchedulingStrategy(nodes[0], soft=False)


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
