"""Which attempt at a stage may change what lies outside of its own folder: a number in a file that both sides lock.

The coordinator writes it before it lets an attempt begin, and takes it away before it gives one up. Whoever does the
work looks at it immediately before the change, and holds it shared until the change is made: an attempt that was
replaced while it slept wakes up to find another number there, and the number cannot change under one that found its
own. It is right while the coordinator is down, for then nobody replaces anything.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cutoff.errors import Refused, Unavailable

FENCE = "counts"
"""The file's name, beside the attempts' folders: jobs/<job>/<stage>/counts."""

NOBODY = 0
"""No attempt counts; attempts begin at 1."""

_PATIENCE = 10.0
"""Seconds that a change under way is waited for: it is a rename."""


def let_count(stage_folder: Path, attempt: int) -> None:
    """From now on this attempt counts and no other; returns when no other is in the middle of its change.

    Args:
        stage_folder: jobs/<job>/<stage>; made when missing.
        attempt: Its number, or NOBODY.

    Raises:
        Unavailable: Another attempt has been in the middle of its change for seconds (its process is stopped, say).
    """
    stage_folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(stage_folder / FENCE, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        _lock(descriptor, stage_folder)
        os.pwrite(descriptor, b"%-10d\n" % attempt, 0)  # of one length: never a mixture of two numbers
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def counting(stage_folder: Path, attempt: int) -> Iterator[None]:
    """A block in which this attempt counts, and no other begins to.

    Raises:
        Refused: It does not count (any more).
    """
    stale = Refused(f"attempt {attempt} in {stage_folder} does not count any more", "its coordinator gave it up")
    try:
        descriptor = os.open(stage_folder / FENCE, os.O_RDWR)
    except FileNotFoundError:
        raise stale from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        if os.pread(descriptor, 16, 0).strip() != b"%d" % attempt:
            raise stale
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, stage_folder: Path) -> None:
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise Unavailable(f"an attempt in {stage_folder} is in the middle of its change", "") from None
            time.sleep(0.05)
        else:
            return
