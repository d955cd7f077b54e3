"""Who gets a GPU next, and what the others wait for. Pure functions.

By priority, and within a priority by when the job came, whatever its stage: a job that has begun is finished before
one that came later begins. Nobody overtakes: a small job that would fit into what is free waits behind a large one, or
the large one would wait for ever. Only who lacks memory that others hold is passed over: no order could help it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from google.protobuf.timestamp_pb2 import Timestamp

from cutoff.coordinator.gpu_memory import Lack
from cutoff.run_key import RunId
from cutoff.v1 import job_pb2

_NAMED = 3
"""Jobs that a message names."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A stage that waits for GPUs."""

    key: RunId
    gpus: float
    priority: int
    since: float
    """When its job came, in Unix time."""
    arrival: int
    """Counts the stages that came to this queue."""
    joined: float = 0.0
    """When this stage began to wait, in Unix time."""
    attaching: bool = False
    """Its run goes on already, on a GPU of its own: it was there before this coordinator."""
    lack: Lack | None = None
    """The memory it lacked when it was last looked at."""
    resting: bool = False
    """Passed over until the memory is looked at again."""


def in_order(entries: Iterable[Entry]) -> list[Entry]:
    """Who waits, the first to be served first."""
    return sorted(entries, key=lambda entry: (not entry.attaching, -entry.priority, entry.since, entry.arrival))


def next_one(entries: Iterable[Entry]) -> Entry | None:
    """Whose turn it is, whether or not there are GPUs for it."""
    return next((entry for entry in in_order(entries) if not entry.resting), None)


def waiting(entries: Iterable[Entry], holders: Sequence[RunId]) -> dict[RunId, job_pb2.Waiting]:
    """What each of those who wait is told, by who holds GPUs."""
    ordered = in_order(entries)
    first = next_one(ordered)
    found = {}
    for position, entry in enumerate(ordered, 1):
        reason, message = _why(entry, first, holders)
        found[entry.key] = job_pb2.Waiting(
            stage=entry.key[1],
            reason=reason,
            message=message,
            position=position,
            length=len(ordered),
            since=_time(entry.joined),
            processes=entry.lack.processes if entry.lack else (),
        )
    return found


def _time(seconds: float) -> Timestamp:
    time = Timestamp()
    time.FromMicroseconds(int(seconds * 1e6))
    return time


def _why(entry: Entry, first: Entry | None, holders: Sequence[RunId]) -> tuple[job_pb2.Waiting.Reason, str]:
    if entry.lack is not None:
        return entry.lack.reason, entry.lack.message
    if first is not None and entry.key != first.key:
        return job_pb2.Waiting.REASON_OTHERS_FIRST, f"{first.key[0]} ({first.key[1]}) comes first"
    wanted = "a GPU" if entry.gpus == 1 else f"{entry.gpus:g} GPU(s)"
    if not holders:
        return job_pb2.Waiting.REASON_GPUS_HELD, f"no host has {wanted} free"
    named = ", ".join(f"{job} ({stage})" for job, stage, _ in holders[:_NAMED])
    more = f" and {len(holders) - _NAMED} more" if len(holders) > _NAMED else ""
    return job_pb2.Waiting.REASON_GPUS_HELD, f"no host has {wanted} free; GPUs are held by {named}{more}"
