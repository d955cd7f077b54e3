"""What cutoff put into LM Studio's tree, written down outside of it: LM Studio wants nothing else in there.

One record per model folder, below the artifacts root; its lock keeps two installations into one folder apart.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from cutoff.artifacts import publishing, sha256_of

RECORDS = "installed"
"""The folder of the records, below the artifacts root."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A file as it was when cutoff put it there."""

    sha256: str
    size_bytes: int
    mtime_ns: int


class Record:
    """What cutoff put into one model folder."""

    def __init__(self, path: Path, folder: Path) -> None:
        self._path = path
        self._folder = folder
        files = json.loads(path.read_text())["files"] if path.is_file() else []
        self._entries = [Entry(**file) for file in files]

    @classmethod
    def of(cls, folder: Path, records: Path) -> Record:
        """The record of a model folder as it is now; empty when nothing was installed in it."""
        mark = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:12]  # models roots may differ
        return cls(records / f"{folder.parent.name}-{folder.name}-{mark}.json", folder)

    @classmethod
    @contextmanager
    def locked(cls, folder: Path, records: Path, wait: bool = True) -> Iterator[Record]:
        """The record, while no other process installs into the same folder.

        Raises:
            BlockingIOError: One does, and this one does not wait.
        """
        records.mkdir(parents=True, exist_ok=True)
        lock = cls.of(folder, records)._path.with_suffix(".lock")
        with lock.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            yield cls.of(folder, records)

    def add(self, sha256: str, path: Path) -> None:
        """Writes down a file that is about to be installed."""
        status = path.stat()
        self._write([*self._others(sha256), Entry(sha256, status.st_size, status.st_mtime_ns)])

    def forget(self, sha256: str) -> None:
        """Strikes out a file that was removed."""
        self._write(self._others(sha256))

    def has(self, path: Path) -> bool:
        """Whether cutoff put this file there, and nobody has changed it since."""
        return path.is_file() and not path.is_symlink() and self._entry_of(path) is not None

    def sha256_of(self, path: Path) -> str:
        """The SHA-256 of a file in the folder. One that cutoff put there is not read again unless its date changed."""
        entry = self._entry_of(path)
        return entry.sha256 if entry else sha256_of(path)

    def _entry_of(self, path: Path) -> Entry | None:
        status = path.stat()
        alike = [entry for entry in self._entries if entry.size_bytes == status.st_size]
        dated = [entry for entry in alike if entry.mtime_ns == status.st_mtime_ns]
        if dated or not alike:
            return dated[0] if dated else None
        content = sha256_of(path)
        return next((entry for entry in alike if entry.sha256 == content), None)

    def _others(self, sha256: str) -> list[Entry]:
        return [entry for entry in self._entries if entry.sha256 != sha256]

    def _write(self, entries: list[Entry]) -> None:
        self._entries = entries
        content = {"folder": str(self._folder), "files": [asdict(entry) for entry in entries]}
        with publishing(self._path) as partial:
            partial.write_text(json.dumps(content, indent=2) + "\n")
