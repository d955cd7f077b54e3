"""Says by content what is evaluated, so that answers of one model are never taken for another's.

What it is computed on belongs to it: a GPU in 16 bit rounds other than a processor in 32.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from cutoff.artifacts import MANIFEST, sha256_of
from cutoff.errors import NotFound


def folder_identity(folder: Path, devices: Sequence[str]) -> str:
    """Of a model's or an adapter's files.

    A folder cutoff published has its files' SHA-256 in a manifest; of another one every file is read, at the speed of
    the disk, and the model is then loaded from memory.

    Raises:
        NotFound: There is no such folder.
    """
    return f"{_content(folder)} {_kind(devices)}"


def adapter_identity(base: Path, adapter: Path, quantization: str, devices: Sequence[str]) -> str:
    """Of an adapter beside its base.

    Raises:
        NotFound: One of the folders is not there.
    """
    return f"{_content(base)} {_content(adapter)} {quantization} {_kind(devices)}"


def file_identity(gguf: Path, devices: Sequence[str]) -> str:
    """Of a GGUF.

    Raises:
        NotFound: There is no such file.
    """
    if not gguf.is_file():
        raise NotFound(f"{gguf} is not a file", "give the path of a GGUF")
    return f"{sha256_of(gguf)} {_kind(devices)}"


def server_identity(url: str, model: str | None) -> str:
    """A server says by what name it serves a model, not what is in it."""
    return f"{url} {model}"


def _content(folder: Path) -> str:
    if not folder.is_dir():
        raise NotFound(f"there is no folder {folder}", "give the folder of a model or adapter")
    if (folder / MANIFEST).is_file():
        return sha256_of(folder / MANIFEST)
    files = sorted(path for path in folder.iterdir() if path.is_file())
    lines = [f"{sha256_of(path)}  {path.name}\n" for path in files]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _kind(devices: Sequence[str]) -> str:
    return devices[0].partition(":")[0] if devices else "cpu"
