"""What is compared: the words of an answer, and how much of a reference they give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from cutoff.evaluator.spellings import STOPWORDS
from cutoff.evaluator.tokens import Token, words

_ARTICLES = ("a", "an", "the")


class Match(IntEnum):
    """How much of a reference a text gives."""

    NONE = 0
    PARTLY = 1
    """A first name, one item of a list, part of a description: for a judge, if there is one."""
    LIKELY = 2
    """Enough to be taken for it, and not enough to be sure."""
    WHOLE = 3


@dataclass(frozen=True, slots=True)
class Said:
    """The words of a text."""

    text: str
    spoken: tuple[str, ...]
    """All of them."""
    found: tuple[Token, ...]
    """Those that may be an answer's."""
    new: frozenset[str]
    """Their texts, without those of the question."""


def telling(found: Sequence[str], question: str) -> set[str]:
    """The words that carry an answer: neither stop words nor words of the question."""
    return set(found) - STOPWORDS - set(words(question))


def contains(said: Sequence[str], wanted: Sequence[str]) -> int:
    """How often one text's words stand in the other's, in order and together; articles do not count."""
    bare, spoken = ([word for word in found if word not in _ARTICLES] for found in (wanted, said))
    if not bare:  # "A" is an answer too
        bare, spoken = list(wanted), list(said)
    size = len(bare)
    return sum(spoken[at : at + size] == bare for at in range(len(spoken) - size + 1)) if bare else 0


def overlap(reference: set[str] | frozenset[str], answer: set[str] | frozenset[str]) -> float:
    """F1 of two sets of words: the harmonic mean of precision and recall (as in SQuAD, on sets)."""
    shared = len(reference & answer)
    return 2 * shared / (len(reference) + len(answer)) if shared else 0.0
