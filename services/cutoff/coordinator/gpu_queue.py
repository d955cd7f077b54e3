"""The queue for GPUs at work: lets one stage after the other ask Ray for hardware, and tells the others why they wait.

`queue.py` says whose turn it is, `gpu_memory.py` whether a GPU has the memory; Ray holds what was given.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from dataclasses import dataclass, replace
from typing import Protocol

from cutoff.coordinator.gpu_memory import Lack, Reading, lacking
from cutoff.coordinator.hosts import Addresses
from cutoff.coordinator.measures import waiting_for_gpus
from cutoff.coordinator.queue import Entry, next_one, waiting
from cutoff.coordinator.scheduler import Call, Held, NotPlaced, call_failed
from cutoff.errors import DeviceMemoryHeld, Unavailable
from cutoff.run_key import RunId, run_id
from cutoff.v1 import job_pb2, types_pb2


class Hardware(Protocol):
    """Who holds the hardware: `scheduler`."""

    def count_gpus(self) -> tuple[float, float]:
        """How many GPUs there are, and how many are free."""

    def holding(self, call: Call, patience: float | None = None) -> AbstractAsyncContextManager[Held]:
        """Holds what a call needs."""


@dataclass(frozen=True, slots=True)
class Times:
    """In seconds."""

    look: float = 2.0
    """Between two looks at what is free, by the first in the queue alone."""
    place: float = 15.0
    """For Ray to start what holds the hardware; it may be free in parts that do not fit together."""
    memory: float = 15.0
    """Between two looks at a GPU's memory."""
    back: float = 20.0
    """How long the GPU of a run whose stream broke is kept for whoever attaches to it again."""


class GpuQueue:
    """Drives calls, those with GPUs in their turn. Lives on one event loop.

    Args:
        hardware: Who holds it.
        read: Reads the memory of a host, given its stage services and which of them to ask.
        tell: Takes what a job waits for; None when it waits no more.
        times: How often it looks.
    """

    def __init__(
        self,
        hardware: Hardware,
        read: Callable[[Addresses, str], Awaitable[Reading]],
        tell: Callable[[str, job_pb2.Waiting | None], None],
        times: Times | None = None,
    ) -> None:
        self._hardware = hardware
        self._read = read
        self._tell = tell
        self._times = times or Times()
        self._waiting: dict[RunId, Entry] = {}
        self._held: dict[RunId, tuple[Held, int]] = {}
        """Who has GPUs, and how much memory of each its plan needs."""
        self._back_by: dict[RunId, float] = {}
        """Whose stream broke: their runs may go on, on GPUs that Ray takes for free."""
        self._told: dict[RunId, job_pb2.Waiting] = {}
        self._arrivals = itertools.count()
        self._news = asyncio.Event()
        self._placing = asyncio.Lock()
        """One asks Ray at a time: what one is given changes what is left for the next."""

    async def drive(self, call: Call) -> AsyncGenerator[types_pb2.Event, None]:
        """Waits for the hardware, makes the call, and yields its events; the hardware is freed afterwards.

        Raises:
            DeviceMemoryHeld: A program outside cutoff held the GPU's memory for too long.
            Unavailable: The host of the attempt, or its service, was lost.
        """
        if not call.gpus:
            async with self._hardware.holding(call) as held:
                async for event in held.drive():
                    yield event
            return
        key = run_id(call.request.run.key)
        stack = AsyncExitStack()
        try:
            held = await self._hardware_for(key, call, stack)
            async for event in held.drive():
                if call_failed(event):
                    self._back_by[key] = time.monotonic() + self._times.back
                yield event
        except Unavailable:
            self._back_by[key] = time.monotonic() + self._times.back
            raise
        finally:
            self._waiting.pop(key, None)
            self._held.pop(key, None)
            await stack.aclose()
            self._changed()

    async def _hardware_for(self, key: RunId, call: Call, stack: AsyncExitStack) -> Held:
        """Waits until this call has its GPUs, with the memory its plan needs."""
        attaching = call.request.run.after_sequence > 0  # its run has begun: it is on its GPU
        now = time.monotonic()
        # An earlier attempt at the same stage comes back no more: it is over, or there would be no later one.
        self._back_by = {other: by for other, by in self._back_by.items() if by > now and other[:2] != key[:2]}
        arrival = next(self._arrivals)
        self._waiting[key] = Entry(key, call.gpus, call.priority, call.since, arrival, time.time(), attaching)
        lacking_since: float | None = None
        while True:
            self._changed()
            await self._turn(key)
            async with self._placing:
                lack = await self._place(key, call, stack)
            if key in self._held:
                return self._held[key][0]
            now = time.monotonic()
            lacking_since = (lacking_since or now) if lack is not None and lack.foreign else None
            if lack is None:
                continue
            if lacking_since is not None and now - lacking_since >= call.wait_minutes * 60:
                raise DeviceMemoryHeld(
                    f"waited {call.wait_minutes:g} minutes for a GPU's memory: {lack.message}",
                    "free it (LM Studio: lms unload --all), and retry; or raise resources.wait_minutes",
                )
            self._set(key, lack=lack, resting=True)
            await asyncio.sleep(self._times.memory)
            self._set(key, resting=False)

    async def _turn(self, key: RunId) -> None:
        """Waits until this one is next and GPUs are free."""
        while True:
            entry = self._waiting[key]
            if next_one(self._waiting.values()) is entry:
                expected = any(time.monotonic() < by for by in self._back_by.values()) and not entry.attaching
                if not expected and self._hardware.count_gpus()[1] >= entry.gpus:
                    return
                if entry.lack is not None:
                    self._set(key, lack=None)  # what it waits for now is a GPU
            with suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), self._times.look)

    async def _place(self, key: RunId, call: Call, stack: AsyncExitStack) -> Lack | None:
        """Takes GPUs for a call, if there are any with enough memory; or tells what they lack.

        Ray chooses a GPU without a look at its memory. One that lacks it is kept until another is found, or Ray would
        give it again.
        """
        if next_one(self._waiting.values()) is not self._waiting[key]:
            return None  # somebody else came in between
        lack: Lack | None = None
        async with AsyncExitStack() as passed_over:
            while lack is None or self._hardware.count_gpus()[1] >= call.gpus:
                one = await passed_over.enter_async_context(AsyncExitStack())
                try:
                    held = await one.enter_async_context(self._hardware.holding(call, self._times.place))
                except NotPlaced:
                    break
                lack = await self._lack(key, call, held)
                if lack is None:
                    stack.push_async_exit(one.pop_all())
                    self._held[key] = held, call.memory_bytes
                    del self._waiting[key]
                    self._changed()
                    break
        return lack

    async def _lack(self, key: RunId, call: Call, held: Held) -> Lack | None:
        if not call.memory_bytes or self._waiting[key].attaching:
            return None
        promised = sum(
            memory
            for other, memory in self._held.values()
            if other.node == held.node and set(other.devices) & set(held.devices)
        )
        return lacking(
            call.memory_bytes, call.gpus, held.devices, await self._read(held.services, call.service), promised
        )

    def _set(self, key: RunId, **changes: object) -> None:
        self._waiting[key] = replace(self._waiting[key], **changes)  # type: ignore[arg-type]
        self._changed()

    def _changed(self) -> None:
        """Tells every job that waits what is new, and wakes those whose turn it may be."""
        now = waiting(self._waiting.values(), list(self._held))
        for key in self._told.keys() - now.keys():
            self._tell(f"jobs/{key[0]}", None)
        for key, told in now.items():
            if self._told.get(key) != told:
                self._tell(f"jobs/{key[0]}", told)
        self._told = now
        waiting_for_gpus([told.reason for told in now.values()])
        self._news.set()
        self._news = asyncio.Event()
