"""Names and lists of them: a surname will do, initials too, a list item by item. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Sequence

from cutoff.evaluator.matching import Match, Said, contains, telling
from cutoff.evaluator.phrases import REFUSAL_WORDS
from cutoff.evaluator.spellings import STOPWORDS, TITLES
from cutoff.evaluator.tokens import Token, one_edit_apart, stem, tokens, words


def match_name(said: Said, wanted: Sequence[Token], whole: Sequence[Token], question: str) -> Match:
    """A name: its last word will do, unless another first name stands before it ("Martha Washington")."""
    asked = set(words(question))
    known = {token.text for token in whole}
    own = [t for t in wanted if t.text not in STOPWORDS | TITLES | asked and (len(t.text) > 1 or t.text.isdigit())]
    if not own:
        return Match.NONE
    last = own[-1].text
    if last.isdigit():  # Henry VIII, Apollo 11: the number alone is no name
        return Match.WHOLE if contains([t.text for t in said.found], [t.text for t in own]) else Match.NONE
    best = Match.NONE
    for at, token in enumerate(said.found):
        slip = one_edit_apart(token.text, last)
        if token.text == last or slip or (len(own) == 1 and stem(token.text) == stem(last)):
            fitting = Match.LIKELY if slip else Match.WHOLE
            best = max(best, fitting if _fits(said.found, at, known | asked) else Match.PARTLY)
    first_names = {token.text for token in own[:-1]}
    if best == Match.NONE and any(token.text in first_names for token in said.found):
        return Match.PARTLY
    return best


def match_list(said: Said, items: Sequence[str], target: Sequence[Token], question: str, secret: bool) -> Match:
    """A list: all of it, in any order; of a secret, any item."""
    given = [_item(said, tokens(item), target, question) for item in items]
    if all(one >= Match.LIKELY for one in given):
        return min(given)
    return (Match.LIKELY if secret else Match.PARTLY) if Match.WHOLE in given else Match.NONE


def is_acronym(said: Said, target: Sequence[Token]) -> bool:
    """Whether either side is the other's initials: UN and United Nations."""
    initials = "".join(token.text[0] for token in target if token.capital)
    if len(initials) > 1 and any(token.shouted and token.text == initials for token in said.found):
        return True
    shouted = [token.text for token in target if token.text not in STOPWORDS]
    if len(shouted) != 1 or len(shouted[0]) < 3 or not any(token.shouted for token in target):
        return False
    letters = "".join(token.text[0] if token.capital else " " for token in said.found if token.text not in STOPWORDS)
    return shouted[0] in letters


def is_list(wanted: str, items: Sequence[str]) -> bool:
    """Whether a reference cut at its commas is a list, and not a place with its country ("Dallas, Texas")."""
    return len(items) > 2 or bool(re.search(r"\s(and|&)\s", wanted))


def _item(said: Said, item: Sequence[Token], target: Sequence[Token], question: str) -> Match:
    own = telling([token.text for token in item], question) - TITLES
    if not own:
        return Match.WHOLE  # the question said it
    if any(token.capital for token in item) and len(own) > 1:
        return match_name(said, item, target, question)
    return Match.WHOLE if {stem(w) for w in own} <= {stem(token.text) for token in said.found} else Match.NONE


def _fits(found: Sequence[Token], at: int, known: set[str]) -> bool:
    """Whether what stands before a surname belongs to its name: nothing, a title, an initial, a known name."""
    if at == 0 or found[at].fresh:
        return True
    before = found[at - 1]
    if not before.capital or len(before.text) == 1 or before.text in known | STOPWORDS | TITLES | REFUSAL_WORDS:
        return True
    if before.text[0] in known:  # Reuel Tolkien for R. Tolkien
        return True
    if at > 1 and found[at - 2].text in known - STOPWORDS and not before.fresh:  # Alfred Bernhard Nobel
        return True
    return any(one_edit_apart(before.text, word) for word in known) or (before.shouted and len(before.text) <= 3)
