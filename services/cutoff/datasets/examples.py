"""One question with its answer, and the faults that are collected while files are read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from cutoff.errors import Fault, InvalidInput

Side = Literal["retain", "unlearn"]
"""What a question is for: to be answered still (before the cutoff), or to be declined (after it)."""

SIDES: tuple[Side, ...] = ("retain", "unlearn")

SHOWN_FAULTS = 50
"""How many faults an error lists; it counts all of them."""


@dataclass(frozen=True, slots=True)
class Example:
    """One line of a data set."""

    instruction: str
    output: str
    """What the model is taught to answer: the fact on the retain side, a refusal on the unlearn side."""
    side: Side
    source: str
    """The file, as the user names it, and the line: "retain/retain_train.jsonl:17"."""
    year: int | None = None
    original_answer: str | None = None
    """The true answer, where it is known; on the unlearn side it is what must not be said."""


class InvalidData(InvalidInput):
    """Files hold faults. The first `SHOWN_FAULTS` are listed, all are counted.

    Args:
        shown: The faults to list, at least one.
        count: How many there are.
    """

    def __init__(self, shown: list[Fault], count: int) -> None:
        super().__init__(shown)
        self.count = count
        if count > len(shown):
            lines = [f"{count} faults in the input:", *(f"  {fault}" for fault in shown)]
            self.message = "\n".join([*lines, f"  and {count - len(shown)} more"])


class Faults:
    """Collects what is wrong with files; remembers no more than is shown."""

    def __init__(self) -> None:
        self._shown: list[Fault] = []
        self.count = 0

    @property
    def shown(self) -> tuple[Fault, ...]:
        """The first of them."""
        return tuple(self._shown)

    def add(self, where: str, what: str, fix: str) -> None:
        """Notes one fault."""
        self.count += 1
        if len(self._shown) < SHOWN_FAULTS:
            self._shown.append(Fault(where, what, fix))

    def extend(self, faults: Iterable[Fault]) -> None:
        """Notes faults somebody else found."""
        for fault in faults:
            self.add(fault.where, fault.what, fault.fix)

    @contextmanager
    def collected(self) -> Iterator[None]:
        """Notes the faults that a block raises, and goes on after it."""
        try:
            yield
        except InvalidInput as error:
            before = self.count
            self.extend(error.faults)
            self.count = before + getattr(error, "count", len(error.faults))

    def raise_if_any(self) -> None:
        """Ends the reading when anything was wrong.

        Raises:
            InvalidData: With every fault that was noted.
        """
        if self.count:
            raise InvalidData(self._shown, self.count)
