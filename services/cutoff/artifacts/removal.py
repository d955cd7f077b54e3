"""Removes files and folders so that none is ever seen half-removed, and says what that frees."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path


def freed_bytes(paths: Iterable[Path]) -> int:
    """What removing files and folders frees: a file whose other names stay frees nothing (checkpoints are linked)."""
    names: dict[tuple[int, int], int] = {}
    files: dict[tuple[int, int], tuple[int, int]] = {}
    for path in paths:
        for file in (path, *path.rglob("*")) if path.is_dir() else (path,):
            if file.is_symlink() or not file.is_file():
                continue
            status = file.stat()
            mark = (status.st_dev, status.st_ino)
            names[mark] = names.get(mark, 0) + 1
            files[mark] = (status.st_nlink, status.st_size)
    return sum(size for mark, (links, size) in files.items() if names[mark] >= links)


def remove(paths: Iterable[Path]) -> None:
    """Removes files and folders; each loses its name in one step before its content goes.

    Raises:
        OSError: One cannot be removed.
    """
    for path in paths:
        aside = aside_of(path)
        _unlink(aside)  # of an interrupted collection
        if path.exists():
            path.rename(aside)
            _unlink(aside)


def aside_of(path: Path) -> Path:
    """The name under which something waits for its removal."""
    return path.with_name(f".{path.name}.removed")


def _unlink(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
