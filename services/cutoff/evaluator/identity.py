"""Says by content what is evaluated, so that answers of one model are never taken for another's."""

from __future__ import annotations

import hashlib
from pathlib import Path

from cutoff.artifacts import MANIFEST, sha256_of


def folder_identity(folder: Path) -> str:
    """A digest of a model's or an adapter's files.

    A folder cutoff published has its files' SHA-256 in a manifest; of another one every file is read, at about the
    speed of the disk, and the model is loaded from memory afterwards.
    """
    if (folder / MANIFEST).is_file():
        return sha256_of(folder / MANIFEST)
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    lines = [f"{sha256_of(path)}  {path.name}\n" for path in files]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def server_identity(url: str, model: str | None) -> str:
    """A server says by what name it serves a model, not what is in it."""
    return f"{url} {model}"
