"""Room on the disk, asked for before work starts."""

from __future__ import annotations

import shutil
from pathlib import Path

from cutoff.errors import DiskFull

GIB = 1 << 30


def size_on_disk(folder: Path) -> int:
    """The bytes of all files below a folder, symbolic links followed (a Hugging Face cache is made of them)."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def require_space(folder: Path, needed_bytes: int, purpose: str, margin: float = 0.05) -> None:
    """Refuses work that would fill the file system of a folder.

    Args:
        folder: Where it will be written; it need not exist yet.
        needed_bytes: What will be written.
        purpose: What for, in the error's words.
        margin: The share of `needed_bytes` to keep free on top.

    Raises:
        DiskFull: The shortfall is named in GiB.
    """
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    wanted = int(needed_bytes * (1 + margin))
    if free < wanted:
        raise DiskFull(
            f"{purpose} needs {wanted / GIB:.2f} GiB on the file system of {folder}, {free / GIB:.2f} GiB are free",
            f"free {(wanted - free) / GIB:.2f} GiB there, or move the folder to a larger disk",
        )
