"""What is asked: anything that takes questions and gives answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from cutoff.evaluator.memorization import Scored

BATCH = 64
"""Questions that transformers answers at once."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back for one question."""

    text: str
    cut: bool = False
    """Whether max_tokens ended it."""
    error: str = ""
    """Why there is no answer; empty when there is one."""


Role = Literal["system", "user", "assistant"]

Turn = tuple[Role, str]
"""Who says what."""


@dataclass(frozen=True, slots=True)
class Chat:
    """More than a plain question: several turns, and perhaps the beginning of the answer."""

    turns: tuple[Turn, ...]
    """The last one is the user's."""
    begun: str = ""
    """Words put into the model's mouth, which it goes on from."""

    @property
    def messages(self) -> list[dict[str, str]]:
        """The turns as chat APIs and templates take them."""
        return [{"role": role, "content": content} for role, content in self.turns]

    @property
    def text(self) -> str:
        """All of it, for people and for telling chats apart."""
        lines = [f"{role}: {content}" for role, content in self.turns]
        return "\n".join([*lines, f"assistant: {self.begun}"] if self.begun else lines)


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


@runtime_checkable
class ChatTaking(Protocol):
    """A target that can be asked more than plain questions."""

    def obstacle(self, chat: Chat) -> str:
        """Why a chat of this kind cannot be put to the target; empty when it can."""
        ...

    def replies(self, chats: Sequence[Chat], max_tokens: int) -> Iterator[tuple[int, Reply]]:
        """Yields (index of the chat, reply) as they come, in any order; `begun` is not repeated in the reply."""
        ...
