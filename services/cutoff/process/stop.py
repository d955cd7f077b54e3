"""Stops a process group: SIGTERM, a grace period, SIGKILL."""

from __future__ import annotations

import contextlib
import os
import signal
import time


def group_alive(group: int) -> bool:
    """Whether any process of the group is left (a zombie that nobody reaped does not count)."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return _has_living_member(group)


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
    """Signals a group; one that is gone already is left in peace."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)


def _wait_gone(group: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while group_alive(group):
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.02)
    return True


def _has_living_member(group: int) -> bool:
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/stat", encoding="utf-8", errors="replace") as file:
                fields = file.read().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[2]) == group and fields[0] not in "ZX":
            return True
    return False
