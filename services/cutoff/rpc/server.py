"""Starts a gRPC server and stops it gracefully: SIGTERM or SIGINT, health to NOT_SERVING, calls drained.

CUTOFF_REFLECTION=1 also describes the services to whoever may call them (the package grpcio-reflection is needed).
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio  # type: ignore[attr-defined]  # its stubs lack it

from cutoff.errors import Refused
from cutoff.rpc.audit import AUDIT, Audit
from cutoff.rpc.channel import SERVER_OPTIONS
from cutoff.rpc.door import Door
from cutoff.rpc.interceptor import CallInterceptor
from cutoff.rpc.limits import Limits
from cutoff.rpc.security import ServerSecurity
from cutoff.telemetry import logger

_LOG = logger(__name__)

_MOST_CALLS = 8192
"""Calls and streams that one server works on at once; more are answered RESOURCE_EXHAUSTED."""

Register = Callable[[grpc.aio.Server], Sequence[str]]
"""Adds servicers to a server and returns the full names of their services, for the health protocol."""


@asynccontextmanager
async def started(
    listen: str,
    register: Register,
    security: ServerSecurity,
    drain: float,
    door: Door | None = None,
    audit: Audit | None = None,
) -> AsyncIterator[str]:
    """A running server; yields the address it really listens on (port 0 takes a free one).

    Args:
        listen: host:port, or unix:/path.
        register: Adds the servicers.
        security: Token and certificate.
        drain: Seconds that calls in flight are given when the block ends.
        door: Its health is SERVING while this is open; without one, until the block ends.
        audit: Told of every call that changes something; None for the log only.

    Raises:
        Refused: The address is taken, or may not be listened on without TLS and a token; or a limit is no number.
    """
    security.check_address(listen)
    interceptor = CallInterceptor(security, Limits.from_environment(), audit)
    server = grpc.aio.server(interceptors=[interceptor], options=SERVER_OPTIONS, maximum_concurrent_rpcs=_MOST_CALLS)
    statuses = health_aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(statuses, server)
    names = register(server)

    async def tell(serves: bool) -> None:
        status = health_pb2.HealthCheckResponse
        for name in ("", *names):
            await statuses.set(name, status.SERVING if serves else status.NOT_SERVING)

    await (door or Door(listen)).follow(tell)
    if os.environ.get("CUTOFF_REFLECTION", "0") not in ("", "0"):
        _describe(server, names)
    port = _bind(server, listen, security)
    await server.start()
    try:
        yield listen if listen.startswith("unix:") else f"{listen.rpartition(':')[0]}:{port}"
    finally:
        await statuses.enter_graceful_shutdown()
        await server.stop(drain)


async def serve_until_stopped(
    listen: str,
    register: Register,
    on_stop: Callable[[], Awaitable[None]],
    door: Door,
    drain: float = 5.0,
    state: Path | None = None,
) -> None:
    """Serves until SIGTERM or SIGINT; then closes the door, calls `on_stop`, and lets calls in flight end.

    Args:
        listen: host:port, or unix:/path.
        register: Adds the servicers.
        on_stop: Called before calls in flight are let end.
        door: Closed first: health says so, and new work is refused.
        drain: Seconds that calls in flight are given.
        state: The folder with the users' tokens and the audit; None for a server that has no users.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    audit = Audit(state / AUDIT if state else None)
    async with started(listen, register, ServerSecurity.from_environment(state), drain, door, audit) as address:
        _LOG.info("serving", address=address)
        await stop.wait()
        _LOG.info("stopping", address=address)
        await door.close("stopping")
        await on_stop()


def _bind(server: grpc.aio.Server, listen: str, security: ServerSecurity) -> int:
    port = 0
    with contextlib.suppress(RuntimeError):
        if security.credentials is not None and not listen.startswith("unix:"):
            port = server.add_secure_port(listen, security.credentials)
        else:
            port = server.add_insecure_port(listen)
    if port == 0:
        raise Refused(f"cannot listen on {listen}", "is the port taken, or the socket's folder missing?")
    return port


def _describe(server: grpc.aio.Server, names: Sequence[str]) -> None:
    """Adds the reflection service.

    Raises:
        Refused: Its package is not installed.
    """
    try:
        reflection = importlib.import_module("grpc_reflection.v1alpha.reflection")
    except ModuleNotFoundError as error:
        raise Refused("CUTOFF_REFLECTION needs grpcio-reflection", "pip install it, or unset the variable") from error
    reflection.enable_server_reflection([*names, reflection.SERVICE_NAME], server)
