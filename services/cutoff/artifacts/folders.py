"""Where things are: the roots from the environment, and the folder of each attempt."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cutoff.errors import Fault, InvalidInput, Refused

BASE_MODEL_PATHS = "CUTOFF_BASE_MODEL_PATHS"
"""Environment: the folders, separated by colons, below which a job may name its base model's folder."""

_LONGEST_PATH, _LONGEST_NAME = 4096, 255
"""Bytes, as Linux has them."""

_LONGEST_PLAIN = 200
"""Bytes: something is put before or behind such a name."""

_SHOWN = 80
"""Characters of a hostile string that are shown."""


@dataclass(frozen=True, slots=True)
class Roots:
    """The folders cutoff reads and writes, each from an environment variable with a default."""

    datasets: Path
    """CUTOFF_DATASETS, default ./datasets: what dataset paths are relative to."""
    artifacts: Path
    """CUTOFF_ARTIFACTS, default ./output: the jobs' folders."""
    models: Path
    """LMSTUDIO_MODELS, default /mnt/data/lmstudio/models: where a GGUF is installed."""
    cache: Path
    """CUTOFF_CACHE, default ~/.cache/cutoff: llama.cpp, the demo's base models."""

    @classmethod
    def from_environment(cls) -> Roots:
        """Reads the variables as they are now; every path is made absolute."""

        def root(variable: str, default: str) -> Path:
            return Path(os.environ.get(variable) or default).expanduser().absolute()

        return cls(
            datasets=root("CUTOFF_DATASETS", "datasets"),
            artifacts=root("CUTOFF_ARTIFACTS", "output"),
            models=root("LMSTUDIO_MODELS", "/mnt/data/lmstudio/models"),
            cache=root("CUTOFF_CACHE", "~/.cache/cutoff"),
        )


def attempt_folder(artifacts: Path, job: str, stage: str, attempt: int) -> Path:
    """jobs/<job>/<stage>/<attempt> below the artifacts root; an attempt writes nowhere else.

    Raises:
        InvalidInput: The job or stage is not a plain name.
    """
    return inside(artifacts, f"jobs/{_plain(job)}/{_plain(stage)}/{attempt}")


def inside(root: Path, relative: str) -> Path:
    """The path below a root that a user's relative path names.

    An absolute path is accepted when it lies below the root.

    Raises:
        InvalidInput: The path leaves the root, by .., a symbolic link or otherwise, is longer than any file's, or
            holds a NUL or another control character.
    """
    resolved_root = root.resolve()
    resolved = _resolved(resolved_root, relative)
    if not resolved.is_relative_to(resolved_root):
        raise InvalidInput([Fault(relative, f"leaves {root}", "give a path below that folder")])
    return resolved


def model_folder(name: str, more: Sequence[Path] = ()) -> Path:
    """The folder of a base model, if one may be read there.

    Args:
        name: A folder; ~ is this user's home.
        more: Further folders below which models may be.

    Raises:
        InvalidInput: It is no path, or lies in none of the folders of CUTOFF_BASE_MODEL_PATHS. Where the variable is
            not set any folder will do; a service sets it to "" for itself (`close_folders`).
    """
    given = resolved(name)
    named = os.environ.get(BASE_MODEL_PATHS)
    if named is None:
        return given
    allowed = [*(Path(folder).expanduser() for folder in named.split(os.pathsep) if folder), *more]
    if not any(given.is_relative_to(folder.resolve()) for folder in allowed):
        what = f"lies in none of the folders from which this server takes base models ({named or 'none is named'})"
        fix = (
            f"put the model into one of them, give a hub id, or start the server with its folder in {BASE_MODEL_PATHS}"
        )
        raise InvalidInput([Fault(name, what, fix)])
    return given


def close_folders() -> None:
    """For a process that works for others: what its operator does not name is closed, here and in its children."""
    os.environ.setdefault(BASE_MODEL_PATHS, "")


def resolved(path: str) -> Path:
    """What a path leads to, links followed; ~ is this user's home, and it need not be there.

    Raises:
        InvalidInput: No file can have this path.
    """
    try:
        return _resolved(Path.cwd(), str(Path(path).expanduser()) if path.startswith("~") else path)
    except RuntimeError as error:  # ~somebody who is not there
        raise InvalidInput([Fault(ascii(path)[:_SHOWN], "names no user's folder", "give a plain path")]) from error


def _resolved(root: Path, path: str) -> Path:
    """What a path below a root leads to, links followed; it need not be there.

    Raises:
        InvalidInput: No file can have this path.
    """
    if any(unicodedata.category(char) == "Cc" for char in path):
        raise InvalidInput(
            [Fault(ascii(path)[:_SHOWN], "holds a NUL or another control character", "give a plain path")]
        )
    parts = path.encode(errors="replace").split(b"/")
    if len(path.encode(errors="replace")) > _LONGEST_PATH or max(map(len, parts)) > _LONGEST_NAME:
        fix = f"at most {_LONGEST_PATH} bytes, and {_LONGEST_NAME} between two slashes"
        raise InvalidInput([Fault(f"{path[:_SHOWN]}...", "is too long for a path", fix)])
    try:
        return (root / path).resolve()
    except (OSError, RuntimeError, ValueError) as error:  # links in a circle, among others
        raise InvalidInput([Fault(ascii(path)[:_SHOWN], f"leads nowhere: {error}", "give a plain path")]) from error


def require_makeable(folder: Path, remedy: str) -> None:
    """Refuses a folder that could not be made, or written into, before hours of work; makes nothing.

    Args:
        folder: It need not exist yet.
        remedy: What the reader can do about it.

    Raises:
        Refused: With what is in the way.
    """
    nearest = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
    if not nearest.is_dir():
        raise Refused(f"{folder} cannot be made: {nearest} is not a folder", remedy)
    if not os.access(nearest, os.W_OK | os.X_OK):
        so = f", so {folder} cannot be made" if nearest != folder else ""
        raise Refused(f"{nearest} cannot be written{so}", remedy)


def _plain(name: str) -> str:
    hostile = any(char in "/\\" or unicodedata.category(char) == "Cc" for char in name)
    if not name or name.startswith(".") or hostile or len(name.encode(errors="replace")) > _LONGEST_PLAIN:
        fix = f"use letters, digits, '.', '_' and '-', at most {_LONGEST_PLAIN}"
        raise InvalidInput([Fault(ascii(name)[:_SHOWN], "is not a plain name", fix)])
    return name
