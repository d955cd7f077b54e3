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
