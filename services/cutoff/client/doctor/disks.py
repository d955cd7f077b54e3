"""The roots: whether they are there, may be written to, and have room."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from cutoff.artifacts import GIB
from cutoff.client.doctor.findings import Finding, fail, ok, warn

_LITTLE, _TOO_LITTLE = 20 * GIB, GIB
"""Five times a 16-bit model of 1.5 billion weights is 15 GiB (docs/running.md)."""


def datasets(folder: Path) -> Finding:
    """Whether the question sets can be read."""
    check = "datasets"
    if not folder.is_dir():
        return warn(check, f"{folder} does not exist", "set CUTOFF_DATASETS to the folder of your question sets")
    if not os.access(folder, os.R_OK | os.X_OK):
        return fail(check, f"{folder} cannot be read", f"chmod -R a+rX {folder}")
    return ok(check, str(folder))


def written(name: str, variable: str, folder: Path, little: int = _LITTLE) -> Finding:
    """Whether a root can be written to (or made), and has room.

    Args:
        name: The root's.
        variable: Which sets it.
        folder: Where it is, or will be.
        little: Bytes below which room is short.
    """
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not existing.is_dir():
        return fail(name, f"{folder} cannot be a folder: {existing} is a file", f"set {variable} to a folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        where = f"{folder}" if existing == folder else f"{folder} does not exist, and {existing}"
        return fail(name, f"{where} cannot be written to", f"sudo chown $USER {existing}, or set {variable}")
    free = shutil.disk_usage(existing).free
    said = f"{folder}: {free / GIB:.1f} GiB free"
    if free < _TOO_LITTLE:
        return fail(name, said, f"free space there (cutoff gc --dry-run shows what may go), or set {variable}")
    if free < little:
        return warn(name, said, f"a job of a small model takes 15 GiB: cutoff gc --dry-run, or set {variable}")
    return ok(name, said)
