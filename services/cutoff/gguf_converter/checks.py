"""The record of what was checked before anything is published: a row each, with its figure, verdict and time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from cutoff.stage.report import Reporter

Name = Literal["weights", "tensors", "size", "perplexity", "answer", "tokens", "sha256"]
"""docs/converting.md says what each is."""

ALL = "all"
"""The target of a check that holds for every file."""


@dataclass(slots=True)
class Check:
    """One row. A check that fails raises instead, and nothing is published."""

    name: Name
    target: str
    """A quantization type, or ALL."""
    figure: str = ""
    """What was measured, with its unit."""
    verdict: str = ""
    """What it means, in words."""
    state: Literal["passed", "warned", "skipped"] = "passed"
    seconds: float = 0.0

    def passed(self, figure: str, verdict: str) -> None:
        """Says what was found."""
        self.figure, self.verdict = figure, verdict

    def warned(self, figure: str, verdict: str) -> None:
        """Says what was found, and that a user should read it."""
        self.figure, self.verdict, self.state = figure, verdict, "warned"

    def skipped(self, why: str) -> None:
        """Says that nothing was measured, and why."""
        self.verdict, self.state = why, "skipped"

    def __str__(self) -> str:
        figure = f"{self.figure}; " if self.figure else ""
        return f"check {self.name} of {self.target}: {figure}{self.verdict} ({self.seconds:.1f} s)"


class Checks:
    """Collects rows, and logs each as it is done.

    Args:
        report: Where rows are logged.
    """

    def __init__(self, report: Reporter) -> None:
        self._report = report
        self.rows: list[Check] = []

    @contextmanager
    def row(self, name: Name, target: str = ALL) -> Iterator[Check]:
        """Times a block; the block says what it found, or raises."""
        check = Check(name, target)
        started = time.monotonic()
        yield check
        check.seconds = time.monotonic() - started
        self.rows.append(check)
        self._report.log(str(check), "INFO" if check.state == "passed" else "WARNING")
