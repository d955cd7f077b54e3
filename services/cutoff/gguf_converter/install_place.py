"""Puts a file's content under another name: shared where that is harmless, copied otherwise, and read back.

Which of the three ways is taken when, and why: docs/adr/0014-how-a-gguf-gets-into-the-models-folder.md.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
from contextlib import suppress
from pathlib import Path
from typing import Literal

from cutoff.artifacts import require_space, sha256_of
from cutoff.errors import CheckFailed
from cutoff.stage.report import Reporter

How = Literal["reflink", "hard link", "copy"]

_FICLONE = 0x40049409
"""The ioctl that makes a file share another one's blocks until either is written to (ioctl_ficlonerange(2))."""

_CANNOT_SHARE = (
    *(errno.EOPNOTSUPP, errno.ENOTTY, errno.ENOSYS, errno.EXDEV, errno.EINVAL, errno.EPERM, errno.EMLINK),
    *(errno.EACCES, errno.ETXTBSY),
)
_CHUNK = 8 << 20
_FILE_BITS, _FOLDER_BITS = 0o666, 0o2777
"""Permissions that are taken over. A model is not executed; a folder's setgid hands its group on."""


def place(source: Path, target: Path, sha256: str, like: Path, report: Reporter, immutable: bool = False) -> How:
    """Makes `target`, a real file of its own name with the content of `source`.

    Args:
        source: The file.
        target: Does not exist; its folder does.
        sha256: What the content must be; what was placed is read back from the disk and compared.
        like: A folder whose owner, group and permissions the file is to have, as far as this process may give them.
        report: Hears of the copying.
        immutable: Whether nobody ever writes into the source: only then may the two be one file with two names.

    Raises:
        CheckFailed: The source is not the file that was asked for, or was not placed faithfully.
        DiskFull: There is too little room for a copy.
        OSError: The target cannot be written.
    """
    how: How = "reflink"
    if not _reflink(source, target):
        how = "hard link"
        if not (immutable and looks(source, like) and _hard_link(source, target)):
            how = "copy"
            require_space(target.parent, source.stat().st_size, f"installing {target.name.strip('.')}")
            _copy(source, target, sha256, report)
    if how != "hard link":
        match(target, like)
    _drop_from_cache(target)
    if sha256_of(target) != sha256:
        _blame(source, target, sha256)
    return how


def looks(path: Path, like: Path) -> bool:
    """Whether a file has the owner, group and permissions that `match` would give it."""
    status, wanted = path.stat(), like.stat()
    bits = wanted.st_mode & _FILE_BITS
    return (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (wanted.st_uid, wanted.st_gid, bits)


def match(path: Path, like: Path) -> None:
    """Gives a new file or folder the owner, group and permissions of a folder, as far as this process may.

    Where it may not give it away, the folder's owner, as whom LM Studio runs, may at least read it.
    """
    wanted = like.stat()
    for owner in (wanted.st_uid, -1):
        with suppress(PermissionError):
            os.chown(path, owner, wanted.st_gid)
            break
    folder = path.is_dir()
    mode = wanted.st_mode & (_FOLDER_BITS if folder else _FILE_BITS)
    if path.stat().st_uid != wanted.st_uid:
        mode |= 0o055 if folder else 0o044
    path.chmod(mode)


def _reflink(source: Path, target: Path) -> bool:
    """Shares the blocks, on file systems that can (btrfs, XFS, bcachefs): the two files stay independent."""
    with source.open("rb") as old:
        new = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            fcntl.ioctl(new, _FICLONE, old.fileno())
        except OSError as error:
            target.unlink()
            if error.errno not in _CANNOT_SHARE:
                raise
            return False
        finally:
            os.close(new)
    return True


def _hard_link(source: Path, target: Path) -> bool:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _CANNOT_SHARE:
            raise
        return False
    return True


def _copy(source: Path, target: Path, sha256: str, report: Reporter) -> None:
    digest = hashlib.sha256()
    total = source.stat().st_size
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    with (
        report.phase("installing", "byte", total) as counter,
        source.open("rb") as old,
        os.fdopen(os.open(target, flags, 0o600), "wb") as new,
    ):
        while chunk := old.read(_CHUNK):
            digest.update(chunk)
            new.write(chunk)
            counter.at(old.tell())
        new.flush()
        os.fsync(new.fileno())
    if digest.hexdigest() != sha256:
        _blame(source, target, sha256)


def _drop_from_cache(path: Path) -> None:
    """Asks the kernel to forget what it has of a file, so that it is read back from the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def _blame(source: Path, target: Path, sha256: str) -> None:
    if sha256_of(source) != sha256:
        raise CheckFailed(f"{source} is not the file that was to be installed: its SHA-256 differs", "convert again")
    raise CheckFailed(f"{target.parent} does not hold what was written to it", "check that disk")
