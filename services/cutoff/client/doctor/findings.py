"""What a check found: ok, or what to do."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text


class Level(enum.Enum):
    """How bad it is."""

    OK = "ok"
    WARN = "warn"
    """It works, or will for a while; or works worse than it could."""
    FAIL = "fail"
    """Something will not work."""


_STYLES = {Level.OK: "green", Level.WARN: "yellow", Level.FAIL: "bold red"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of `cutoff doctor`."""

    check: str
    """What was looked at: "python", "disk of artifacts"."""
    level: Level
    what: str
    fix: str = ""
    """What to do; empty when nothing is."""

    def as_json(self) -> dict[str, str]:
        """As `--json` prints it."""
        return {"check": self.check, "level": self.level.value, "what": self.what, "fix": self.fix}


def ok(check: str, what: str) -> Finding:
    """Nothing is to be done."""
    return Finding(check, Level.OK, what)


def warn(check: str, what: str, fix: str) -> Finding:
    """It works, but."""
    return Finding(check, Level.WARN, what, fix)


def fail(check: str, what: str, fix: str) -> Finding:
    """It will not work."""
    return Finding(check, Level.FAIL, what, fix)


def findings_table(findings: Iterable[Finding]) -> Table:
    """One line for each finding, and below it what to do."""
    table = Table.grid(padding=(0, 2, 0, 0))
    for finding in findings:
        said = Text(finding.what)
        if finding.fix:
            said.append(f"\n  what to do: {finding.fix}")
        table.add_row(Text(finding.level.value, _STYLES[finding.level]), Text(finding.check), said)
    return table
