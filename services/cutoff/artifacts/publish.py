"""Nothing half-written is ever visible under a final name.

A folder is filled under a sibling name `.<name>.partial`, of which there is one; a file in a sibling folder
`.<name>.<random>.partial`, of which each writer has its own. It gets its name by a rename, after its bytes are on the
disk. Whoever writes holds a lock on that folder. Whatever ends a run early leaves at most `.partial` names: the service
sweeps them once the child is gone, and so does the next writer of the same name, unless their lock is held.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from cutoff.errors import AlreadyExists

MANIFEST = "manifest.json"
"""In each published folder: every file's size and SHA-256."""

_PARTIAL = ".partial"

_TRIES = 8

_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
"""What link(2) says where a file cannot have a second name, on FAT and exFAT say."""


@dataclass(frozen=True, slots=True)
class Published:
    """A complete file or folder under its final name."""

    path: Path
    size_bytes: int
    sha256: str
    """Of the file's content; for a folder, of its manifest."""


@contextmanager
def publishing(path: Path, replace: bool = True) -> Iterator[Path]:
    """Yields a temporary sibling to write a file into; renames it to `path` when the block ends well.

    When the block raises, nothing stays.

    Args:
        path: The file's name.
        replace: Whether a file that has this name by the end of the block is replaced, in one step.

    Raises:
        AlreadyExists: There is one, and it is not to be replaced.
    """
    with scratch_beside(path, f"{path.name}{_PARTIAL}") as partial:
        yield partial
        _sync(partial)
        if replace:
            partial.replace(path)
        else:
            _name_once(partial, path)
        _sync(path.parent)


@contextmanager
def scratch_beside(path: Path, name: str) -> Iterator[Path]:
    """Yields a file's name in a hidden folder beside `path`, this writer's alone; whatever is there goes afterwards.

    First removes what writers of the same `path` left that were killed.

    Args:
        path: What the file is for; its folder is made when missing.
        name: The file's.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep_abandoned(path)
    with _folder_of_ones_own(path) as folder:
        try:
            yield folder / name
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def publishing_folder(path: Path, hashed: Mapping[str, str] | None = None) -> Iterator[Path]:
    """Yields an empty temporary sibling folder to fill; writes its manifest and renames it to `path`.

    Args:
        path: The folder's name.
        hashed: SHA-256 of files in it, by name, from whoever wrote them; they are not read again. It may be filled
            until the block ends.

    Raises:
        AlreadyExists: `path` is there: a published folder never changes. Or another process is writing it.
    """
    _require_free(path)
    partial = _partial_of(path)
    with _alone_in(partial):
        try:
            yield partial
            _write_manifest(partial, hashed or {})
            _require_free(path)
            partial.rename(path)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
    _sync(path.parent)


def describe(path: Path) -> Published:
    """Size and SHA-256 of something published; a folder is described by its manifest."""
    if path.is_dir():
        manifest = path / MANIFEST
        sizes = json.loads(manifest.read_text())["files"]
        return Published(path, sum(entry["size_bytes"] for entry in sizes.values()), sha256_of(manifest))
    return Published(path, path.stat().st_size, sha256_of(path))


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's content, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sweep_partials(folder: Path) -> list[Path]:
    """Removes what interrupted publishing left below a folder; returns what it removed."""
    found = [path for path in folder.rglob(f".*{_PARTIAL}") if path.exists()]
    for path in found:
        remove_partial(path)
    return found


def remove_partial(path: Path) -> None:
    """Removes a file, a link (not what it leads to), or a folder with all that is in it; nothing where none is."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _sweep_abandoned(path: Path) -> None:
    """Removes the folders of writers of this path that hold no lock any more: they were killed."""
    for folder in path.parent.glob(f".{glob.escape(path.name)}.*{_PARTIAL}"):
        with contextlib.suppress(AlreadyExists, OSError), _alone_in(folder):
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _folder_of_ones_own(path: Path) -> Iterator[Path]:
    """Makes a folder that no other writer has, and holds its lock.

    A sweeper may take it for abandoned in the moment before the lock: then another one is made.
    """
    with ExitStack() as held:
        for tries_left in reversed(range(_TRIES)):
            folder = path.with_name(f".{path.name}.{secrets.token_hex(4)}{_PARTIAL}")
            try:
                held.enter_context(_alone_in(folder))
                break
            except (AlreadyExists, FileNotFoundError):
                if not tries_left:
                    raise
        yield folder


def _partial_of(path: Path) -> Path:
    return path.with_name(f".{path.name}{_PARTIAL}")


def _require_free(path: Path) -> None:
    if path.exists():
        raise AlreadyExists(f"{path} is there already", "choose another output folder, or remove it")


@contextmanager
def _alone_in(partial: Path) -> Iterator[None]:
    """Makes a folder, or empties what a killed writer left, and holds its lock; the lock moves with the folder.

    Raises:
        AlreadyExists: Another writer holds it.
    """
    partial.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(partial, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            ours = os.path.samestat(os.fstat(descriptor), partial.stat())
        except (BlockingIOError, FileNotFoundError):
            ours = False  # written by another, or renamed by another a moment ago
        if not ours:
            what = f"{partial} is being written by another run"
            raise AlreadyExists(what, "wait for its end, or choose another output folder")
        for leftover in partial.iterdir():
            remove_partial(leftover)
        yield
    finally:
        os.close(descriptor)


def _name_once(partial: Path, path: Path) -> None:
    """Gives a file its name unless that is taken: a link, unlike a rename, never replaces anything."""
    try:
        os.link(partial, path)
    except FileExistsError:
        taken = True
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        taken = os.path.lexists(path)  # there is no better way on such a file system
        if not taken:
            partial.rename(path)
    else:
        taken = False
    if taken:
        raise AlreadyExists(f"{path} was put there meanwhile; it stays as it is", "move it away, and try again")


def _write_manifest(folder: Path, hashed: Mapping[str, str]) -> None:
    files = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        path.chmod(0o644)  # safetensors writes 0600, but the next stage may run under another user
        _sync(path)
        name = str(path.relative_to(folder))
        files[name] = {"size_bytes": path.stat().st_size, "sha256": hashed.get(name) or sha256_of(path)}
    manifest = folder / MANIFEST
    manifest.write_text(json.dumps({"files": files}, indent=2) + "\n")
    _sync(manifest)


def _sync(path: Path) -> None:
    """Makes the disk hold what was written to a file, or the names in a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
