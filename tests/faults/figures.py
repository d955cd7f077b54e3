"""The figures that tests of faults measure, held against their limits and printed as one table at the end."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path

FILE = Path(__file__).parents[2] / "build" / "reliability.md"
"""What docs/reliability.md quotes."""


@dataclass(frozen=True)
class Figure:
    """One line of the table."""

    scenario: str
    tries: int
    what: str
    value: float
    limit: float

    def row(self) -> str:
        held = "" if self.value <= self.limit else " **too many**"
        return f"| {self.scenario} | {self.tries} | {self.what} | {self.value:g}{held} | {self.limit:g} |"


class Figures:
    """Everything a session measured."""

    def __init__(self) -> None:
        self.all: list[Figure] = []

    def hold(self, scenario: str, tries: int, limit: float = 0, **values: float) -> None:
        """Notes what was counted in so many tries, and fails when one of the values is above the limit."""
        assert tries > 0, f"{scenario} was not tried"
        new = [Figure(scenario, tries, what.replace("_", " "), value, limit) for what, value in values.items()]
        self.all += new
        above = [figure.row() for figure in new if figure.value > limit]
        assert not above, "\n".join(above)

    def table(self) -> str:
        """As Markdown."""
        head = ["| scenario | tries | what | figure | limit |", "|---|---|---|---|---|"]
        return "\n".join([*head, *(figure.row() for figure in self.all)]) + "\n"

    def save(self) -> None:
        FILE.parent.mkdir(exist_ok=True)
        day = datetime.datetime.now(datetime.UTC).date()
        FILE.write_text(f"Measured on {day} by `make test-faults`.\n\n{self.table()}")
