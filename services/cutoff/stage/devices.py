"""Device locks: no two runs on one host ever share a GPU by accident, whatever the scheduler believes.

A lock is an flock(2) on a file in a folder all services of the host share; the kernel frees it when the
process that holds it ends, however it ends.
"""

from __future__ import annotations

import fcntl
import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from cutoff.errors import DeviceBusy, Fault, InvalidInput

_DEVICE = re.compile(r"[a-z]{1,16}:[A-Za-z0-9-]{1,64}\Z")


@contextmanager
def holding(devices: Sequence[str], folder: Path, patience: float = 10.0) -> Iterator[None]:
    """Holds the locks of devices while the block runs.

    Args:
        devices: As torch names them ("cuda:0"); none needs no lock.
        folder: Where the host's lock files are.
        patience: Seconds to wait for a lock that another process is about to free.

    Raises:
        InvalidInput: A name is no device's: it becomes a file's name.
        DeviceBusy: Another process holds one of them.
    """
    with ExitStack() as held:
        for device in sorted(devices):
            if not _DEVICE.match(device):
                raise InvalidInput(
                    [Fault("run.devices", f"{device[:40]!r} is no device", 'name it as torch does: "cuda:0"')]
                )
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"{device.replace(':', '-')}.lock"
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o660)
            held.callback(os.close, descriptor)
            _lock(descriptor, device, patience)
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"{os.getpid()}\n".encode())
        yield


def show_only(devices: Sequence[str]) -> tuple[str, ...]:
    """Hides all other GPUs from this process, before torch looks; returns the devices' names as they are now.

    Without it, libraries that take every GPU they see would take what other runs hold.
    """
    indices = [device.rpartition(":")[2] for device in devices]
    for variable in ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"):
        os.environ[variable] = ",".join(indices)
    return tuple(f"cuda:{position}" for position in range(len(indices)))


def _lock(descriptor: int, device: str, patience: float) -> None:
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                holder = os.pread(descriptor, 20, 0).decode().strip() or "unknown"
                raise DeviceBusy(f"{device} is held by process {holder}", "wait for it, or cancel it") from None
            time.sleep(0.1)
        else:
            return
