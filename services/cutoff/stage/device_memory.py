"""How much memory of each GPU is free, and which processes hold the rest, read from the driver without torch.

NVIDIA is asked through NVML (`nvml.py`), AMD through the kernel's files (`amd_sysfs.py`). A stage service asks, for it
is the process that sees the host's GPUs; the coordinator, which may be in a container without any, asks it.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from cutoff.stage import amd_sysfs, nvml
from cutoff.stage.device_reading import DeviceMemory, Holder
from cutoff.v1 import run_pb2, types_pb2


def read_devices(sysfs: Path = Path("/sys"), proc: Path = Path("/proc")) -> list[run_pb2.Device]:
    """The GPUs this process sees, in the order in which torch counts them; none where no driver answers.

    Args:
        sysfs: Where AMD's driver shows its files.
        proc: Where processes are looked up.
    """
    found = nvml.read(nvml.library()) or amd_sysfs.read(sysfs)
    return [_device(f"cuda:{number}", memory, proc) for number, memory in enumerate(found)]


def _device(name: str, memory: DeviceMemory, proc: Path) -> run_pb2.Device:
    return run_pb2.Device(
        name=name,
        model=memory.model,
        total_bytes=memory.total_bytes,
        free_bytes=memory.free_bytes,
        processes=[_process(holder, proc) for holder in _by_size(memory.holders)],
    )


def _by_size(holders: Sequence[Holder]) -> list[Holder]:
    return sorted(holders, key=lambda holder: -holder.memory_bytes)


def _process(holder: Holder, proc: Path) -> types_pb2.DeviceProcess:
    """A process with its name and group, where they can be seen: a container sees only its own processes."""
    shown = types_pb2.DeviceProcess(pid=holder.pid, memory_bytes=holder.memory_bytes)
    with suppress(OSError, ValueError, IndexError):
        shown.name = (proc / str(holder.pid) / "comm").read_text(encoding="utf-8", errors="replace").strip()
        shown.group = _group(proc, holder.pid)
    return shown


def _group(proc: Path, pid: int) -> int:
    """The fifth field of /proc/PID/stat, proc(5); a program's name, the second, may hold spaces."""
    return int((proc / str(pid) / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[2])
