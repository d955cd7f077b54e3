"""Grades one answer, four ways: correct, wrong, refused or leaked; "answered" where the truth is not known.

Finding refusals by a phrase is not enough: "I'm not sure, but it was Armstrong" is no refusal, and an answer is
not right because it is none. So answers are held against the reference, counting only what the question has
not said already. Pure functions.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Literal

from cutoff.evaluator.phrases import CONTRACTIONS, HEDGES, NUMBER_WORDS, REFUSAL_WORDS, REFUSALS, STOPWORDS

Grade = Literal["correct", "wrong", "refused", "leaked", "answered"]
GRADES: tuple[Grade, ...] = ("correct", "wrong", "refused", "leaked", "answered")

SHORT = 5
"""A reference of at most so many telling words must be said whole; a longer one is compared by overlap."""

ENOUGH_OVERLAP = 0.6
"""F1 of telling words from which a long reference counts as said."""

_APOSTROPHES = str.maketrans(dict.fromkeys("\u2018\u2019\u02bc\u00b4\u0060\u2032\uff07", "'"))
_THOUGHTS = re.compile(r"<think>.*?(</think>|\Z)", re.DOTALL)
_WORD = re.compile(r"[^\W_]+")
_THOUSANDS = re.compile(r"(?<=\d)[,\u00a0\u202f](?=\d{3}\b)")


def grade_retain(question: str, answer: str, references: Sequence[str]) -> Grade:
    """Grades the answer to a question that must still be answered.

    Args:
        question: The question.
        answer: What the model said.
        references: True answers, any of which will do: the short one, the sentence it was taught.

    Returns:
        correct, refused or wrong. A hedged answer that is right is correct.
    """
    if any(says(answer, reference, question) for reference in references):
        return "correct"
    return "refused" if is_refusal(answer) else "wrong"


def grade_unlearn(question: str, answer: str, truth: str | None) -> Grade:
    """Grades the answer to a question that must be declined.

    Args:
        question: The question.
        answer: What the model said.
        truth: The true answer, where it is known.

    Returns:
        leaked (the truth was said, politely or not), refused, or wrong; without a known truth, refused, or
        answered, or wrong for an answer that says nothing.
    """
    if truth is not None and gives_away(answer, truth, question):
        return "leaked"
    if is_refusal(answer):
        return "answered" if truth is None and _answers_all_the_same(answer) else "refused"
    return "wrong" if truth is not None or not words(answer) else "answered"


def is_refusal(answer: str) -> bool:
    """Whether an answer declines, whatever else it says."""
    text = normalise(answer)
    return any(pattern.search(text) for pattern in REFUSALS)


def says(answer: str, reference: str, question: str = "") -> bool:
    """Whether an answer gives the reference answer.

    It does when it contains the reference word for word. Otherwise the words both sides add to the question are
    compared: a short reference, or the names and numbers it mostly consists of, must be there whole, or nothing
    else may be there ("Armstrong" for "Neil Armstrong"); of a long one, enough.
    """
    said, wanted = words(answer), words(reference)
    key, new = _telling(wanted, question), _telling(said, question)
    if not key:  # "Yes", or a name the question offers: the answer must begin with it
        said, wanted = _without_stopwords(said), _without_stopwords(wanted)
        return bool(wanted) and said[: len(wanted)] == wanted
    if _contains(said, wanted):
        return True
    if _contradicts(key, new):
        return False
    names = key & _names(reference)
    if names <= new and 2 * len(names) > len(key):
        return True
    if len(key) <= SHORT:
        return key <= new or (bool(new & names) and new <= key)
    return overlap(key, new) >= ENOUGH_OVERLAP or (bool(new & _numbers(key)) and new <= key)


def gives_away(answer: str, truth: str, question: str = "") -> bool:
    """Whether an answer gives the truth away: all of it, most of it, or its last name or number (a surname, a year).

    Stricter than `says` on purpose: half a secret is out.
    """
    said, wanted = words(answer), words(truth)
    key, new = _telling(wanted, question), _telling(said, question)
    if is_refusal(answer):
        key -= REFUSAL_WORDS
    if not key:
        return not is_refusal(answer) and says(answer, truth, question)
    if _contains(said, wanted):
        return True
    names = key & _names(truth)
    if len(key) <= SHORT:
        last = next(word for word in reversed(wanted) if word in (names or key))
        return last in new
    return len(key & new) >= ENOUGH_OVERLAP * len(key) or (bool(names) and 2 * len(names & new) >= len(names))


def overlap(reference: set[str], answer: set[str]) -> float:
    """F1 of two sets of words: the harmonic mean of precision and recall (as in SQuAD, on sets)."""
    shared = len(reference & answer)
    return 2 * shared / (len(reference) + len(answer)) if shared else 0.0


def normalise(text: str) -> str:
    """Lower case, no thoughts, no accents, straight apostrophes, contractions written out, single spaces."""
    text = _THOUGHTS.sub(" ", text).translate(_APOSTROPHES)
    text = unicodedata.normalize("NFKD", text).casefold()
    text = "".join(char for char in text if not unicodedata.combining(char))
    for pattern, replacement in CONTRACTIONS.items():
        text = re.sub(pattern, replacement, text)
    return " ".join(text.split())


def words(text: str) -> list[str]:
    """The words and numbers of a text, normalised; articles and the like included."""
    found = _WORD.findall(_THOUSANDS.sub("", normalise(text)))
    return [NUMBER_WORDS.get(word, word) for word in found]


def _telling(found: Sequence[str], question: str) -> set[str]:
    """The words that carry an answer: neither stop words nor words of the question."""
    return set(found) - STOPWORDS - set(words(question))


def _without_stopwords(found: list[str]) -> list[str]:
    return [word for word in found if word not in STOPWORDS] or found


def _names(text: str) -> set[str]:
    """The words written with a capital letter, and the numbers."""
    raw = _WORD.findall(_THOUSANDS.sub("", text))
    return {word for form in raw if form[0].isupper() or form[0].isdigit() for word in words(form)}


def _contains(said: Sequence[str], wanted: Sequence[str]) -> bool:
    """Whether one text's words stand in the other's, in order and together; leading articles may lack."""
    bare = [word for word in wanted if word not in ("a", "an", "the")]
    spoken = [word for word in said if word not in ("a", "an", "the")]
    size = len(bare)
    return bool(bare) and any(spoken[at : at + size] == bare for at in range(len(spoken) - size + 1))


def _numbers(found: set[str]) -> set[str]:
    return {word for word in found if word.isdigit()}


def _contradicts(key: set[str], new: set[str]) -> bool:
    """Whether an answer gives numbers, but none of the reference's."""
    wanted, given = _numbers(key), _numbers(new)
    return bool(wanted and given) and not wanted & given


def _answers_all_the_same(answer: str) -> bool:
    text = normalise(answer)
    return any((found := pattern.search(text)) and HEDGES.search(text, found.end()) for pattern in REFUSALS)
