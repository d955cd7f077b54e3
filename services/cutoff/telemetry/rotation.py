"""Keeps a log that processes hold open from growing for ever: its content is copied aside, and the file cut to nothing.

As logrotate's copytruncate: the writers, which append, go on with the same file and need not be told. What they
write in the moment between copying and cutting is lost.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from cutoff.errors import Refused

MIB = 1 << 20
DEFAULT_MIB = 64


def limit_bytes() -> int:
    """CUTOFF_LOG_MIB: how long a log file may grow; default 64. 0 means that it is not limited.

    Raises:
        Refused: It is not a number.
    """
    given = os.environ.get("CUTOFF_LOG_MIB") or str(DEFAULT_MIB)
    if not given.isdigit():
        raise Refused(f"CUTOFF_LOG_MIB={given} is not a number of MiB", "set it to 64, say; 0 means no limit")
    return int(given) * MIB


def rotated(path: Path) -> Path:
    """Where a log's earlier lines are: log.1.txt for log.txt."""
    return path.with_name(f"{path.stem}.1{path.suffix}")


def rotate(path: Path, limit: int) -> bool:
    """Rotates a log that has grown beyond a limit; of its earlier lines one file is kept.

    Args:
        path: The log, which others append to (O_APPEND).
        limit: Bytes; 0 means none.

    Returns:
        Whether it was rotated.
    """
    if path.stem.endswith(".1") or not limit or not path.is_file() or path.stat().st_size <= limit:
        return False
    partial = path.with_name(f".{path.name}.partial")
    shutil.copyfile(path, partial)
    os.truncate(path, 0)
    partial.replace(rotated(path))
    return True
