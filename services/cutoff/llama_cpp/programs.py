"""Runs a program to its end: its lines as they come, its failure as an error that says what to do."""

from __future__ import annotations

import codecs
import os
import re
import signal
import subprocess
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO, Any

from cutoff.errors import CutoffError, DiskFull, OutOfMemory, ProgramFailed
from cutoff.process import stop_group, tethered

OnLine = Callable[[str], None]

_READ = 1 << 16
_LINE_ENDS = re.compile(r"[\r\n]+")

_TAIL_LINES = 15
"""How much of a failed program's output an error repeats."""

_GRACE = 1.0
"""Seconds a program gets to end after SIGTERM: nothing it has to save, and llama-server would finish its answers."""

_OUT_OF_MEMORY = ("std::bad_alloc", "MemoryError", "DefaultCPUAllocator", "out of memory", "unable to allocate")
_DISK_FULL = ("No space left on device", "Disk quota exceeded", "iostream error", " requested and ")
"""The last two are all that llama-quantize says, and numpy in the conversion script, when they cannot write."""


def run_program(
    command: Sequence[str],
    what: str,
    on_line: OnLine,
    environment: Mapping[str, str] | None = None,
    remedies: Mapping[str, str] | None = None,
    on_part: OnLine | None = None,
) -> None:
    """Runs a program that dies with this process; stops it when the calling (main) thread is interrupted.

    Args:
        command: Program and arguments.
        what: What it does, for people: "quantizing to q4_k_m".
        on_line: Gets each line of its output, stdout and stderr as one; a carriage return ends a line too.
        environment: Variables set on top of this process' own.
        remedies: What to do when the output holds a text, by that text.
        on_part: Gets what there is of a line that has not ended yet, whenever more of it has come.

    Raises:
        OutOfMemory: It was killed by SIGKILL, or said that memory ran out.
        DiskFull: It said that the disk is full.
        ProgramFailed: It failed otherwise; the end of its output is in the message.
    """
    tail: deque[str] = deque(maxlen=_TAIL_LINES)
    process = subprocess.Popen(
        tethered(command),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, **(environment or {})},
        start_new_session=True,  # a group of its own, so that all it starts can be stopped with it
    )
    try:
        for line, ended in _lines(process.stdout):
            if ended:
                tail.append(line)
                on_line(line)
            elif on_part:
                on_part(line)
        process.wait()
    finally:
        stop(process)
    if process.returncode:
        raise failure(what, process.returncode, tail, remedies or {})


def _lines(stream: IO[bytes] | None) -> Iterator[tuple[str, bool]]:
    """The lines of a pipe that are not blank, and whether each has ended."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    begun = ""
    while chunk := os.read(stream.fileno(), _READ) if stream else b"":
        *lines, begun = _LINE_ENDS.split(begun + decoder.decode(chunk))
        yield from ((line.strip(), True) for line in lines if line.strip())
        if begun.strip():
            yield begun.strip(), False
    if last := (begun + decoder.decode(b"", final=True)).strip():
        yield last, True


def stop(process: subprocess.Popen[Any]) -> None:
    """Ends a program and its group, and reaps it; does nothing to one that has ended."""
    if process.poll() is None:
        stop_group(process.pid, _GRACE)
        process.wait()
    if process.stdout:
        process.stdout.close()


def failure(what: str, code: int, tail: Sequence[str], remedies: Mapping[str, str]) -> CutoffError:
    """The error that a failed program's exit code (negative: the signal) and last lines amount to."""
    said = "\n".join(tail)
    if code == -signal.SIGKILL or _names(said, _OUT_OF_MEMORY):
        message = f"{what} was killed, most likely because memory ran out" if code < 0 else f"{what} ran out of memory"
        return OutOfMemory(message, "close other programs, give the container more memory, or take a smaller model")
    if _names(said, _DISK_FULL):
        return DiskFull(f"{what} ran out of disk space", "free space on the file system of the output folder")
    remedy = next((advice for text, advice in remedies.items() if text in said), "read its last lines above")
    return ProgramFailed(f"{what} ended with {_ending(code)}; its last lines:\n{_indented(tail)}", remedy)


def _names(said: str, texts: Sequence[str]) -> bool:
    return any(text.lower() in said.lower() for text in texts)


def _ending(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"


def _indented(lines: Sequence[str]) -> str:
    return "\n".join(f"  {line}" for line in lines) or "  (it said nothing)"
