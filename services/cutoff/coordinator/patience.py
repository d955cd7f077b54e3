"""How long the coordinator waits for others: pauses before another try, and silence that is taken for a loss."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import TypeVar

from cutoff.errors import CutoffError, Unavailable
from cutoff.stage.lease import FIRST_SECONDS, SILENCE_SECONDS
from cutoff.telemetry import logger
from cutoff.v1 import types_pb2

T = TypeVar("T")

_LOG = logger(__name__)

RETRIES = tuple(float(pause) for pause in os.environ.get("CUTOFF_RETRY_SECONDS", "1 5 15").split())
"""Seconds before each further try at what failed for want of infrastructure; wrong input is never retried.

Where services come back by themselves (containers), the pauses together are longer than that takes."""


async def patiently(
    once: Callable[[], Awaitable[T]],
    what: str,
    may_pass: Callable[[CutoffError], bool] = lambda error: error.retryable,
    headway: Callable[[], int] = lambda: 0,
) -> T:
    """Awaits `once()`, and again after each pause of RETRIES while it fails in a way that may pass.

    Args:
        once: One try.
        what: For the log.
        may_pass: Whether a failure may be gone at the next try.
        headway: Grows with what tries have achieved for good; each time it has grown, the pauses begin anew.

    Raises:
        CutoffError: The last failure, or the first that will not pass.
    """
    pauses, achieved = iter(RETRIES), headway()
    while True:
        try:
            return await once()
        except CutoffError as error:
            if headway() > achieved:
                pauses, achieved = iter(RETRIES), headway()
            pause = next(pauses, None)
            if pause is None or not may_pass(error):
                raise
            _LOG.warning("trying again", what=what, reason=error.reason, message=error.message, after_seconds=pause)
        await asyncio.sleep(pause)


async def heard(events: AsyncGenerator[types_pb2.Event, None], address: str) -> AsyncGenerator[types_pb2.Event, None]:
    """The events of a call, as long as they come. Times are the event loop's, which a change of the clock leaves alone.

    Args:
        events: The first, a heartbeat, says that the call has its hardware and is made; it may take days.
        address: The service's, for the message.

    Raises:
        Unavailable: Not even a heartbeat came for too long.
    """
    limit: float | None = None
    async with aclosing(events):
        while True:
            try:
                async with asyncio.timeout(limit):
                    event = await anext(events)
            except StopAsyncIteration:
                return
            except TimeoutError:
                raise Unavailable(
                    f"{address} has said nothing for {limit:g} s", "is it stopped or overloaded?"
                ) from None
            limit = FIRST_SECONDS if limit is None else SILENCE_SECONDS
            yield event
