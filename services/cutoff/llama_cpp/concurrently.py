"""Work on many items by a few threads, which a program's end never waits for."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def concurrently(work: Callable[[Item], Result], items: Sequence[Item], workers: int) -> Iterator[tuple[int, Result]]:
    """Applies `work` to every item; yields (index, result) as each one is done.

    The standard pool is not used because the interpreter joins its threads when it exits: a cancelled run
    would hang until the last HTTP request timed out. These are daemon threads. When the consumer stops early,
    no further item is begun.

    Args:
        work: Called in a worker's thread; expected failures belong into its result.
        items: What to work on, begun in this order.
        workers: How many items are worked on at once.

    Raises:
        RuntimeError: `work` raised; the traceback was printed by the thread it ended.
    """
    todo: queue.SimpleQueue[tuple[int, Item]] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[int, Result] | None] = queue.SimpleQueue()
    stopped = threading.Event()
    for pair in enumerate(items):
        todo.put(pair)
    for _ in range(min(workers, len(items))):
        threading.Thread(target=_serve, args=(work, todo, done, stopped), daemon=True).start()
    try:
        for _ in items:
            outcome = done.get()
            if outcome is None:
                raise RuntimeError("a worker thread failed; its traceback is above")
            yield outcome
    finally:
        stopped.set()


def _serve(
    work: Callable[[Item], Result],
    todo: queue.SimpleQueue[tuple[int, Item]],
    done: queue.SimpleQueue[tuple[int, Result] | None],
    stopped: threading.Event,
) -> None:
    while not stopped.is_set():
        try:
            index, item = todo.get_nowait()
        except queue.Empty:
            return
        outcome: tuple[int, Result] | None = None
        try:
            outcome = (index, work(item))
        finally:
            done.put(outcome)
