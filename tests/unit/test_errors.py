"""What the system and the libraries say, in cutoff's words."""

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from cutoff.errors import CutoffError, DiskFull, NotFound, OutOfMemory, Refused, as_cutoff_error


class SafetensorError(Exception):
    pass


class OutOfMemoryError(RuntimeError):
    """As torch names it."""


@pytest.mark.parametrize(
    ("error", "kind", "place"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/out/x"), DiskFull, "/out/x"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), DiskFull, "the folder"),
        (OSError(errno.EFBIG, "File too large"), DiskFull, "the folder"),
        (SafetensorError("Error while serializing: I/O error: … (os error 28)"), DiskFull, "the folder"),
        (SafetensorError("I/O error: Disk quota exceeded (os error 122)"), DiskFull, "the folder"),
        (RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534"), DiskFull, "the folder"),
        (RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed"), DiskFull, "the folder"),
        (RuntimeError("basic_ios::clear: iostream error"), DiskFull, "the folder"),
        (PermissionError(errno.EACCES, "Permission denied", "/out/x"), Refused, "/out/x"),
        (OSError(errno.EROFS, "Read-only file system", "/out/x"), Refused, "/out/x"),
        (SafetensorError("I/O error: Read-only file system (os error 30)"), Refused, "the folder"),
        (MemoryError(), OutOfMemory, ""),
        (OutOfMemoryError("CUDA out of memory"), OutOfMemory, ""),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), OutOfMemory, ""),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 9 bytes"), OutOfMemory, ""),
    ],
)
def test_what_is_no_bug_gets_its_name(error: Exception, kind: type[CutoffError], place: str) -> None:
    known = as_cutoff_error(error, "the folder")
    assert type(known) is kind
    assert place in known.message
    assert known.remedy


@pytest.mark.parametrize(
    "error", [ValueError("(sic)"), RuntimeError("a bug"), FileNotFoundError(errno.ENOENT, "No such file"), KeyError(28)]
)
def test_a_bug_stays_one(error: Exception) -> None:
    assert as_cutoff_error(error, "the folder") is None


def test_cutoffs_own_errors_stay_as_they_are() -> None:
    own = NotFound("no x", "make one")
    assert as_cutoff_error(own, "the folder") is own


@pytest.mark.parametrize(
    "write",
    [
        "torch.save({'a': a}, out / 'x.pt')",
        "save_file({'a': a}, out / 'x.safetensors')",
        "out.joinpath('x').write_bytes(b'0' * 10**6)",
    ],
)
def test_a_write_that_fails_is_known_whichever_library_writes(tmp_path: Path, write: str) -> None:
    """For real, under a limit on the size of files: what these libraries say differs from version to version."""
    code = f"""
import pathlib, resource, torch
from safetensors.torch import save_file
from cutoff.errors import as_cutoff_error
a, out = torch.zeros(250_000), pathlib.Path({str(tmp_path)!r})
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    {write}
except Exception as error:
    print(as_cutoff_error(error, str(out)).reason)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "DISK_FULL\n", done.stderr
