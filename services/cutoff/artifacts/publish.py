"""Nothing half-written is ever visible under a final name.

Work goes into a sibling `.<name>.partial`; it gets its name by a rename, after its bytes are on the disk.
Whatever ends a run early leaves at most `.partial` names, which the service sweeps once the child is gone.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cutoff.errors import AlreadyExists

MANIFEST = "manifest.json"
"""In each published folder: every file's size and SHA-256."""

_PARTIAL = ".partial"


@dataclass(frozen=True, slots=True)
class Published:
    """A complete file or folder under its final name."""

    path: Path
    size_bytes: int
    sha256: str
    """Of the file's content; for a folder, of its manifest."""


@contextmanager
def publishing(path: Path) -> Iterator[Path]:
    """Yields a temporary sibling to write a file into; renames it to `path` when the block ends well.

    An existing file of that name is replaced in one step. When the block raises, nothing stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial_of(path)
    try:
        yield partial
        _sync(partial)
        partial.replace(path)
        _sync(path.parent)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def publishing_folder(path: Path, hashed: Mapping[str, str] | None = None) -> Iterator[Path]:
    """Yields an empty temporary sibling folder to fill; writes its manifest and renames it to `path`.

    Args:
        path: The folder's name.
        hashed: SHA-256 of files in it, by name, from whoever wrote them; they are not read again. It may be filled
            until the block ends.

    Raises:
        AlreadyExists: `path` is there: a published folder never changes.
    """
    if path.exists():
        raise AlreadyExists(f"{path} is there already", "choose another output folder, or remove it")
    partial = _partial_of(path)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        _write_manifest(partial, hashed or {})
        partial.rename(path)
        _sync(path.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


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
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    return found


def _partial_of(path: Path) -> Path:
    return path.with_name(f".{path.name}{_PARTIAL}")


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
