"""Takes an answer apart: what it asserts, denies, takes back, says in passing, where it declines. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from cutoff.evaluator.phrases import (
    AFFIRMATIONS,
    ASIDES,
    CORRECTIONS,
    CUES,
    DECLINES,
    FILLERS,
    HEARSAY,
    KIN,
    NEGATED_VERB,
    NEGATION,
    REFUSAL_WORDS,
    SOFTENERS,
)
from cutoff.evaluator.spellings import STOPWORDS
from cutoff.evaluator.tokens import plain, tokens, without_thoughts, words

Standing = Literal["asserted", "denied", "withdrawn", "aside", "declining"]

_SENTENCE_END = re.compile(r"(?<=[.!?;:])(?<!\b[A-Za-z]\.)(?<!\b(?:Mr|Dr|St|Lt)\.)(?<!\b(?:Mrs|Gen|Col|Sen|Rev)\.)\s+")
_TURN = re.compile(r"(?:[,;]?\s+\b)(but|however|although|though|yet)(?:\b,?\s+)|\s[\u2013\u2014-]\s", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of an answer, in `plain` text."""

    text: str
    standing: Standing
    first: bool = False
    """Whether it begins the answer's first clause."""


@dataclass(frozen=True, slots=True)
class Reading:
    """An answer taken apart."""

    parts: tuple[Part, ...]
    declines: bool
    """It says that it does not know, or will not say."""
    claims: Literal["nothing", "something", "an answer"]
    """What it says besides: something that may be an answer, or what is told as one."""

    def text(self, *standings: Standing) -> str:
        """What has one of these standings, one clause a sentence."""
        return " . ".join(part.text for part in self.parts if part.standing in standings)


def read(answer: str, question: str = "", may_deny: bool = True) -> Reading:
    """Takes an answer apart.

    Args:
        answer: What the model said.
        question: What it was asked: words of the question are no claim.
        may_deny: Whether "not" takes back what it stands with; not so where the reference has a "not" of its own.
    """
    clauses, conceding = _clauses(answer)
    declining = [bool(DECLINES.search(_end_off(clause))) for clause in clauses]
    parts: list[Part] = []
    for at, clause in enumerate(clauses):
        if CORRECTIONS.search(clause) and not declining[at]:
            parts = _standing("withdrawn", parts)
        if declining[at]:
            parts.append(Part(clause, "declining", at == 0))
            continue
        pieces = list(_pieces(clause, at == 0, may_deny))
        if HEARSAY.search(clause) and any(_claim(other, question) for other in clauses[at + 1 :]):
            pieces = _standing("withdrawn", pieces)
        elif conceding[at] and any(part.standing == "asserted" for part in parts):
            pieces = _standing("aside", pieces)
        parts += pieces
    softened = any(SOFTENERS.search(_end_off(clause)) for clause in clauses)
    claims = _claims(clauses, declining, question)
    return Reading(tuple(parts), any(declining) or (softened and claims == "nothing"), claims)


def _clauses(answer: str) -> tuple[list[str], list[bool]]:
    """The clauses of an answer, and for each whether it concedes something to the one before ("though ...")."""
    found: list[tuple[str, bool]] = []
    for line in without_thoughts(answer).splitlines():
        for sentence in _SENTENCE_END.split(plain(line).strip("*-# ")):
            pieces = _TURN.split(sentence)
            turns = ["", *(turn or "" for turn in pieces[1::2])]
            found += [
                (piece.strip(" *_\"'"), "though" in turn.lower())
                for piece, turn in zip(pieces[::2], turns, strict=True)
            ]
    kept = [(clause, concedes) for clause, concedes in found if words(clause)]
    return [clause for clause, _ in kept], [concedes for _, concedes in kept]


def _claims(
    clauses: Sequence[str], declining: Sequence[bool], question: str
) -> Literal["nothing", "something", "an answer"]:
    """What the clauses that do not decline amount to."""
    claiming = [at for at, clause in enumerate(clauses) if not declining[at] and _claim(clause, question)]
    if not claiming:
        return "nothing"
    refused = next((at for at, flag in enumerate(declining) if flag), len(clauses))
    for at in claiming:
        clause = clauses[at]
        if CUES.search(clause) or refused == len(clauses) or (at < refused and _has_names(clause, question)):
            return "an answer"
    return "something"


def _claim(clause: str, question: str) -> bool:
    """Whether a clause says something that neither the question nor politeness says."""
    if FILLERS.search(clause):
        return False
    said = set(words(SOFTENERS.sub(" ", _end_off(clause)))) - STOPWORDS - REFUSAL_WORDS
    return bool(said - set(words(question)))


def _has_names(clause: str, question: str) -> bool:
    known = set(words(question)) | STOPWORDS | REFUSAL_WORDS
    return any((one.capital or one.text[0].isdigit()) and one.text not in known for one in tokens(clause))


def _pieces(clause: str, first: bool, may_deny: bool) -> Iterator[Part]:
    """A clause that does not decline: its asides, what it denies, and the rest."""
    for aside in (ASIDES, KIN):
        for match in aside.finditer(clause):
            yield Part(match.group().strip(", "), "aside", first)
        clause = aside.sub(" ,", clause)
    denied, asserted = _denials(clause) if may_deny else ("", clause)
    if words(asserted):
        yield Part(asserted.strip(), "asserted", first)
    if words(denied):
        yield Part(denied.strip(" ,"), "denied", first)


def _denials(clause: str) -> tuple[str, str]:
    """What a clause denies, and what it asserts. Two negations are none; a question ("wasn't it X?") denies nothing."""
    bare = AFFIRMATIONS.sub(lambda match: " " * len(match.group()), clause)
    cues = list(NEGATION.finditer(bare))
    verb = NEGATED_VERB.search(bare)
    count = len(cues) + (verb is not None and not any(cue.start() < verb.end() <= cue.end() for cue in cues))
    if count % 2 == 0 or clause.endswith("?"):
        return "", clause
    if verb is not None:
        start, end = bare.rfind(",", 0, verb.start()) + 1, bare.find(",", verb.end())
    else:
        start, end = cues[0].start(), bare.find(",", cues[0].end())
    end = len(clause) if end < 0 else end
    return clause[start:end], f"{clause[:start]}{clause[end:]}"


def _standing(standing: Standing, parts: Sequence[Part]) -> list[Part]:
    """Parts of which what was asserted has another standing."""
    return [Part(part.text, standing, part.first) if part.standing == "asserted" else part for part in parts]


def _end_off(clause: str) -> str:
    return clause.rstrip(".!?;:, ")
