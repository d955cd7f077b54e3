"""How much memory a process and all it started hold."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def resident_bytes(process: int) -> int:
    """Resident memory of a process and its descendants, in bytes; pages they share count for each of them.

    What has ended counts nothing.
    """
    return _own(process) + sum(resident_bytes(child) for child in _children(process))


def _own(process: int) -> int:
    try:
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * _PAGE_BYTES
    except (FileNotFoundError, ProcessLookupError):
        return 0


def _children(process: int) -> list[int]:
    """A process belongs to the thread that started it, so each thread is asked."""
    found: list[int] = []
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for thread in os.listdir(f"/proc/{process}/task"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it ended meanwhile
                found += map(int, Path(f"/proc/{process}/task/{thread}/children").read_text().split())
    return found


def available_bytes() -> int:
    """Memory that can still be taken without swapping: the machine's, or what the control group's limit leaves.

    Of a group, file pages that nobody used lately count as free: the kernel drops them when it must.
    """
    meminfo = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    free = int(meminfo["MemAvailable"].split()[0]) * 1024
    return min([free, *_left_in_group(Path("/sys/fs/cgroup"))])


def _left_in_group(group: Path) -> list[int]:
    """What a version 2 control group's limit leaves; empty where there is no limit."""
    try:
        limit = (group / "memory.max").read_text().strip()
        if limit == "max":
            return []
        statistics = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        used = int((group / "memory.current").read_text()) - int(statistics["inactive_file"])
    except (FileNotFoundError, KeyError):
        return []
    return [max(0, int(limit) - used)]
