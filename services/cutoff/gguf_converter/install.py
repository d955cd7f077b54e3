"""Puts one GGUF into LM Studio's tree: <models>/<publisher>/<model_name>/<model_name>-<TYPE>.gguf.

A model folder holds exactly one GGUF, a real file that everyone may read. What cutoff installed before under
the same name is replaced; what anybody else put there is never touched. Which is which is written down outside
of the tree (LM Studio wants nothing else in it): one record per model folder, with the SHA-256 of every file
cutoff put there.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from cutoff.artifacts import Published, Roots, publishing, require_space, sha256_of
from cutoff.errors import AlreadyExists, CheckFailed, DiskFull, Fault, InvalidInput, Refused
from cutoff.gguf_converter.gguf_file import read_gguf
from cutoff.gguf_converter.quant_types import file_name
from cutoff.llama_cpp import LlamaCpp
from cutoff.spec import InstallSpec
from cutoff.spec.quant_types import QuantType
from cutoff.stage.report import Reporter
from cutoff.v1 import job_pb2

RECORDS = "installed"
"""The folder of the records, below the artifacts root."""

_CHUNK = 8 << 20
_ANOTHER_FOLDER = (
    "set LMSTUDIO_MODELS (--lmstudio_models) to LM Studio's models folder, "
    "and make it writable for the user cutoff runs as: sudo chown UID:GID FOLDER (in containers CUTOFF_UID, CUTOFF_GID)"
)


@dataclass(frozen=True, slots=True)
class Installed:
    """A model as LM Studio sees it."""

    file: Published
    changed: bool
    """False when the very same file was there already."""


def install_spec(publisher: str, model_name: str) -> InstallSpec:
    """Where to install, checked.

    Raises:
        InvalidInput: A name is no plain name.
    """
    try:
        return InstallSpec(publisher=publisher, model_name=model_name)
    except ValidationError as error:
        fix = "begin with a letter or digit; use letters, digits, '.', '_' and '-'"
        faults = [Fault(str(one["loc"][0]), f"{one['input']!r} is not a plain name", fix) for one in error.errors()]
        raise InvalidInput(faults) from error


def requested_spec(spec: job_pb2.InstallSpec) -> InstallSpec:
    """Where a request wants to install, checked; what it leaves out has the specification's default.

    Raises:
        InvalidInput: A name is no plain name.
    """
    defaults = InstallSpec()
    return install_spec(spec.publisher or defaults.publisher, spec.model_name or defaults.model_name)


def check_install(roots: Roots, spec: job_pb2.InstallSpec, llama_cpp_path: str = "") -> Path:
    """`check_folder` for the service: answers CheckInstall. A missing llama.cpp is noticed here too: it is early.

    Raises:
        InvalidInput: A name is no plain name.
        NotFound: The llama.cpp the job asks for is not there.
        Refused, AlreadyExists: As `check_folder`.
    """
    folder = check_folder(roots.models, requested_spec(spec), roots.artifacts / RECORDS)
    LlamaCpp.of_job(roots.cache, llama_cpp_path)
    return folder


def remove_leftovers(roots: Roots, spec: InstallSpec) -> None:
    """Removes what an installation that was killed left in its model's folder.

    Only under the record's lock: a partial file is of its holder. Where another installation has the lock by now,
    that one has removed the leftovers; where they cannot be removed, the next one will.
    """
    folder, records = roots.models / spec.publisher / spec.model_name, roots.artifacts / RECORDS
    if folder.is_dir() and records.is_dir():
        with suppress(OSError), _Record.locked(folder, records, wait=False):
            _sweep(folder)


def check_folder(models_root: Path, spec: InstallSpec, records: Path) -> Path:
    """Says at once whether a model could be installed under this name; writes nothing.

    Args:
        models_root: LM Studio's models folder; it need not exist yet.
        spec: Publisher and model name.
        records: Where it is written down what cutoff installed.

    Returns:
        The folder the model would be installed in.

    Raises:
        Refused: The folder cannot be made or written.
        AlreadyExists: It holds a GGUF that cutoff did not put there.
    """
    folder = models_root / spec.publisher / spec.model_name
    nearest = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    if not nearest.is_dir():
        raise Refused(f"{nearest} is not a folder, so {folder} cannot be made", _ANOTHER_FOLDER)
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise Refused(f"{nearest} cannot be written, so nothing can be installed in {folder}", _ANOTHER_FOLDER)
    if folder.is_dir():
        _own_files(folder, _Record.of(folder, records))
    return folder


def install_gguf(
    gguf: Path,
    quant_type: QuantType,
    models_root: Path,
    spec: InstallSpec,
    records: Path,
    report: Reporter,
    sha256: str = "",
    still_counts: Callable[[], None] = lambda: None,
) -> Installed:
    """Copies a GGUF into LM Studio's tree; it appears there whole or not at all.

    Args:
        gguf: The file to install.
        quant_type: Becomes part of its name.
        models_root: LM Studio's models folder; made when missing.
        spec: Publisher and model name.
        records: As in `check_folder`.
        report: Hears of progress and of the installed file (artifact kind "installed").
        sha256: What the file's content must be; empty: as it is now.
        still_counts: Called immediately before the rename; raises to stop it.

    Raises:
        Refused, AlreadyExists: As `check_folder`.
        CheckFailed: The GGUF is damaged, not the one that was asked for, or was not copied faithfully.
        DiskFull: The models folder's file system has too little room.
    """
    folder = check_folder(models_root, spec, records)
    read_gguf(gguf)
    target = folder / file_name(spec.model_name, quant_type)
    with _refusals(folder), _Record.locked(folder, records) as record:
        _make_folder(folder)
        own = _own_files(folder, record)
        wanted = sha256 or sha256_of(gguf)
        changed = target not in own or sha256_of(target) != wanted
        if changed:
            require_space(folder, gguf.stat().st_size, f"installing {target.name}")
            with publishing(target) as partial:
                _copy(gguf, partial, wanted, report)
                still_counts()
                # Before the rename: a crash in between must not turn our own file into a foreign one.
                record.add(wanted, partial)
        for path in own - {target}:
            path.unlink()
            report.log(f"removed {path}, which {target.name} takes the place of")
    installed = Installed(Published(target, target.stat().st_size, wanted), changed)
    report.log(f"installed {target}" if changed else f"{target} is installed already")
    report.artifact("installed", installed.file, quant_type=quant_type)
    return installed


class _Record:
    """What cutoff put into one model folder: size, modification time and SHA-256 of each file."""

    def __init__(self, path: Path, folder: Path) -> None:
        self._path = path
        self._folder = folder
        self._files: list[dict[str, str | int]] = json.loads(path.read_text())["files"] if path.is_file() else []

    @classmethod
    def of(cls, folder: Path, records: Path) -> _Record:
        """The record of a model folder as it is now; empty when nothing was installed in it."""
        mark = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:12]  # models roots may differ
        return cls(records / f"{folder.parent.name}-{folder.name}-{mark}.json", folder)

    @classmethod
    @contextmanager
    def locked(cls, folder: Path, records: Path, wait: bool = True) -> Iterator[_Record]:
        """The record, while no other process installs into the same folder.

        Raises:
            BlockingIOError: One does, and this one does not wait.
        """
        records.mkdir(parents=True, exist_ok=True)
        lock = cls.of(folder, records)._path.with_suffix(".lock")
        with lock.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            yield cls.of(folder, records)

    def add(self, sha256: str, path: Path) -> None:
        """Writes down a file that is about to be installed."""
        status = path.stat()
        entry: dict[str, str | int] = {"sha256": sha256, "size_bytes": status.st_size, "mtime_ns": status.st_mtime_ns}
        self._files = [known for known in self._files if known["sha256"] != sha256] + [entry]
        with publishing(self._path) as partial:
            partial.write_text(json.dumps({"folder": str(self._folder), "files": self._files}, indent=2) + "\n")

    def has(self, path: Path) -> bool:
        """Whether cutoff put this file there. It is only read through when its date is not the one it had."""
        if path.is_symlink() or not path.is_file():
            return False
        status = path.stat()
        alike = [known for known in self._files if known["size_bytes"] == status.st_size]
        if any(known["mtime_ns"] == status.st_mtime_ns for known in alike):
            return True
        return bool(alike) and sha256_of(path) in {known["sha256"] for known in alike}


def _own_files(folder: Path, record: _Record) -> set[Path]:
    """The GGUF files in a model folder, all of which must be cutoff's."""
    found = {path for path in folder.iterdir() if path.suffix.lower() == ".gguf"}
    foreign = sorted(path for path in found if not record.has(path))
    if foreign:
        raise AlreadyExists(
            f"{foreign[0]} was not installed by cutoff, or was changed since; it stays as it is",
            "choose another model_name (--model_name), or move that file away",
        )
    return found


def _make_folder(folder: Path) -> None:
    """Makes the model's folder and its parents, readable for the user LM Studio runs as."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        for path in reversed(missing):
            path.mkdir(exist_ok=True)
            path.chmod(0o755)
    except OSError as error:  # what os.access could not tell before, as on a network file system
        raise Refused(f"{folder} cannot be made: {error.strerror}", _ANOTHER_FOLDER) from error
    _sweep(folder)


def _sweep(folder: Path) -> None:
    """Removes half-written files; whoever calls it holds the lock, so that they are of nobody who is at work."""
    for leftover in folder.glob(f".{folder.name}-*.gguf.partial"):
        leftover.unlink()


def _copy(source: Path, target: Path, sha256: str, report: Reporter) -> None:
    """Copies a file, comparing its content with the SHA-256 on the way in and again as it lies there."""
    digest = hashlib.sha256()
    total = source.stat().st_size
    with report.phase("installing", "byte", total) as counter, source.open("rb") as old, target.open("wb") as new:
        while chunk := old.read(_CHUNK):
            digest.update(chunk)
            new.write(chunk)
            counter.at(old.tell())
    target.chmod(0o644)
    if digest.hexdigest() != sha256:
        raise CheckFailed(f"{source} is not the file that was to be installed: its SHA-256 differs", "convert again")
    if sha256_of(target) != sha256:
        raise CheckFailed(f"{target.parent} does not hold what was written to it", "check that disk")


@contextmanager
def _refusals(folder: Path) -> Iterator[None]:
    """Says in the user's words why a folder cannot be written."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(f"the disk of {folder} is full", "free space there") from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
            raise Refused(f"{error.filename or folder} cannot be written: {error.strerror}", _ANOTHER_FOLDER) from error
        raise
