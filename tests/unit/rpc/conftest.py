"""A server on a thread, as several tests of this room need it."""

from __future__ import annotations

import asyncio
import threading

import pytest

from cutoff import errors
from cutoff.rpc.server import started


@pytest.fixture
def serve_with():
    """Starts a server: serve_with(listen, register, security, audit) -> address."""
    stops = []

    def start(listen, register, security, audit=None):
        found, ready = [], threading.Event()
        loop = asyncio.new_event_loop()
        leave = asyncio.Event()

        async def hold():
            try:
                async with started(listen, register, security, drain=0.5, audit=audit) as address:
                    found.append(address)
                    ready.set()
                    await leave.wait()
            except errors.CutoffError as error:
                found.append(error)
                ready.set()

        thread = threading.Thread(target=loop.run_until_complete, args=(hold(),))
        thread.start()
        stops.append((loop, leave, thread))
        assert ready.wait(20)
        if isinstance(found[0], errors.CutoffError):
            raise found[0]
        return found[0]

    yield start
    for loop, leave, thread in stops:
        loop.call_soon_threadsafe(leave.set)
        thread.join(20)
        loop.close()
