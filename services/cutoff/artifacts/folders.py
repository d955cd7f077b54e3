"""Where things are: the roots from the environment, and the folder of each attempt."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from cutoff.errors import Fault, InvalidInput, Refused


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
        InvalidInput: The path leaves the root, by .., a symbolic link or otherwise, or holds a NUL.
    """
    if "\0" in relative:
        raise InvalidInput([Fault(repr(relative), "holds a NUL character", "give a plain path")])
    resolved_root = root.resolve()
    resolved = (resolved_root / relative).resolve()
    if not resolved.is_relative_to(resolved_root):
        raise InvalidInput([Fault(relative, f"leaves {root}", "give a path below that folder")])
    return resolved


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
    if not name or name.startswith(".") or any(char in name for char in "/\\\0"):
        raise InvalidInput([Fault(repr(name), "is not a plain name", "use letters, digits, '.', '_' and '-'")])
    return name
