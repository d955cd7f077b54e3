"""A cache of folders, each named by a hash of everything its content follows from.

An entry appears complete or not at all, and is verified by its manifest's SHA-256 sums whenever it is used; a damaged
one is removed. Writers of the same entry do not disturb each other: each writes a folder of its own, and the first one
gets the name. Where the cache cannot be written, its users do the work in a temporary folder instead.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from cutoff.artifacts import GIB, publishing_folder, sha256_of, size_on_disk
from cutoff.errors import Fault, InvalidInput

LIMIT_VARIABLE = "CUTOFF_TOKENIZED_CACHE_GIB"
_DEFAULT_LIMIT_GIB = 10.0
_MANIFEST = "manifest.json"
_RECENT = 600.0
"""Seconds for which an entry that was used stays, whatever the limit: somebody may be about to open its files."""

_ABANDONED = 24 * 3600.0
"""Seconds after which an unfinished entry belongs to nobody."""

Fill = Callable[[Path], None]
"""Writes an entry's files into an empty folder."""


class ContentCache:
    """Folders by the hash of what they are made from.

    Args:
        folder: Holds the entries; made when the first is published.
        limit_bytes: Above this size the entries that were not used for longest are removed.
    """

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self._folder = folder
        self._limit_bytes = limit_bytes

    @classmethod
    def below(cls, cache: Path) -> Self:
        """The cache of checked and tokenized data below the cache root, as large as the environment allows.

        Raises:
            InvalidInput: The variable is no number.
        """
        given = os.environ.get(LIMIT_VARIABLE) or _DEFAULT_LIMIT_GIB
        try:
            limit = int(float(given) * GIB)
        except (ValueError, OverflowError):
            fix = "set it to a number of GiB, or leave it out"
            raise InvalidInput([Fault(LIMIT_VARIABLE, f"{given!r} is not a number", fix)]) from None
        return cls(cache / "tokenized", limit)

    @staticmethod
    def key(*parts: object) -> str:
        """The name of the entry that follows from these parts (JSON values)."""
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def load(self, key: str) -> Path | None:
        """The folder of an entry, verified; None when it is not there or was damaged, in which case it is removed."""
        entry = self._folder / key
        if not entry.is_dir():
            return None
        try:
            whole = _is_whole(entry)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            whole = False
        if not whole:
            self._remove(entry)
            return None
        _touch(entry)
        return entry

    def publish(self, key: str, fill: Fill) -> Path | None:
        """Makes an entry and gives it its name; None where the cache cannot be written."""
        if not self._is_writable():
            return None
        entry, own = self._folder / key, self._folder / f"{key}.{uuid.uuid4().hex}"
        with publishing_folder(own) as partial:
            fill(partial)
        try:
            own.rename(entry)
        except OSError:  # another writer was first, or what is there is damaged and not ours to remove
            shutil.rmtree(own, ignore_errors=True)
            return self.load(key)
        self._prune()
        return entry

    @contextmanager
    def filled(self, key: str, fill: Fill) -> Iterator[Path]:
        """Yields the folder of an entry, which is made when it is not there.

        The folder may be gone after the block; what was mapped into memory stays.
        """
        entry = self.load(key) or self.publish(key, fill)
        if entry is not None:
            yield entry
            return
        with tempfile.TemporaryDirectory(prefix="cutoff-") as folder:
            fill(Path(folder))
            yield Path(folder)

    def _is_writable(self) -> bool:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            return False
        return os.access(self._folder, os.W_OK | os.X_OK)

    def _prune(self) -> None:
        """Removes what is unfinished and old, then the entries that were used longest ago until the rest fits."""
        now, kept = time.time(), 0
        for used, entry in sorted(_by_use(self._folder), reverse=True):
            age = now - used
            if "." in entry.name:
                if age > _ABANDONED:
                    shutil.rmtree(entry, ignore_errors=True)
                continue
            try:
                kept += size_on_disk(entry)
            except OSError:  # another process removes it
                continue
            if kept > self._limit_bytes and age > _RECENT:
                self._remove(entry)

    def _remove(self, entry: Path) -> None:
        """Takes an entry's name away, then its files: nobody finds half of it."""
        aside = entry.with_name(f".{entry.name}.{uuid.uuid4().hex}.partial")
        try:
            entry.rename(aside)
        except OSError:  # gone already, or not ours to remove
            return
        shutil.rmtree(aside, ignore_errors=True)


def _is_whole(entry: Path) -> bool:
    files = json.loads((entry / _MANIFEST).read_bytes())["files"]
    return all(
        (entry / name).stat().st_size == wanted["size_bytes"] and sha256_of(entry / name) == wanted["sha256"]
        for name, wanted in files.items()
    )


def _touch(entry: Path) -> None:
    """Says that an entry is used; in a cache that can only be read, nobody needs to know."""
    try:
        os.utime(entry)
    except OSError:
        return


def _by_use(folder: Path) -> Iterator[tuple[float, Path]]:
    for entry in folder.iterdir():
        try:
            yield entry.stat().st_mtime, entry
        except OSError:  # removed meanwhile
            continue
