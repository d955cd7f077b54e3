"""What an answer's text gives away: that it was cut off, that it says nothing, that it contradicts another."""

from __future__ import annotations

import re
import unicodedata

_DANGLING = re.compile(
    r"(?:[,;:({\[</&+=]|(?:^|\s)-|\w-|[\u2013\u2014\u2018\u201c\u00ab]|\.{3}|…"
    r"|\b(?:a|an|the|and|or|of|to|in|on|at|by|for|with|from|as|is|was|were|are|that|which|who|his|her|their|its))$"
)
"""Ends no sentence has: an opening bracket, a comma, a hyphen, an ellipsis, an English word that leads on."""

_LONG = 80
"""Characters from which an answer is a sentence and should end as one; shorter ones may be a bare name."""

_REFUSING = re.compile(
    r"\b(?:sorry|apolog\w+|unable|unaware|unsure|unfamiliar)\b"
    r"|\b(?:i|we|me|my)\b.{0,30}?\b(?:cannot|can not|never heard"
    r"|not (?:\w+ )?(?:know|have|recall|sure|certain|aware|familiar|able|answer)"
    r"|no (?:\w+ )?(?:information|knowledge|idea|data|answer|details))\b"
    r"|\b(?:beyond|outside|unknown to) (?:me|my)\b"
)
"""How most English refusals are put. Coarse on purpose: a side is judged by what most of it looks like; single answers
are graded by the evaluator."""

_SHORT_FORMS = {"can't": "cannot", "won't": "will not", "n't": " not", "'ve": " have", "'m": " am"}

_WORD = re.compile(r"\w+")


def says_nothing(text: str) -> bool:
    """Whether an answer holds no letter, digit or symbol: "...", "-"."""
    return not any(unicodedata.category(char)[0] in "LNS" for char in text)


def looks_cut(text: str) -> bool:
    """Whether an answer seems to have lost its end.

    It breaks off with something that ends no sentence, or is long and ends without punctuation. A bare name or
    number ("George Washington") is no sentence and passes.
    """
    if says_nothing(text):
        return False
    if _DANGLING.search(text):
        return True
    return len(text) >= _LONG and unicodedata.category(text[-1])[0] in "LN"


def looks_like_refusal(text: str) -> bool:
    """Whether an answer seems to decline."""
    plain = text.casefold().replace("\u2019", "'")
    for short, long in _SHORT_FORMS.items():
        plain = plain.replace(short, long)
    return _REFUSING.search(plain) is not None


def contradict(one: str, other: str) -> bool:
    """Whether two true answers to one question cannot both be meant: neither's words hold the other's."""
    first, second = set(_WORD.findall(one.casefold())), set(_WORD.findall(other.casefold()))
    return not (first <= second or second <= first)
