"""Device locks: no two runs on one host ever share a GPU by accident, whatever the scheduler believes.

A lock is an flock(2) on a file in a folder all services of the host share; the kernel frees it when the
process that holds it ends, however it ends. A run that has a share of a device holds that lock together with other
such runs, and besides it so many hundredths of the device, which are byte ranges of a second file.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from cutoff.errors import DeviceBusy, Fault, InvalidInput

_DEVICE = re.compile(r"[a-z]{1,16}:[A-Za-z0-9-]{1,64}\Z")

_HUNDREDTHS = 100
"""A share is so many of them."""


@contextmanager
def holding(devices: Sequence[str], folder: Path, patience: float = 10.0, share: float = 1.0) -> Iterator[None]:
    """Holds the locks of devices while the block runs.

    Args:
        devices: As torch names them ("cuda:0"); none needs no lock.
        folder: Where the host's lock files are.
        patience: Seconds to wait for a lock that another process is about to free.
        share: Of each device: 1 is all of it.

    Raises:
        InvalidInput: A name is no device's: it becomes a file's name.
        DeviceBusy: Another process holds one of them, or too much of it.
    """
    deadline = time.monotonic() + patience
    with ExitStack() as held:
        for device in sorted(devices):
            if not _DEVICE.match(device):
                raise InvalidInput(
                    [Fault("run.devices", f"{device[:40]!r} is no device", 'name it as torch does: "cuda:0"')]
                )
            folder.mkdir(parents=True, exist_ok=True)
            name = device.replace(":", "-")
            descriptor = _opened(folder / f"{name}.lock", held)
            _lock(descriptor, device, deadline, fcntl.LOCK_EX if share >= 1 else fcntl.LOCK_SH)
            if share < 1:
                shares = _opened(folder / f"{name}.shares", held)
                _lock_share(shares, device, deadline, round(share * _HUNDREDTHS))
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield


def show_only(devices: Sequence[str]) -> tuple[str, ...]:
    """Hides all other GPUs from this process, before torch looks; returns the devices' names as they are now.

    Without it, libraries that take every GPU they see would take what other runs hold. CUDA counts the fastest GPU
    first unless it is told to count as NVML, and so Ray and `device_memory`, do: by their place on the bus.
    """
    indices = [device.rpartition(":")[2] for device in devices]
    os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    for variable in ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"):
        os.environ[variable] = ",".join(indices)
    return tuple(f"cuda:{position}" for position in range(len(indices)))


def _opened(path: Path, held: ExitStack) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o660)
    held.callback(os.close, descriptor)
    return descriptor


def _lock(descriptor: int, device: str, deadline: float, kind: int) -> None:
    def locked() -> bool:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    if not _in_time(locked, deadline):
        holder = os.pread(descriptor, 20, 0).decode().strip() or "unknown"
        raise DeviceBusy(f"{device} is held by process {holder}", "wait for it, or cancel it")


def _lock_share(descriptor: int, device: str, deadline: float, wanted: int) -> None:
    """Locks so many bytes, whichever are free; all or none."""

    def locked() -> bool:
        count = 0
        for place in range(_HUNDREDTHS):
            count += _lock_byte(descriptor, place, fcntl.F_WRLCK)
            if count == wanted:
                return True
        for place in range(_HUNDREDTHS):  # nobody waits for a part of what he needs while he holds another
            _lock_byte(descriptor, place, fcntl.F_UNLCK)
        return False

    if not _in_time(locked, deadline):
        raise DeviceBusy(f"less than {wanted} % of {device} is free", "wait for the runs that share it, or cancel one")


def _lock_byte(descriptor: int, place: int, kind: int) -> bool:
    """Locks or frees one byte for this open file (fcntl(2), open file description locks); False if another has it."""
    lock = struct.pack("hhqqi4x", kind, os.SEEK_SET, place, 1, 0)
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, lock)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise
    return True


def _in_time(locked: Callable[[], bool], deadline: float) -> bool:
    while not locked():
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.1)
    return True
