"""What many watchers of one job look up at the same time is read from the store once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from cutoff.coordinator.store import Store
from cutoff.v1 import job_pb2

_MOST = 64
"""Looks that are kept: of the jobs that are watched now, and of the places that their watchers have come to."""


class Looks:
    """Remembers what was read until the job changes. Lives on one event loop.

    Args:
        store: Where it is read.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._kept: OrderedDict[tuple[str, int], Any] = OrderedDict()

    def events(self, name: str, after: int) -> list[job_pb2.JobEvent]:
        """As `Store.events`; nobody may change what is returned."""
        found: list[job_pb2.JobEvent] = self._look((name, after), lambda: self._store.events(name, after))
        return found

    def job(self, name: str) -> job_pb2.Job:
        """As `Store.get`; nobody may change what is returned."""
        found: job_pb2.Job = self._look((name, -1), lambda: self._store.get(name))
        return found

    def forget(self, name: str) -> None:
        """The job has changed."""
        for key in [key for key in self._kept if key[0] == name]:
            del self._kept[key]

    def _look(self, key: tuple[str, int], read: Callable[[], Any]) -> Any:
        if key not in self._kept:
            self._kept[key] = read()
        self._kept.move_to_end(key)
        while len(self._kept) > _MOST:
            self._kept.popitem(last=False)
        return self._kept[key]
