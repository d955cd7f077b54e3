"""Whether a GPU has the memory a job's plan needs, and who holds it if not. Pure functions.

The plan is an estimate, good to about a quarter: a job that by its plan needs more than the whole GPU is not refused,
it waits until nearly all of it is free. What the job does with less than it needs is the trainer's.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from cutoff.v1 import job_pb2, run_pb2, types_pb2

_GIB = 1 << 30
_MOST = 0.9
"""Of a GPU's memory, or of a job's share of it: a desktop and the driver always hold some."""
_NAMED = 3
"""Processes that a message names."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a stage service says of its host."""

    devices: Sequence[run_pb2.Device]
    groups: Collection[int]
    """The process groups of the runs there."""


@dataclass(frozen=True, slots=True)
class Lack:
    """Why a GPU has too little memory."""

    message: str
    foreign: bool
    """Whether a program that is none of cutoff's is the cause."""
    processes: tuple[types_pb2.DeviceProcess, ...] = ()

    @property
    def reason(self) -> job_pb2.Waiting.Reason:
        """As the API tells it."""
        return job_pb2.Waiting.REASON_MEMORY_HELD if self.foreign else job_pb2.Waiting.REASON_MEMORY_SHARED


def lacking(need: int, share: float, devices: Collection[str], reading: Reading, promised: int = 0) -> Lack | None:
    """What a run would lack on the devices it was given; None where all have enough, or cannot be read.

    Args:
        need: Bytes of each device, by the job's plan.
        share: Of each device that the run may use; 1 is all of it.
        devices: Their names.
        reading: Of their host.
        promised: Bytes that the plans of runs which share the devices need, whether they took them yet or not.
    """
    if not need:
        return None
    known = [device for device in reading.devices if device.name in devices and device.total_bytes]
    lacks = (_lack_of(device, need, share, reading.groups, promised) for device in known)
    return next((lack for lack in lacks if lack is not None), None)


def _lack_of(device: run_pb2.Device, need: int, share: float, groups: Collection[int], promised: int) -> Lack | None:
    wanted = min(need, _MOST * device.total_bytes * min(share, 1.0))
    foreign = [process for process in device.processes if process.group not in groups]
    ours = _ours(device, foreign, promised)
    reserved = max(0, promised - ours)
    if device.free_bytes - reserved >= wanted:
        return None
    held = max(0, device.total_bytes - device.free_bytes - ours)
    numbers = f"{device.name} has {_gib(device.free_bytes)} of {_gib(device.total_bytes)} GiB free"
    needs = f"the job's plan needs {_gib(wanted)}"
    if device.total_bytes - max(ours, promised) < wanted or not held:
        return Lack(f"{numbers}, {needs}, and jobs that share it need {_gib(max(ours, promised))}", foreign=False)
    return Lack(f"{numbers} and {needs}: {_holders(foreign, held)}", foreign=True, processes=tuple(foreign))


def _ours(device: run_pb2.Device, foreign: Sequence[types_pb2.DeviceProcess], promised: int) -> int:
    """Bytes that runs hold; what cannot be told apart, from within a container, is theirs as far as it was promised."""
    known = sum(process.memory_bytes for process in device.processes if process not in foreign)
    told = sum(process.memory_bytes for process in foreign if process.group)
    unknown = max(0, device.total_bytes - device.free_bytes - known - told)
    return known + min(unknown, max(0, promised - known))


def _holders(processes: Sequence[types_pb2.DeviceProcess], held: int) -> str:
    """Who holds the memory, as far as the driver tells."""
    if not processes:
        return f"{_gib(held)} GiB are held by programs that the driver does not name"
    named = [f"{process.name or 'a process'} ({_detail(process)})" for process in processes[:_NAMED]]
    more = f" and {len(processes) - _NAMED} more" if len(processes) > _NAMED else ""
    return f"held by {', '.join(named)}{more}"


def _detail(process: types_pb2.DeviceProcess) -> str:
    size = f", {_gib(process.memory_bytes)} GiB" if process.memory_bytes else ""
    return f"pid {process.pid}{size}"


def _gib(size: float) -> str:
    return f"{size / _GIB:.1f}"


def run_groups(runs: Iterable[run_pb2.Run]) -> frozenset[int]:
    """The process groups of runs that go on: each is led by the run's first process."""
    return frozenset(run.pid for run in runs if run.state == run_pb2.Run.STATE_RUNNING)
