"""LM Studio's models folder: there, writable, on the disk of the artifacts, and laid out as LM Studio reads it."""

from __future__ import annotations

import os
from pathlib import Path

from cutoff.client.doctor.findings import Finding, fail, ok, warn

_DEPTH = 3
"""models/<publisher>/<model>/<file>.gguf"""


def models_folder(models: Path, publisher: str = "local") -> Finding:
    """Whether a model can be installed below the models folder."""
    check = "models folder"
    if not models.is_dir():
        fix = f"install -d {models}, or set LMSTUDIO_MODELS to LM Studio's models folder (its page My Models)"
        return fail(check, f"{models} does not exist", fix)
    place = models / publisher if (models / publisher).exists() else models
    if not os.access(place, os.W_OK | os.X_OK):
        fix = f"sudo install -d -o $(id -u) -g $(id -g) {models / publisher}"
        return fail(check, f"{place} cannot be written to", fix)
    return ok(check, str(models))


def same_disk(models: Path, artifacts: Path) -> list[Finding]:
    """Whether installing can share the file's blocks instead of copying it; nothing to say where a folder lacks."""
    existing = next(path for path in (artifacts, *artifacts.parents) if path.exists())
    if not models.is_dir():
        return []
    if models.stat().st_dev == existing.stat().st_dev:
        return [ok("installing", "models folder and artifacts are on one file system: no copy where it can be shared")]
    fix = "nothing, if there is room; else put CUTOFF_ARTIFACTS on the models folder's file system"
    return [warn("installing", "models folder and artifacts are on two file systems: each install is a copy", fix)]


def layout(models: Path) -> list[Finding]:
    """GGUFs that LM Studio will not see: at another depth, or symbolic links."""
    if not models.is_dir():
        return []
    files = [path.relative_to(models) for path in models.rglob("*.gguf")]
    deep = [str(path) for path in files if len(path.parts) != _DEPTH]
    links = [str(path) for path in files if (models / path).is_symlink()]
    check, found = "models layout", []
    if deep:
        where = "models/PUBLISHER/MODEL/FILE.gguf is where LM Studio looks: move them"
        found.append(warn(check, f"LM Studio will not see {_some(deep)}", where))
    if links:
        found.append(warn(check, f"symbolic links: {_some(links)}", "put the files themselves there (cutoff install)"))
    return found or [ok(check, f"{len(files)} GGUFs, all where LM Studio looks")]


def _some(names: list[str]) -> str:
    return ", ".join(sorted(names)[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
