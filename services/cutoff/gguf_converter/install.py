"""Puts one GGUF into LM Studio's tree, <models>/<publisher>/<model_name>/<model_name>-<TYPE>.gguf, and removes it.

A model folder holds exactly one GGUF, a real file. The same content again changes nothing; other content gives way
only when install.replace says so (`install_checks`). What cutoff put there is written down (`install_records`).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

from cutoff.artifacts import Published, Roots, publishing, remove_partial, sha256_of
from cutoff.errors import DiskFull, Refused
from cutoff.gguf_converter.gguf_file import read_gguf
from cutoff.gguf_converter.install_checks import ANOTHER_FOLDER, Wanted, check_folder, model_folder, to_replace
from cutoff.gguf_converter.install_lock import alone_in
from cutoff.gguf_converter.install_place import How, match, place
from cutoff.gguf_converter.install_records import RECORDS, Record
from cutoff.spec import InstallSpec
from cutoff.spec.quant_types import QuantType
from cutoff.spec.quantizations import file_name
from cutoff.stage.report import Reporter


@dataclass(frozen=True, slots=True)
class Installed:
    """A model as LM Studio sees it."""

    file: Published
    changed: bool
    """False when the very same content was there already."""
    how: How | None
    """How it got there; None when it was there."""


def install_gguf(
    gguf: Path,
    quant_type: QuantType,
    models_root: Path,
    spec: InstallSpec,
    records: Path,
    report: Reporter,
    sha256: str = "",
    still_counts: Callable[[], AbstractContextManager[None]] = nullcontext,
    immutable: bool = False,
) -> Installed:
    """Installs a GGUF; it appears in LM Studio's tree whole or not at all.

    Args:
        gguf: The file to install.
        quant_type: Becomes part of its name.
        models_root: LM Studio's models folder; made when missing. What is made in it has its owner and permissions.
        spec: Publisher and model name, and whether another model of that name may be replaced.
        records: As in `check_folder`.
        report: Hears of progress and of the installed file (artifact kind "installed").
        sha256: What the file's content must be; empty: as it is now.
        still_counts: Entered immediately before the first change of what LM Studio sees, left after the last; raises
            to stop it.
        immutable: Whether nobody ever writes into `gguf`, as with a job's artifact: it may then be hard-linked.

    Raises:
        Refused, AlreadyExists: As `check_folder`.
        CheckFailed: The GGUF is damaged, not the one that was asked for, or was not placed faithfully.
        DiskFull: The models folder's file system has too little room.
    """
    read_gguf(gguf)
    wanted = Wanted(quant_type, sha256 or sha256_of(gguf))
    folder = check_folder(models_root, spec, wanted, records)
    target = folder / file_name(spec.model_name, quant_type)
    how: How | None = None
    make = lambda: _make_folder(folder, models_root)  # noqa: E731
    with _refusals(folder), Record.locked(folder, records) as record, alone_in(folder, make), ExitStack() as change:
        model_folder(models_root, spec)  # what was checked before the lock was waited for may have changed
        _sweep(folder)
        others = to_replace(folder, spec, wanted, record)
        if not target.is_file() or target in others:
            with publishing(target, spec.replace) as partial:
                how = place(gguf, partial, wanted.sha256, models_root, report, immutable)
                change.enter_context(still_counts())
                # Before the rename: a crash in between must not turn our own file into a foreign one.
                record.add(wanted.sha256, partial)
                others = to_replace(folder, spec, wanted, record)  # copying takes its time
        elif others:
            change.enter_context(still_counts())
        for path in others - {target}:
            _make_way(path, target, record, report)
    installed = Installed(Published(target, target.stat().st_size, wanted.sha256), how is not None, how)
    report.log(f"installed {target} ({how})" if how else f"{target} is installed already")
    report.artifact("installed", installed.file, quant_type=quant_type)
    return installed


def uninstall_gguf(models_root: Path, spec: InstallSpec, records: Path, sha256: str) -> Path | None:
    """Removes the file of this content from its model's folder, and the folder with it when nothing else is in there.

    Args:
        models_root: LM Studio's models folder.
        spec: Publisher and model name.
        records: As in `check_folder`.
        sha256: Of the file's content.

    Returns:
        The file that was removed; None when none of that content was there, or cutoff has put another there since.

    Raises:
        Refused: The file was changed since it was installed, or cannot be removed.
    """
    folder = model_folder(models_root, spec)
    if not folder.is_dir():
        return None
    with suppress(FileNotFoundError):  # somebody else removed it meanwhile
        return _remove(folder, spec, records, sha256)
    return None


def _remove(folder: Path, spec: InstallSpec, records: Path, sha256: str) -> Path | None:
    with _refusals(folder), Record.locked(folder, records) as record, alone_in(folder):
        _sweep(folder)
        found = [path for path in sorted(folder.glob("*.gguf")) if path.is_file() and not path.is_symlink()]
        ours = next((path for path in found if record.sha256_of(path) == sha256), None)
        if ours is None:
            changed = [path for path in found if path.name.startswith(f"{spec.model_name}-") and not record.has(path)]
            if changed:
                what = f"{changed[0]} is not what the job installed, or was changed since; it stays as it is"
                raise Refused(what, "remove it yourself, if nobody needs it")
            return None
        ours.unlink()
        record.forget(sha256)
        with suppress(OSError):  # somebody keeps something else in it
            folder.rmdir()
    return ours


def remove_leftovers(roots: Roots, spec: InstallSpec) -> None:
    """Removes what an installation that was killed left in its model's folder.

    Only under the locks: a partial file is of their holder. Where another installation has them by now,
    that one has removed the leftovers; where they cannot be removed, the next one will.
    """
    records = roots.artifacts / RECORDS
    with suppress(OSError, Refused):
        folder = model_folder(roots.models, spec)
        if folder.is_dir() and records.is_dir():
            with Record.locked(folder, records, wait=False), alone_in(folder, wait=False):
                _sweep(folder)


def _make_way(path: Path, target: Path, record: Record, report: Reporter) -> None:
    """Removes a file that cutoff installed before, unless it has become somebody else's meanwhile."""
    if record.has(path):
        path.unlink()
        report.log(f"removed {path}, which {target.name} takes the place of")
    elif os.path.lexists(path):
        report.warn(f"{path} was changed while {target.name} was installed; it stays as it is")


def _make_folder(folder: Path, models_root: Path) -> None:
    """Makes the model's folder and its parents; those below the models folder are like it."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        for path in reversed(missing):
            path.mkdir(exist_ok=True)
            if path.is_relative_to(models_root) and path != models_root:
                match(path, models_root)
            else:
                path.chmod(0o755)  # whatever the umask: LM Studio may run as somebody else
    except OSError as error:  # what os.access could not tell before, as on a network file system
        raise Refused(f"{folder} cannot be made: {error.strerror}", ANOTHER_FOLDER) from error


def _sweep(folder: Path) -> None:
    """Removes half-written files; whoever calls it holds the lock, so that they are of nobody who is at work."""
    for leftover in folder.glob(f".{folder.name}-*.gguf*.partial"):
        remove_partial(leftover)


@contextmanager
def _refusals(folder: Path) -> Iterator[None]:
    """Says in the user's words why a folder cannot be written."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(f"the disk of {folder} is full", "free space there") from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
            raise Refused(f"{error.filename or folder} cannot be written: {error.strerror}", ANOTHER_FOLDER) from error
        raise
