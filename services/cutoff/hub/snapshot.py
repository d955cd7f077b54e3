"""One commit of one hub model in the shared cache (HF_HOME), in huggingface_hub's layout.

Beside it, `cutoff/<commit>.json` lists the files that were wanted, with their sizes. It is written before the first
of them is fetched: without a network it tells a complete snapshot from a half-fetched one.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cutoff.artifacts import publishing
from cutoff.hub.download import PART

_COMMIT = re.compile("[0-9a-f]{40}")
_LOOK_AGAIN = 0.5


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Where the files of a commit are, or will be."""

    hub_id: str
    commit: str

    @property
    def folder(self) -> Path:
        """Holds the files under their names."""
        return repository_folder(self.hub_id) / "snapshots" / self.commit

    @property
    def blobs(self) -> Path:
        """Holds their contents, named by hash."""
        return repository_folder(self.hub_id) / "blobs"

    def wanted(self) -> Mapping[str, int] | None:
        """The files this snapshot should have, with their sizes; None where another program fetched it."""
        try:
            files: dict[str, int] = json.loads(self._list.read_text("utf-8"))
        except (OSError, ValueError):
            return None
        return files

    def want(self, sizes: Mapping[str, int]) -> None:
        """Notes which files are about to be fetched."""
        if self.wanted() != sizes:
            with publishing(self._list) as partial:
                partial.write_text(json.dumps(sizes, indent=2) + "\n", encoding="utf-8")

    def lacking(self, sizes: Mapping[str, int]) -> dict[str, int]:
        """Those of the files that are not there, or not whole; a mirror may not tell sizes (0)."""
        found = {name: _size(self.folder / name) for name in sizes}
        return {name: size for name, size in sizes.items() if found[name] is None or found[name] != size > 0}

    def is_complete(self) -> bool:
        """Whether everything that was wanted is there; False where nobody noted what that is."""
        wanted = self.wanted()
        return wanted is not None and not self.lacking(wanted)

    def bytes_there(self, sizes: Mapping[str, int], hashes: Mapping[str, str]) -> int:
        """What has come so far of some files, parts of them included.

        Args:
            sizes: The files.
            hashes: By which their contents are named; a mirror may not tell them.
        """
        lacking = self.lacking(sizes)
        whole = sum(size for name, size in sizes.items() if name not in lacking)
        return whole + self.come_of(lacking, hashes)

    def come_of(self, lacking: Mapping[str, int], hashes: Mapping[str, str]) -> int:
        """The bytes that have come of files that lack: parts, and what another commit has too.

        Parts of other commits' files lie beside them, and do not count.

        Args:
            lacking: The files, with their sizes.
            hashes: By which their contents are named.
        """
        blobs = {self.blobs / hashes[name]: size for name, size in lacking.items() if name in hashes}
        come = {blob: _size(blob) or _size(blob.with_name(blob.name + PART)) or 0 for blob in blobs}
        return sum(min(size, come[blob]) for blob, size in blobs.items())

    def place(self, name: str, blob: Path) -> None:
        """Gives a content its name in the snapshot: a relative link, as huggingface_hub makes it."""
        target = self.folder / name
        link = target.with_name(f"{target.name}.link")
        target.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        try:
            link.symlink_to(os.path.relpath(blob, target.parent))
        except OSError:  # a disk without links
            blob.replace(target)
        else:
            link.replace(target)

    def remember(self, revision: str | None) -> None:
        """Notes which commit a branch or tag is, for a time without a network.

        Git knows no name with "..", nor one that begins with "/": they would lead out of the cache.
        """
        if revision == self.commit or ".." in (revision or "") or (revision or "").startswith("/"):
            return
        with publishing(repository_folder(self.hub_id) / "refs" / (revision or "main")) as partial:
            partial.write_text(self.commit, encoding="utf-8")

    @contextmanager
    def locked(self, while_waiting: Callable[[], None]) -> Iterator[None]:
        """Holds this snapshot's lock: of two jobs that want it at once, one fetches it and the other waits.

        Args:
            while_waiting: Called about twice a second until the lock is free.
        """
        path = hub_cache() / ".locks" / repository_folder(self.hub_id).name / f"cutoff-{self.commit}.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o664)
        try:
            while not _try_lock(descriptor):
                while_waiting()
                time.sleep(_LOOK_AGAIN)
            yield
        finally:
            os.close(descriptor)

    @property
    def _list(self) -> Path:
        return repository_folder(self.hub_id) / "cutoff" / f"{self.commit}.json"


def cached_snapshot(hub_id: str, revision: str | None) -> Snapshot | None:
    """The snapshot that a revision was when it was last asked for; None where the cache has nothing of it."""
    commit = revision or "main"
    if not is_commit(commit):
        try:
            commit = (repository_folder(hub_id) / "refs" / commit).read_text("utf-8").strip()
        except (OSError, ValueError):
            return None
    if not is_commit(commit):
        return None
    snapshot = Snapshot(hub_id, commit)
    return snapshot if snapshot.folder.is_dir() or snapshot.wanted() is not None else None


def is_commit(revision: str | None) -> bool:
    """Whether a revision is the full hash of a commit, which never changes."""
    return bool(_COMMIT.fullmatch(revision or ""))


def repository_folder(hub_id: str) -> Path:
    """A model's folder in the shared cache."""
    return hub_cache() / f"models--{hub_id.replace('/', '--')}"


def hub_cache() -> Path:
    """The shared cache's folder."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
