"""Counts how often a file appears under a final name in a folder (Linux: inotify(7)), whoever puts it there."""

from __future__ import annotations

import ctypes
import os
import struct
from pathlib import Path

_IN_CREATE, _IN_MOVED_TO = 0x100, 0x80


class Appearances:
    """From its making on, the names of files that appeared in a folder; hidden names are not final ones."""

    def __init__(self, folder: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if libc.inotify_add_watch(self._descriptor, os.fsencode(folder), _IN_CREATE | _IN_MOVED_TO) < 0:
            raise OSError(ctypes.get_errno(), f"inotify on {folder}")

    def take(self) -> list[str]:
        """What has appeared since the last call."""
        found = []
        try:
            while data := os.read(self._descriptor, 65536):
                while data:
                    length = struct.unpack_from("iIII", data)[3]
                    found.append(data[16 : 16 + length].rstrip(b"\0").decode())
                    data = data[16 + length :]
        except BlockingIOError:
            pass
        return [name for name in found if not name.startswith(".")]

    def close(self) -> None:
        os.close(self._descriptor)
