"""Room on the disks, asked for before work starts."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cutoff.errors import DiskFull

GIB = 1 << 30

MARGIN = 0.05
"""The share of what will be written that is to be free on top."""


@dataclass(frozen=True, slots=True)
class DiskNeed:
    """Something that will be written."""

    what: str
    folder: Path
    """Where; it need not exist yet."""
    size_bytes: int


@dataclass(frozen=True, slots=True)
class FileSystem:
    """What one file system must take, and has."""

    path: Path
    """A folder on it that exists."""
    needs: tuple[DiskNeed, ...]
    free_bytes: int

    @property
    def needed_bytes(self) -> int:
        """All that will be written there."""
        return sum(need.size_bytes for need in self.needs)

    @property
    def lacking_bytes(self) -> int:
        """What has to be freed there, the margin included; 0 where there is room."""
        return max(0, int(self.needed_bytes * (1 + MARGIN)) - self.free_bytes)

    @property
    def suffices(self) -> bool:
        """Whether there is room."""
        return not self.lacking_bytes


def size_on_disk(folder: Path) -> int:
    """The bytes of all files below a folder, symbolic links followed (a Hugging Face cache is made of them)."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def file_systems(needs: Iterable[DiskNeed]) -> tuple[FileSystem, ...]:
    """The needs by the file system they are on, each with what is free there."""
    found: dict[int, FileSystem] = {}
    for need in needs:
        path = _existing(need.folder)
        device = path.stat().st_dev
        before = found.get(device) or FileSystem(path, (), shutil.disk_usage(path).free)
        found[device] = replace(before, needs=(*before.needs, need))
    return tuple(found.values())


def same_file_system(one: Path, other: Path) -> bool:
    """Whether two folders, or the first of their parents that exist, lie on one file system."""
    return _existing(one).stat().st_dev == _existing(other).stat().st_dev


def require_room(needs: Sequence[DiskNeed], purpose: str) -> None:
    """Refuses work for which any file system lacks room; nothing is written before all of them have it.

    Raises:
        DiskFull: Each such file system is named with what was to be written there, and its shortfall in GiB.
    """
    short = [each for each in file_systems(needs) if not each.suffices]
    if not short:
        return
    freed = "; ".join(f"free {_gib(each.lacking_bytes)} at {each.path}" for each in short)
    raise DiskFull(
        "\n".join([f"{purpose} does not fit on the disk:", *map(_told, short)]),
        f"{freed}; or move that folder to a larger disk, ask for fewer or smaller types (convert.quant_types), "
        "or take a smaller model",
    )


def _told(short: FileSystem) -> str:
    needs = ", ".join(f"{need.what} {_gib(need.size_bytes)}" for need in short.needs)
    return (
        f"  {short.path}: needs {_gib(int(short.needed_bytes * (1 + MARGIN)))}, has {_gib(short.free_bytes)} free, "
        f"lacks {_gib(short.lacking_bytes)}\n    ({needs})"
    )


def require_space(folder: Path, needed_bytes: int, purpose: str, margin: float = MARGIN) -> None:
    """Refuses work that would fill the file system of a folder.

    Args:
        folder: Where it will be written; it need not exist yet.
        needed_bytes: What will be written.
        purpose: What for, in the error's words.
        margin: The share of `needed_bytes` to keep free on top.

    Raises:
        DiskFull: The shortfall is named in GiB.
    """
    free = shutil.disk_usage(_existing(folder)).free
    wanted = int(needed_bytes * (1 + margin))
    if free < wanted:
        raise DiskFull(
            f"{purpose} needs {wanted / GIB:.2f} GiB on the file system of {folder}, {free / GIB:.2f} GiB are free",
            f"free {(wanted - free) / GIB:.2f} GiB there, or move the folder to a larger disk",
        )


def _existing(folder: Path) -> Path:
    """A folder, or the first of its parents that exists."""
    return next(path for path in (folder, *folder.absolute().parents) if path.exists())


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / GIB:.2f} GiB"
