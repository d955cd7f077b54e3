"""How often a caller may call: a token bucket per caller, bounded streams, and time for a call without a deadline.

Environment, all for one server:
    CUTOFF_CALLS_PER_SECOND: of one token or certificate, and twice as many at once; default 300.
    CUTOFF_STRANGERS_PER_SECOND: calls from one address that are refused or need no token (health checks), and five
        times as many at once; default 20.
    CUTOFF_STREAMS: streams (cutoff watch) one token or certificate may have open; default 1100.
    CUTOFF_UNARY_SECONDS: what a unary call may take that brings no deadline of its own; default 900.

Where no token is asked for (loopback, a Unix socket) the callers cannot be told apart, and are not limited.
"""

from __future__ import annotations

import os
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

from cutoff.errors import Refused, TooMany

_MOST_CALLERS = 10_000
"""Buckets that are kept; the one used least lately goes first, so that addresses cannot fill the memory."""

_STREAM_PAUSE = 10.0
"""Seconds after which a caller with too many streams is told to try again."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one server allows."""

    calls_per_second: float = 300.0
    strangers_per_second: float = 20.0
    streams: int = 1100
    unary_seconds: float = 900.0

    @classmethod
    def from_environment(cls) -> Self:
        """Reads the variables.

        Raises:
            Refused: One holds no number above 0.
        """
        default = cls()
        return cls(
            _number("CUTOFF_CALLS_PER_SECOND", default.calls_per_second),
            _number("CUTOFF_STRANGERS_PER_SECOND", default.strangers_per_second),
            int(_number("CUTOFF_STREAMS", default.streams)),
            _number("CUTOFF_UNARY_SECONDS", default.unary_seconds),
        )


class Buckets:
    """One token bucket per caller: it holds `burst` calls, and fills at `rate` a second.

    Args:
        rate: Calls a second.
        burst: Calls at once.
        clock: Monotonic seconds.
    """

    def __init__(self, rate: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """By caller: what is left, and when that was."""

    def take(self, caller: str) -> None:
        """Counts one call.

        Raises:
            TooMany: The bucket is empty.
        """
        now = self._clock()
        left, then = self._left.pop(caller, (self._burst, now))
        left = min(self._burst, left + (now - then) * self._rate)
        self._left[caller] = (left - 1 if left >= 1 else left, now)
        while len(self._left) > _MOST_CALLERS:
            self._left.popitem(last=False)
        if left < 1:
            seconds = (1 - left) / self._rate
            raise TooMany(
                f"{caller} makes more than {self._rate:g} calls a second", f"try again in {seconds:.2f} s", seconds
            )


class Streams:
    """How many streams each caller has open.

    Args:
        most: Of one caller.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._open: Counter[str] = Counter()

    @contextmanager
    def one_more(self, caller: str) -> Iterator[None]:
        """Counts a stream while the block runs.

        Raises:
            TooMany: The caller has as many as it may.
        """
        if self._open[caller] >= self._most:
            raise TooMany(
                f"{caller} has {self._most} streams open, and may have no more",
                "end some, or raise CUTOFF_STREAMS for the server",
                _STREAM_PAUSE,
            )
        self._open[caller] += 1
        try:
            yield
        finally:
            self._open[caller] -= 1
            if not self._open[caller]:
                del self._open[caller]


def _number(variable: str, default: float) -> float:
    text = os.environ.get(variable, "")
    try:
        found = float(text) if text else default
    except ValueError:
        found = 0.0
    if not 0 < found < float("inf"):
        raise Refused(f"{variable}={text} is not a number above 0", f"set it to one, or leave it out ({default:g})")
    return found
