"""One servicer, reached two ways: called in this process, and over gRPC. Both must behave alike."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import pytest

from cutoff.rpc import ClientSecurity, Peer, ServerSecurity
from cutoff.rpc.server import started


class Port(Protocol):
    """How a contract test calls a service."""

    def unary(self, method: str, request: Any, response: Any) -> Any: ...
    def stream(self, method: str, request: Any, response: Any) -> Iterator[Any]: ...


class InProcess:
    """Calls the servicers' methods themselves, on their event loop."""

    def __init__(self, servicers: dict[str, Any], loop: asyncio.AbstractEventLoop) -> None:
        self._servicers = servicers
        self._loop = loop

    def unary(self, method, request, response):
        return self._run(self._method(method)(request, None))

    def stream(self, method, request, response):
        answers = self._method(method)(request, None)
        try:
            while True:
                try:
                    yield self._run(anext(answers))
                except StopAsyncIteration:
                    return
        finally:
            self._run(answers.aclose())

    def _method(self, method: str) -> Callable[..., Any]:
        service, _, name = method.partition("/")
        return getattr(self._servicers[service], name)

    def _run(self, awaitable: Any) -> Any:
        async def awaited():
            return await awaitable

        return asyncio.run_coroutine_threadsafe(awaited(), self._loop).result(60)


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop on a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.fixture(params=["in process", "over gRPC"])
def reach(request, loop, tmp_path) -> Iterator[Callable[..., Port]]:
    """Makes a port to servicers: reach({"JobService": servicer}, {"JobService": add_to_server})."""
    stops = []

    def build(servicers: dict[str, Any], adders: dict[str, Callable[..., None]]) -> Port:
        if request.param == "in process":
            return InProcess(servicers, loop)

        def register(server):
            for name, add in adders.items():
                add(servicers[name], server)
            return [f"cutoff.v1.{name}" for name in servicers]

        address = f"unix:{tmp_path}/s.sock"
        opened = _enter(loop, lambda: started(address, register, ServerSecurity(None, None), drain=1.0))
        stops.append(opened)
        peer = Peer(address, ClientSecurity(None, None))
        stops.append(peer.close)
        return peer

    yield build
    for stop in reversed(stops):
        stop()


def _enter(loop: asyncio.AbstractEventLoop, manager: Callable[[], Any]) -> Callable[[], None]:
    """Enters an async context manager on the loop; returns what leaves it."""
    entered, leave = threading.Event(), asyncio.Event()

    async def hold():
        async with manager():
            entered.set()
            await leave.wait()

    future = asyncio.run_coroutine_threadsafe(hold(), loop)
    assert entered.wait(30)

    def stop() -> None:
        loop.call_soon_threadsafe(leave.set)
        future.result(30)

    return stop
