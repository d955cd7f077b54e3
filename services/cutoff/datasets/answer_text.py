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


def contradict(one: str, other: str) -> bool:
    """Whether two true answers to one question cannot both be meant: neither's words hold the other's."""
    first, second = set(_WORD.findall(one.casefold())), set(_WORD.findall(other.casefold()))
    return not (first <= second or second <= first)
