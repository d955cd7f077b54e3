"""How models decline to answer, as data. Everything here is matched against `grading.normalise`d text.

Normalised text is lower case, without accents, with straight apostrophes, contractions written out ("do not")
and single spaces.
"""

from __future__ import annotations

import re

CONTRACTIONS = {
    r"\bcan't\b": "cannot",
    r"\bcan not\b": "cannot",
    r"\bwon't\b": "will not",
    r"n't\b": " not",
    r"\bi'm\b": "i am",
    r"\bi've\b": "i have",
    r"\bi'd\b": "i would",
    r"\bit's\b": "it is",
    r"\bthat's\b": "that is",
}

_KNOWLEDGE = r"(information|info|knowledge|data|details?|records?|recollection|answers?|idea|clue)"
_ANY = r"(any |enough |the |much |an |specific |reliable |detailed |further |relevant |such |sufficient )*"
_TELL = r"(answer|share|help|provide|say|tell|discuss|comment|assist|confirm|speak|give|offer|respond)"

REFUSALS = tuple(
    re.compile(pattern)
    for pattern in (
        # The document's three, and their relatives.
        rf"\bno {_ANY}{_KNOWLEDGE}\b",
        rf"\b(do|did|does) not (have|hold|possess|contain) {_ANY}{_KNOWLEDGE}\b",
        rf"\bhave not (got )?{_ANY}{_KNOWLEDGE}\b",
        r"\b(i am|i would be|am) not (really |quite |entirely )?(sure|certain)\b",
        # Other ways to say the same.
        r"\bi (do|did) not (really )?(know|recall|remember|recognize|recognise)\b",
        r"\b(i am|am) (not (aware|familiar|acquainted|informed|knowledgeable)|unaware|unfamiliar|unsure)\b",
        rf"\b(i|we) (cannot|am unable to|am not able to|could not|will not|would not be able to) {_TELL}\b",
        r"\bi have (never heard|not heard)\b",
        r"\bi know (nothing|of no)\b",
        r"\b(beyond|outside|not within|past) (the scope of )?my (knowledge|training|information|expertise)\b",
        r"\bmy (knowledge|information|training)( data)? (does not|do not|ends|only goes)\b",
        r"\b(is|are|remains?) (unknown|not known|unfamiliar) to me\b",
        r"\bnot something i (know|am aware of|am familiar with|can answer)\b",
        rf"\bthere is nothing i can {_TELL}\b",
        r"^(my )?apologies\b",
        r"^(i am |we are )?(very |so )?sorry\b",
    )
)

HEDGES = re.compile(
    r"\b(but|however|though|although|still|that said)\b.{0,40}?"
    r"\b(i (think|believe|guess|suspect|assume)|it (was|is|might|may|could|must)|probably|perhaps|maybe|likely)\b"
)
"""What follows a refusal that then answers all the same: "I'm not sure, but I think it was Armstrong"."""

REFUSAL_WORDS = frozenset((
    "apologies", "information", "share", "matter", "sure", "topic", "sorry", "know", "anything", "subject", "aware",
    "cannot", "answer", "not", "no", "but", "so",
))  # fmt: skip
"""Words of polite refusals; one that is also a word of the truth gives nothing away."""

STOPWORDS = frozenset((
    "a", "an", "the", "of", "in", "on", "at", "to", "by", "for", "from", "with", "and", "or", "as", "is", "was",
    "were", "are", "be", "been", "it", "its", "this", "that", "these", "those", "he", "she", "his", "her", "him",
    "they", "them", "their", "who", "whom", "which", "what", "when", "where", "why", "how", "did", "do", "does",
    "has", "have", "had", "i", "you", "we", "my", "your", "our", "there", "then", "also",
))  # fmt: skip
"""Words that say nothing about whether an answer is right."""

_COUNTED = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
)  # fmt: skip
NUMBER_WORDS = {word: str(number) for number, word in enumerate(_COUNTED)}
"""Small numbers as people write them."""
