"""Whether a server takes new work: open while it serves, closed while it drains or stops. Its health follows."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from cutoff.errors import Unavailable

Listener = Callable[[bool], Awaitable[None]]
"""Told whether the door is open."""


class Door:
    """Lives on one event loop.

    Args:
        what: Whose it is, for the message: "the coordinator".
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._open = asyncio.Event()
        self._open.set()
        self._why = ""
        self._listeners: list[Listener] = []

    @property
    def closed(self) -> bool:
        """Whether new work is refused."""
        return not self._open.is_set()

    def require_open(self) -> None:
        """Refuses new work.

        Raises:
            Unavailable: The door is closed; the same request may succeed later.
        """
        if self.closed:
            raise Unavailable(f"{self._what} is {self._why} and takes no new work", "try again when it is back")

    async def wait_open(self) -> None:
        """Returns when new work is taken."""
        await self._open.wait()

    async def close(self, why: str) -> None:
        """From now on new work is refused.

        Args:
            why: What the server does instead, in a word: "draining".
        """
        self._why = why
        self._open.clear()
        await self._tell()

    async def open(self) -> None:
        """Takes new work again."""
        self._open.set()
        await self._tell()

    async def follow(self, listener: Listener) -> None:
        """Has somebody told, now and at each change."""
        self._listeners.append(listener)
        await listener(not self.closed)

    async def _tell(self) -> None:
        for listener in self._listeners:
            await listener(not self.closed)
