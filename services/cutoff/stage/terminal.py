"""Shows a run's events to a person: bars on a terminal, lines where there is none.

The document's four commands run their work through `run_in_terminal`; the client shows a watched job with
the same `Display`. Everything goes to stderr: stdout belongs to the command's own result.
"""

from __future__ import annotations

import gc
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from cutoff.errors import CutoffError, InvalidInput, NotFound, as_cutoff_error
from cutoff.stage.report import Reporter
from cutoff.v1 import types_pb2

EXIT_DONE, EXIT_FAILED, EXIT_USAGE, EXIT_UNREACHABLE, EXIT_BELOW_BAR, EXIT_INTERRUPTED = 0, 1, 2, 3, 4, 130
"""The exit codes of every command (docs/exit-codes.md)."""

Wording = Callable[[str], str]
"""Says a text in other words."""

_STYLE = {"WARNING": "yellow", "ERROR": "bold red", "DEBUG": "dim"}
_LINE_INTERVAL = 5.0
"""Seconds between two progress lines of one phase where there is no terminal."""


class Display:
    """Draws events on stderr; use as a context manager.

    Args:
        quiet: Show warnings and errors only.
        wording: Puts lines in other words.
    """

    def __init__(self, quiet: bool = False, wording: Wording = str) -> None:
        self._wording = wording
        self._console = Console(stderr=True, highlight=False)
        self._quiet = quiet
        self._tasks: dict[str, TaskID] = {}
        self._said: dict[str, float] = {}
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            console=self._console,
            disable=quiet or not self._console.is_terminal,
        )

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def event(self, event: types_pb2.Event, prefix: str = "") -> None:
        """Shows one event; `prefix` says whose it is where several runs share the screen."""
        match event.WhichOneof("kind"):
            case "progress":
                self._progress(event.progress, prefix)
            case "log_line":
                self.line(f"{prefix}{event.log_line.text}", event.log_line.level)
            case "artifact":
                artifact = event.artifact
                self.line(f"{prefix}{artifact.kind}: {artifact.path} ({artifact.size_bytes / 1e6:.1f} MB)")
            case "failed":
                self.line(f"{prefix}{event.failed.message}", "ERROR")

    def line(self, text: str, level: str = "INFO") -> None:
        """Writes one line above the bars."""
        if level == "DEBUG" or (self._quiet and level == "INFO"):
            return
        self._console.print(self._wording(text), style=_STYLE.get(level, ""), markup=False, soft_wrap=True)

    def _progress(self, progress: types_pb2.Progress, prefix: str) -> None:
        name = prefix + progress.phase
        if self._bars.disable:
            self._progress_line(name, progress)
            return
        if name not in self._tasks:
            self._tasks[name] = self._bars.add_task(name, total=progress.total or None, note="")
        self._bars.update(
            self._tasks[name], completed=progress.step, total=progress.total or None, note=_note(progress)
        )

    def _progress_line(self, name: str, progress: types_pb2.Progress) -> None:
        now = time.monotonic()
        over = progress.total and progress.step >= progress.total
        if not over and (progress.step == 0 or now - self._said.get(name, 0.0) < _LINE_INTERVAL):
            return
        self._said[name] = now
        total = f"/{progress.total}" if progress.total else ""
        self.line(f"{name}: {progress.unit} {progress.step}{total} {_note(progress)}".rstrip())


def run_in_terminal(work: Callable[[Reporter], None], quiet: bool = False, wording: Wording = str) -> int:
    """Runs one of the document's commands and returns its exit code.

    Errors that cutoff reports, a full disk and the like become one message on stderr; anything else is a bug and
    keeps its traceback.

    Args:
        work: The command's work.
        quiet: Show warnings and errors only.
        wording: Puts what is shown in the command's own words: its flags for the fields of job.yaml.
    """
    with Display(quiet, wording) as display, sigterm_interrupts():
        try:
            work(Reporter(display.event, interval=0.2))
        except KeyboardInterrupt:
            display.line("interrupted", "ERROR")
            return EXIT_INTERRUPTED
        except Exception as error:
            known = as_cutoff_error(error, "the output")
            if known is None:
                raise
            show_error(known, wording)
            return EXIT_USAGE if isinstance(known, InvalidInput | NotFound) else EXIT_FAILED
    gc.freeze()  # the interpreter looks for garbage once more when it ends: half a second, with torch in memory
    return EXIT_DONE


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """SIGTERM ends a command as Ctrl-C does: in order, with its clean-up."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def show_error(error: CutoffError, wording: Wording = str) -> None:
    """Prints an error and what to do about it."""
    print(f"error: {wording(error.message)}", file=sys.stderr)
    if error.remedy:
        print(f"  what to do: {wording(error.remedy)}", file=sys.stderr)


def _note(progress: types_pb2.Progress) -> str:
    parts = []
    if progress.HasField("loss"):
        parts.append(f"loss {progress.loss:.4f}")
    if progress.rate:
        parts.append(f"{progress.rate:.3g} {progress.unit}s/s")
    if progress.HasField("eta_seconds") and progress.step < progress.total:
        parts.append(f"{_duration(progress.eta_seconds)} left")
    return ", ".join(parts)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
