"""Lets long work choose the moment at which it stops."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def noting_stops() -> Iterator[Callable[[], bool]]:
    """Within the block SIGTERM and SIGINT are noted; the first of them takes effect where the block ends.

    Yields a function that says whether one was noted: work asks it where it can leave nothing half done, and then
    leaves the block by itself. A signal that was ignored before stays ignored.
    """
    noted: list[int] = []
    replaced = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            if signal.getsignal(number) is not signal.SIG_IGN:
                replaced[number] = signal.signal(number, lambda number, _frame: noted.append(number))
    try:
        yield lambda: bool(noted)
    finally:
        for number, handler in replaced.items():
            signal.signal(number, handler)
    if noted:
        signal.raise_signal(noted[0])
