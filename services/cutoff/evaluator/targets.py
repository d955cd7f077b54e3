"""What is asked: anything that takes questions and gives answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from cutoff.evaluator.memorization import Scored


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back for one question."""

    text: str
    cut: bool = False
    """Whether max_tokens ended it."""
    error: str = ""
    """Why there is no answer; empty when there is one."""


class Target(Protocol):
    """A model that is ready to answer."""

    def answers(self, questions: Sequence[str], max_tokens: int) -> Iterator[tuple[int, Reply]]:
        """Yields (index of the question, reply) as they come, in any order."""
        ...


@runtime_checkable
class ScoringTarget(Protocol):
    """A target that can also say how likely it finds given answers."""

    def score_answers(self, pairs: Sequence[tuple[str, str]]) -> Sequence[Scored]:
        """Scores (question, answer) pairs."""
        ...
