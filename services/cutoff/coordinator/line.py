"""Lets jobs set out one after the other, so that a crowd of them keeps no caller waiting. Knows nothing of jobs."""

from __future__ import annotations

import asyncio
import heapq
import itertools


class Line:
    """Lives on one event loop.

    Args:
        apart: Seconds between two turns; the first one is had at once.
    """

    def __init__(self, apart: float) -> None:
        self._apart = apart
        self._waiting: list[tuple[int, float, int, asyncio.Future[None]]] = []
        self._arrivals = itertools.count()
        self._resting = False
        """Whether somebody's turn was less than `apart` ago."""

    async def turn(self, priority: int, since: float) -> None:
        """Waits until it is one's turn.

        Args:
            priority: Who is higher comes first.
            since: Within a priority the earlier comes first.
        """
        if self._resting:
            mine = asyncio.get_running_loop().create_future()
            heapq.heappush(self._waiting, (-priority, since, next(self._arrivals), mine))
            await mine  # who is cancelled meanwhile is passed over
        else:
            self._rest()

    def _rest(self) -> None:
        self._resting = True
        asyncio.get_running_loop().call_later(self._apart, self._next)

    def _next(self) -> None:
        while self._waiting:
            *_, first = heapq.heappop(self._waiting)
            if not first.done():
                first.set_result(None)
                self._rest()
                return
        self._resting = False
