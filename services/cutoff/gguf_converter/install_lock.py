"""Keeps two installations into one model folder apart, also those of different artifacts roots."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_NO_LOCKS = (errno.EBADF, errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOLCK, errno.EINVAL)
"""What flock(2) says where a folder cannot be locked, on NFS say; the record's lock is all there is then."""


@contextmanager
def alone_in(folder: Path, make: Callable[[], None] = lambda: None, wait: bool = True) -> Iterator[None]:
    """Locks the model folder itself: a container and a command on the host share it, if nothing else.

    Args:
        folder: Of a model.
        make: Makes it; called again when an uninstallation removed the folder that was waited for.
        wait: Whether to wait for another installation.

    Raises:
        BlockingIOError: There is one, and it is not waited for.
        FileNotFoundError: There is no such folder.
    """
    while True:
        make()
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            _lock(descriptor, wait)
            if _is(folder, descriptor):
                yield
                return
        finally:
            os.close(descriptor)


def _lock(descriptor: int, wait: bool) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise


def _is(folder: Path, descriptor: int) -> bool:
    """Whether the folder of this name is still the one that was opened."""
    try:
        return os.path.samestat(folder.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
