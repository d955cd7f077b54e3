"""Whether a text gives a reference answer: names by their surname, dates by their year, lists item by item.

Only what the question has not said already counts. Pure functions.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from cutoff.evaluator.phrases import NO, REFUSAL_WORDS, YES
from cutoff.evaluator.spellings import MONTHS, STOPWORDS, TITLES, UNITS
from cutoff.evaluator.tokens import Token, one_edit_apart, plain, stem, tokens, words


class Match(IntEnum):
    """How much of a reference a text gives."""

    NONE = 0
    PARTLY = 1
    """A first name, one item of a list, part of a description: for a judge, if there is one."""
    LIKELY = 2
    """Enough to be taken for it, and not enough to be sure."""
    WHOLE = 3


SHORT = 5
"""A reference of at most so many telling words must be said whole; a longer one is compared by overlap."""

ENOUGH, SOME = 0.6, 0.35
"""F1 or recall of a long reference's telling words: from the first on it is said, from the second on partly."""

_ARTICLES = ("a", "an", "the")
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


@dataclass(frozen=True, slots=True)
class Said:
    """The words of a text."""

    spoken: tuple[str, ...]
    """All of them."""
    found: tuple[Token, ...]
    """Those that may be an answer's."""
    new: frozenset[str]
    """Their texts, without those of the question."""


def match(text: str, reference: str, question: str = "", secret: bool = False, polite: bool = False) -> Match:
    """How much of a reference a text gives, by the best of the reference's spellings.

    Args:
        text: What was said and not denied.
        reference: A true answer: a name, a number, a date, a list, or a sentence.
        question: What was asked: its words prove nothing.
        secret: Whether half of it is already too much, as with a truth that must not be said.
        polite: Whether the text is a refusal, whose own words ("that matter") are no part of an answer.
    """
    spoken = tokens(text)
    found = tuple(token for token in spoken if not polite or token.capital or token.text not in REFUSAL_WORDS)
    new = frozenset(_telling([token.text for token in found], question))
    said = Said(tuple(token.text for token in spoken), found, new)
    return max((_match(said, one, question, secret) for one in _spellings(reference)), default=Match.NONE)


def polarity(text: str, question: str = "") -> bool | None:
    """Whether a clause answers yes or no; None when it does neither."""
    bare = " ".join(plain(text).strip(" .,!\"'*").split())
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


def overlap(reference: set[str] | frozenset[str], answer: set[str] | frozenset[str]) -> float:
    """F1 of two sets of words: the harmonic mean of precision and recall (as in SQuAD, on sets)."""
    shared = len(reference & answer)
    return 2 * shared / (len(reference) + len(answer)) if shared else 0.0


def contains(said: Sequence[str], wanted: Sequence[str]) -> int:
    """How often one text's words stand in the other's, in order and together; articles do not count."""
    bare, spoken = ([word for word in found if word not in _ARTICLES] for found in (wanted, said))
    if not bare:  # "A" is an answer too
        bare, spoken = list(wanted), list(said)
    size = len(bare)
    return sum(spoken[at : at + size] == bare for at in range(len(spoken) - size + 1)) if bare else 0


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
    key = _telling([token.text for token in target], question) or set()
    if not key:
        return _offered(said, [token.text for token in target], question)
    if contains(said.spoken, [token.text for token in target]):
        return Match.WHOLE
    numbers = {word for word in key if word[0].isdigit()}
    names = [token for token in target if token.text in key and token.capital and token.text not in MONTHS]
    if numbers and key <= numbers | set(MONTHS) | UNITS:
        return _number(said, target, numbers, question)
    if _acronym(said, target):
        return Match.WHOLE
    items = [item for item in _ITEMS.split(wanted) if words(item)]
    if 1 < len(items) <= 6 and all(len(words(item)) <= 4 for item in items) and _is_list(wanted, items):
        return _list(said, items, target, question, secret)
    if len(items) == 2 and len(key) <= SHORT and key == {token.text for token in names}:  # "Dallas, Texas"
        return max(_name(said, tokens(items[0]), target, question), Match.NONE)
    if len(key) <= SHORT and key == numbers | {token.text for token in names}:
        return _name(said, target, target, question)
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
    first = min(spoken.index(word) for word in (bare[0], other))
    return Match.LIKELY if spoken[first] == bare[0] else Match.NONE


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


def _name(said: Said, wanted: Sequence[Token], whole: Sequence[Token], question: str) -> Match:
    """A name: its last word will do, unless another first name stands before it ("Martha Washington")."""
    asked = set(words(question))
    known = {token.text for token in whole}
    telling = [t for t in wanted if t.text not in STOPWORDS | TITLES | asked and (len(t.text) > 1 or t.text.isdigit())]
    if not telling:
        return Match.NONE
    last = telling[-1].text
    if last.isdigit():  # Henry VIII, Apollo 11: the number alone is no name
        return Match.WHOLE if contains([t.text for t in said.found], [t.text for t in telling]) else Match.NONE
    best = Match.NONE
    for at, token in enumerate(said.found):
        slip = one_edit_apart(token.text, last)
        if token.text == last or slip or (len(telling) == 1 and stem(token.text) == stem(last)):
            best = (
                max(best, Match.LIKELY if slip else Match.WHOLE)
                if _fits(said.found, at, known | asked)
                else max(best, Match.PARTLY)
            )
    if best == Match.NONE and any(t.text in {token.text for token in said.found} for t in telling[:-1]):
        return Match.PARTLY
    return best


def _fits(found: Sequence[Token], at: int, known: set[str]) -> bool:
    """Whether what stands before a surname belongs to its name: nothing, a title, an initial, a known name."""
    if at == 0 or found[at].fresh:
        return True
    before = found[at - 1]
    if not before.capital or len(before.text) == 1 or before.text in known | STOPWORDS | TITLES | REFUSAL_WORDS:
        return True
    if before.text[0] in known:  # Reuel Tolkien for R. Tolkien
        return True
    return any(one_edit_apart(before.text, word) for word in known) or (before.shouted and len(before.text) <= 3)


def _list(said: Said, items: Sequence[str], target: Sequence[Token], question: str, secret: bool) -> Match:
    """A list: all of it, in any order; of a secret, any item."""
    given = [_item(said, tokens(item), target, question) for item in items]
    if all(one >= Match.LIKELY for one in given):
        return min(given)
    return (Match.LIKELY if secret else Match.PARTLY) if Match.WHOLE in given else Match.NONE


def _item(said: Said, item: Sequence[Token], target: Sequence[Token], question: str) -> Match:
    telling = _telling([token.text for token in item], question) - TITLES
    if not telling:
        return Match.WHOLE  # the question said it
    if any(token.capital for token in item) and len(telling) > 1:
        return _name(said, item, target, question)
    return Match.WHOLE if {stem(w) for w in telling} <= {stem(token.text) for token in said.found} else Match.NONE


def _is_list(wanted: str, items: Sequence[str]) -> bool:
    return len(items) > 2 or bool(re.search(r"\s(and|&)\s", wanted))


def _acronym(said: Said, target: Sequence[Token]) -> bool:
    """Whether either side is the other's initials: UN and United Nations."""
    initials = "".join(token.text[0] for token in target if token.capital)
    if len(initials) > 1 and any(token.shouted and token.text == initials for token in said.found):
        return True
    shouted = [token.text for token in target if token.text not in STOPWORDS]
    if len(shouted) != 1 or len(shouted[0]) < 3 or not any(token.shouted for token in target):
        return False
    letters = "".join(token.text[0] for token in said.found if token.text not in STOPWORDS)
    return shouted[0] in letters


def _focus(wanted: str, target: Sequence[Token], key: set[str], question: str) -> list[Token] | None:
    """The words of a sentence that answer the question: its year, its number, its name; None when all of it does."""
    telling = [token for token in target if token.text in key]
    if _WHEN.search(question):
        return [token for token in telling if token.text.isdigit() and len(token.text) == 4][:1] or None
    if _HOW_MANY.search(question):
        return [token for token in telling if token.text[0].isdigit()][:1] or None
    named = [token for token in telling if token.capital and token.text not in MONTHS and not token.text.isdigit()]
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
    return _name(said, focus, focus, question)


def _described(said: Said, key: set[str], names: set[str], secret: bool) -> Match:
    """A description: enough of its telling words, whatever their endings; or nothing but them."""
    wanted, new = frozenset(map(stem, key)), frozenset(map(stem, said.new - REFUSAL_WORDS))
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
    return Match.PARTLY if recall >= SOME else Match.NONE


def _telling(found: Sequence[str], question: str) -> set[str]:
    """The words that carry an answer: neither stop words nor words of the question."""
    return set(found) - STOPWORDS - set(words(question))
