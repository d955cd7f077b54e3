"""Whether a text gives a reference answer: names by their surname, dates by their year, lists item by item.

Only what the question has not said already counts. Pure functions.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from cutoff.evaluator.matching import Match, Said, contains, overlap, telling
from cutoff.evaluator.names import is_acronym, is_list, match_list, match_name
from cutoff.evaluator.phrases import NO, REFUSAL_WORDS, YES
from cutoff.evaluator.spellings import MONTHS, STOPWORDS, UNITS
from cutoff.evaluator.tokens import Token, plain, stem, tokens, words

SHORT = 5
"""A reference of at most so many telling words must be said whole; a longer one is compared by overlap."""

ENOUGH, HALF, SOME = 0.6, 0.5, 0.35
"""Recall or F1 of a long reference's telling words: from the first on it is said, from the second on a secret is out,
from the third on it is partly said."""

_OTHERWISE = re.compile(
    r"\s*(?:\((?:now|formerly|also(?: known as)?|or|i\.e\.|aka)?\s*([^)]*)\)|\bor\b|\balso known as\b|/)\s*"
)
_APPOSITION = re.compile(r",\s+(?:the|an?|which|who|then|now)\b.*$", re.IGNORECASE)
_ITEMS = re.compile(r",?\s+(?:and|&)\s+|,\s+", re.IGNORECASE)
_WHEN = re.compile(
    r"^(when|(in|on|by|since|until) (what|which) (year|date|day|decade|century))|what (year|date|day)\b", re.IGNORECASE
)
_HOW_MANY = re.compile(r"\bhow (many|much|old|long|far|high|fast|tall|big|large|deep)\b|what number", re.IGNORECASE)
_WHO = re.compile(
    r"\b(who|whom|whose|by whom|which (person|man|woman|king|queen|president|composer|painter))\b", re.IGNORECASE
)
_WHERE = re.compile(r"\bwhere\b|\b(which|what) (town|city|place|country|state|village)\b", re.IGNORECASE)
_DEFINED = re.compile(r"^\W*(?:who|what) (?:was|is|were|are) ((?:the |an? )?[A-Z][\w.'-]*(?: [A-Z][\w.'-]*)*)\W*$")
_DAY = re.compile(r"\b(date|day|month)\b", re.IGNORECASE)


def match(text: str, reference: str, question: str = "", secret: bool = False, polite: bool = False) -> Match:
    """How much of a reference a text gives, by the best of the reference's spellings.

    Args:
        text: What was said and not denied.
        reference: A true answer: a name, a number, a date, a list, or a sentence.
        question: What was asked: its words prove nothing.
        secret: Whether half of it is already too much, as with a truth that must not be said.
        polite: Whether the text is a refusal, whose own words ("that matter") are no part of an answer.
    """
    if not text:
        return Match.NONE
    spoken = tokens(text)
    found = tuple(token for token in spoken if not polite or token.capital or token.text not in REFUSAL_WORDS)
    new = frozenset(telling([token.text for token in found], question))
    said = Said(text, tuple(token.text for token in spoken), found, new)
    return max((_match(said, one, question, secret) for one in _spellings(reference)), default=Match.NONE)


def polarity(text: str, question: str = "") -> bool | None:
    """Whether a clause answers yes or no; None when it does neither."""
    bare = " ".join(re.sub(r"\A[\W_]+|[\W_]+\Z", "", plain(text)).split())
    if YES.search(bare):
        return True
    if NO.search(bare) or re.search(r"\b(not|never)\b", bare, re.IGNORECASE):
        return False
    asked = {stem(word) for word in words(question) if word not in STOPWORDS}
    return True if len(asked & {stem(word) for word in words(bare)}) >= max(1, len(asked) // 2) else None


def asks_yes_or_no(reference: str) -> bool | None:
    """Whether a reference is a plain yes (True) or no (False)."""
    first = words(reference)[:1]
    return {"yes": True, "no": False}.get(first[0]) if first else None


def _spellings(reference: str) -> list[str]:
    """A reference and its variants: without what explains it, and its other names."""
    text = plain(reference)
    found = [text, _APPOSITION.sub("", text)]
    if len(words(text)) <= 2 * SHORT:
        parts = [part for part in _OTHERWISE.split(text) if part and words(part)]
        found += parts if len(parts) > 1 else []
    return list(dict.fromkeys(one for one in found if words(one)))


def _match(said: Said, wanted: str, question: str, secret: bool) -> Match:
    target = tokens(wanted)
    key = telling([token.text for token in target], question) or set()
    if not key:
        return _offered(said, [token.text for token in target], question)
    if contains(said.spoken, [token.text for token in target]):
        return Match.WHOLE
    numbers = {word for word in key if word[0].isdigit()}
    names = [t for t in target if t.text in key and t.capital and t.text not in MONTHS and t.text not in UNITS]
    if numbers and key <= numbers | set(MONTHS) | UNITS:
        return _number(said, target, numbers, question)
    if is_acronym(said, target):
        return Match.WHOLE
    items = [item for item in _ITEMS.split(wanted) if words(item)]
    if 1 < len(items) <= 6 and all(len(words(item)) <= 4 for item in items) and is_list(wanted, items):
        return match_list(said, items, target, question, secret)
    if len(items) == 2 and len(key) <= SHORT and key == {token.text for token in names}:  # "Dallas, Texas"
        return match_name(said, tokens(items[0]), target, question)
    bare = not numbers or len(target) <= len(key) + 1  # Henry VIII, and not a sentence with a year
    if bare and len(key) <= SHORT and key == numbers | {token.text for token in names}:
        return match_name(said, target, target, question)
    focus = _focus(wanted, target, key, question)
    if focus is not None:
        return _of_focus(said, focus, question)
    return _described(said, key, {token.text for token in names}, secret)


def _offered(said: Said, wanted: list[str], question: str) -> Match:
    """The question names the answer: it must be chosen, not only repeated."""
    bare = [word for word in wanted if word not in STOPWORDS] or wanted
    spoken = [token.text for token in said.found if token.text not in STOPWORDS] or [t.text for t in said.found]
    if not contains(spoken, bare):
        return Match.NONE
    other = _other_choice(bare, question)
    if other is None:
        ends = spoken[: len(bare)] == bare or spoken[-len(bare) :] == bare
        return Match.WHOLE if ends or contains(spoken, bare) > 1 else Match.NONE
    if other not in spoken:
        return Match.WHOLE
    for clause in reversed([set(words(clause)) for clause in said.text.split(" . ")]):
        if (bare[0] in clause) != (other in clause):
            return Match.LIKELY if bare[0] in clause else Match.NONE
    return Match.LIKELY if spoken.index(bare[0]) < spoken.index(other) else Match.NONE


def _other_choice(wanted: Sequence[str], question: str) -> str | None:
    """What the question offers instead: the word on the other side of its "or"."""
    sides = [[w for w in words(part) if w not in STOPWORDS] for part in re.split(r"\bor\b", question)]
    if len(sides) != 2 or not all(sides):
        return None
    left, right = sides
    return right[0] if contains(left, wanted) else left[-1] if contains(right, wanted) else None


def _number(said: Said, target: Sequence[Token], numbers: set[str], question: str) -> Match:
    """A number or a date: the number must be there, of the same unit; of a date, its year."""
    spoken = [token.text for token in said.found]
    months = {token.text for token in target} & set(MONTHS)
    years = {number for number in numbers if len(number) == 4}
    if months and years:
        given = set(spoken) & set(MONTHS)
        if not years <= set(spoken):
            return Match.NONE
        if given and not given & months:
            return Match.PARTLY
        days, others = numbers - years, {w for w in spoken if w.isdigit() and len(w) <= 2}
        if (given and days and others and not days & others) or (_DAY.search(question) and not given):
            return Match.PARTLY
        return Match.WHOLE
    if months:
        return Match.WHOLE if months <= set(spoken) and numbers <= set(spoken) else Match.NONE
    if not numbers <= set(spoken):
        return Match.NONE
    unit = next((token.text for token in target if token.text in UNITS), None)
    for at, word in enumerate(spoken):
        near = {*spoken[max(0, at - 1) : at], *spoken[at + 1 : at + 2]} & UNITS
        if word in numbers and (unit is None or not near or unit in near or near <= {"dollar"}):
            return Match.WHOLE
    return Match.NONE


def _focus(wanted: str, target: Sequence[Token], key: set[str], question: str) -> list[Token] | None:
    """The words of a sentence that answer the question: its year, its number, its name; None when all of it does."""
    telling = [token for token in target if token.text in key]
    if _WHEN.search(question):
        return [token for token in telling if token.text.isdigit() and len(token.text) == 4][:1] or None
    if _HOW_MANY.search(question):
        return [token for token in telling if token.text[0].isdigit()][:1] or None
    named = [t for t in telling if t.capital and t.text not in MONTHS and t.text not in UNITS and not t.text.isdigit()]
    if _DEFINED.search(question) or not named or len(words(wanted)) <= SHORT:
        return None
    if _WHO.search(question):
        return _first_run(target, {token.text for token in named})
    return named if _WHERE.search(question) and len(named) <= 3 else None


def _first_run(target: Sequence[Token], named: set[str]) -> list[Token]:
    """The first name of several words, or the first name."""
    runs: list[list[Token]] = [[]]
    for token in target:
        if token.text in named and token.capital:
            runs[-1].append(token)
        elif runs[-1]:
            runs.append([])
    runs = [run for run in runs if run]
    return next((run for run in runs if len(run) > 1), runs[0])


def _of_focus(said: Said, focus: Sequence[Token], question: str) -> Match:
    spoken = {token.text for token in said.found}
    if focus[0].text[0].isdigit() or _WHERE.search(question):
        given = sum(token.text in spoken for token in focus)
        return Match.WHOLE if given == len(focus) else Match.PARTLY if given else Match.NONE
    return match_name(said, focus, focus, question)


def _described(said: Said, key: set[str], names: set[str], secret: bool) -> Match:
    """A description: enough of its telling words, whatever their endings; or nothing but them."""
    wanted = frozenset(map(stem, key - REFUSAL_WORDS or key))
    new = frozenset(map(stem, said.new - REFUSAL_WORDS))
    named = frozenset(map(stem, names))
    figures = ({word for word in each if word.isdigit()} for each in (wanted, new))
    numbers, given = figures
    shared = wanted & new
    if numbers and given and not numbers & given:
        return Match.PARTLY if len(shared) >= SOME * len(wanted) else Match.NONE
    if wanted <= new or (named and named <= new and 2 * len(named) > len(wanted)):
        return Match.WHOLE
    if len(wanted) <= SHORT and not secret:
        close = overlap(wanted, new) >= ENOUGH or (bool(new) and new <= wanted and 2 * len(new) >= len(wanted))
        return Match.LIKELY if close else Match.PARTLY if shared else Match.NONE
    recall = len(shared) / len(wanted)
    if max(recall, overlap(wanted, new)) >= ENOUGH:
        return Match.WHOLE
    if len(new) > 1 and new <= wanted:
        return Match.LIKELY
    if secret and named and 2 * len(named & new) >= len(named):
        return Match.LIKELY
    if secret and recall >= HALF:
        return Match.LIKELY
    return Match.PARTLY if recall >= SOME else Match.NONE
