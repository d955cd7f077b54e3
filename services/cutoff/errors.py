"""Everything that can go wrong, as one tree of exceptions.

Each error says what is wrong (message) and what to do about it (remedy), and has a stable reason for
programs. `rpc/errors.py` turns them into gRPC status codes, `stage/child.py` into a Failure event, the
command lines into exit codes: nothing else translates errors. What the system and the libraries raise for a
full disk, a folder nobody may write or exhausted memory becomes one of them in `as_cutoff_error`.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar


class CutoffError(Exception):
    """The root: anything cutoff itself reports.

    Args:
        message: What is wrong, naming the thing it is wrong with.
        remedy: What the reader can do about it; may be empty where nothing can be done.
    """

    reason: ClassVar[str] = "INTERNAL"
    retryable: ClassVar[bool] = False
    """True when the same request may succeed later without being changed."""

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message} ({self.remedy})" if self.remedy else self.message


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with what a user gave."""

    where: str
    """A field path ("train.lora_r") or a file and line ("retain/retain_train.jsonl:17")."""
    what: str
    fix: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}" + (f"; {self.fix}" if self.fix else "")


class InvalidInput(CutoffError):
    """What the user gave cannot be used. Carries every fault that was found, and is never retried."""

    reason = "INVALID_INPUT"

    def __init__(self, faults: Sequence[Fault]) -> None:
        if not faults:
            raise ValueError("an InvalidInput needs at least one fault")
        self.faults = tuple(faults)
        count = f"{len(faults)} faults" if len(faults) > 1 else "1 fault"
        super().__init__("\n".join([f"{count} in the input:", *(f"  {fault}" for fault in faults)]))


class NotFound(CutoffError):
    """The named thing is not there."""

    reason = "NOT_FOUND"


class AlreadyExists(CutoffError):
    """The name is taken by something else."""

    reason = "ALREADY_EXISTS"


class Refused(CutoffError):
    """The request is well formed, but the state of the system does not allow it."""

    reason = "FAILED_PRECONDITION"


class DiskFull(CutoffError):
    """A file system has too little room for what is about to be written, or ran full while writing."""

    reason = "DISK_FULL"


class OutOfMemory(CutoffError):
    """A device or the host has too little memory for the work."""

    reason = "OUT_OF_MEMORY"


class CheckFailed(CutoffError):
    """A result was compared with its source and differs; it was not published."""

    reason = "CHECK_FAILED"


class TrainingDiverged(CutoffError):
    """The loss is not a number any more."""

    reason = "TRAINING_DIVERGED"


class ProgramFailed(CutoffError):
    """A program cutoff started ended with an error."""

    reason = "PROGRAM_FAILED"


class Killed(CutoffError):
    """A run's process was ended by a signal nobody here sent."""

    reason = "KILLED"


class Unavailable(CutoffError):
    """A server cannot be reached or did not answer in time."""

    reason = "UNAVAILABLE"
    retryable = True


class Lost(CutoffError):
    """A run is gone with the service that had it, or its process does not answer any more."""

    reason = "LOST"
    retryable = True


class DeviceBusy(CutoffError):
    """Another run holds the device."""

    reason = "DEVICE_BUSY"
    retryable = True


class DeviceMemoryHeld(CutoffError):
    """A program that is none of cutoff's held a GPU's memory for longer than the job would wait."""

    reason = "DEVICE_MEMORY_HELD"


class Unauthenticated(CutoffError):
    """The caller has no valid token."""

    reason = "UNAUTHENTICATED"


class TooMany(CutoffError):
    """The caller has made more calls than it may in this time, or has too many streams open."""

    reason = "RATE_LIMITED"
    retryable = True

    def __init__(self, message: str, remedy: str = "", seconds: float = 1.0) -> None:
        super().__init__(message, remedy)
        self.seconds = seconds
        """After which the call may be made again."""


class TooLate(CutoffError):
    """The call took longer than its deadline, or than the server gives one without."""

    reason = "DEADLINE_EXCEEDED"
    retryable = True


class Cancelled(CutoffError):
    """Somebody asked for the work to stop."""

    reason = "CANCELLED"


class Paused(CutoffError):
    """The work was stopped to be gone on with later."""

    reason = "PAUSED"


_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_ACCESS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR)
_OS_ERROR = re.compile(r"\(os error (\d+)\)")
"""How libraries written in Rust (safetensors, tokenizers) say an errno."""

_WRITE_FAILED = ("No space left on device", "iostream error", "unexpected pos", "PytorchStreamWriter failed writing")
"""What torch.save says when it cannot write; it knows no errno."""

_NO_MEMORY = ("DefaultCPUAllocator: can't allocate memory", "CUDA out of memory", "HIP out of memory")


def as_cutoff_error(error: BaseException, where: str) -> CutoffError | None:
    """What an error of the system or of a library amounts to; None for a bug.

    Args:
        error: Whatever was raised; an error of cutoff's own stays as it is.
        where: What was worked on, for errors that name no file.
    """
    if isinstance(error, CutoffError):
        return error
    said, number = str(error), _errno(error)
    place = getattr(error, "filename", None) or where
    if number in _DISK_FULL or _says(error, _WRITE_FAILED):
        return DiskFull(f"the disk ran full while writing {place} ({said})", "free space there and retry")
    if number in _NO_ACCESS:
        return Refused(f"no access to {place} ({said})", "make it readable and writable for the user cutoff runs as")
    no_memory = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    if no_memory or number == errno.ENOMEM or _says(error, _NO_MEMORY):
        return OutOfMemory(f"out of memory: {said}", "use quantization: 4bit, a smaller batch_size, or a smaller model")
    return None


def _errno(error: BaseException) -> int | None:
    """The system's number for what failed, from the error or from its text."""
    if isinstance(error, OSError):
        return error.errno
    found = _OS_ERROR.search(str(error))
    return int(found[1]) if found else None


def _says(error: BaseException, words: Sequence[str]) -> bool:
    return isinstance(error, RuntimeError) and any(each in str(error) for each in words)
