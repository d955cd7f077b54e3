"""Stops a process group: SIGTERM, a grace period, SIGKILL."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator


def group_alive(group: int) -> bool:
    """Whether any process of the group is left or its leader (a zombie does not count)."""
    return any(found is not None and (found == group or entry == str(group)) for entry, found in _groups())


def stop_group(group: int, grace: float) -> bool:
    """Ends every process of a group.

    Args:
        group: The process group id.
        grace: Seconds between SIGTERM and SIGKILL.

    Returns:
        True when SIGTERM was enough.
    """
    signal_group(group, signal.SIGTERM)
    if _wait_gone(group, grace):
        return True
    signal_group(group, signal.SIGKILL)
    _wait_gone(group, 10)
    return False


def signal_group(group: int, number: signal.Signals) -> None:
    """Signals a group; one that is gone already is left in peace.

    A process that has only just started may not lead its group yet: then the process alone is signalled.
    """
    with contextlib.suppress(ProcessLookupError):
        try:
            os.killpg(group, number)
        except ProcessLookupError:
            os.kill(group, number)


def _wait_gone(group: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while group_alive(group):
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.02)
    return True


def _groups() -> Iterator[tuple[str, int | None]]:
    for entry in os.listdir("/proc"):
        yield entry, _group_of(entry)


def _group_of(entry: str) -> int | None:
    """The process group of a /proc entry; None when it is no process, or one that has ended."""
    if not entry.isdigit():
        return None
    try:
        with open(f"/proc/{entry}/stat", encoding="utf-8", errors="replace") as file:
            state, _, group, *_ = file.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if state in "ZX" else int(group)
