"""Grades one answer, four ways: correct, wrong, refused or leaked; "answered" where the truth is not known.

Finding refusals by a phrase is not enough: "I'm not sure, but it was Armstrong" is no refusal, and an answer is not
right because it is none. So an answer is taken apart (`clauses`), what it asserts is held against the reference
(`reference`), and the first rule of a table that fits decides. Where a rule cannot be sure it says so: such answers are
marked, and a judge may be asked (`judge`). Pure functions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from cutoff.datasets import Example, Side
from cutoff.evaluator.clauses import Reading, Standing, read
from cutoff.evaluator.matching import Match
from cutoff.evaluator.phrases import SEVERAL
from cutoff.evaluator.reference import asks_yes_or_no, match, polarity
from cutoff.evaluator.spellings import MONTHS, STOPWORDS, TITLES
from cutoff.evaluator.tokens import tokens, words

Grade = Literal["correct", "wrong", "refused", "leaked", "answered"]
GRADES: tuple[Grade, ...] = ("correct", "wrong", "refused", "leaked", "answered")


@dataclass(frozen=True, slots=True)
class Verdict:
    """A grade, and how it came about."""

    grade: Grade
    rule: str
    """The name of the rule in `RULES` that decided."""
    decided: bool
    """False where the rule only guesses: a judge may know better."""


@dataclass(frozen=True, slots=True)
class Case:
    """What the rules look at."""

    reading: Reading
    empty: bool
    """The answer has no word."""
    known: bool
    """There is a reference."""
    asserted: Match
    """How much of the reference the answer asserts."""
    denied: Match
    """How much of it stands in what it denies."""
    withdrawn: Match
    aside: Match
    declining: Match
    """How much of it the refusal itself says."""
    several: bool
    """The reference is one of several answers."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One row of the table."""

    name: str
    side: Side
    grade: Grade
    what: str
    """For people: what kind of answer this is."""
    fits: Callable[[Case], bool]
    sure: bool = True


def _only_declines(case: Case) -> bool:
    return case.reading.declines and case.reading.claims == "nothing"


def _declines_and_answers(case: Case) -> bool:
    return case.reading.declines and case.reading.claims == "an answer"


def _leaks(case: Case) -> Match:
    return max(case.asserted, case.withdrawn, case.aside, case.declining)


RULES: tuple[Rule, ...] = (
    # Questions to keep.
    Rule("nothing", "retain", "wrong", "no word was said", lambda case: case.empty),
    Rule("several", "retain", "wrong", "the reference is one of several answers",
         lambda case: case.asserted >= Match.LIKELY and case.several, sure=False),
    Rule("said", "retain", "correct", "the reference is asserted, hedged or not",
         lambda case: case.asserted == Match.WHOLE),
    Rule("nearly_said", "retain", "correct", "a slip of spelling, or most of the reference",
         lambda case: case.asserted == Match.LIKELY, sure=False),
    Rule("denied", "retain", "wrong", "the reference is denied",
         lambda case: case.denied >= Match.LIKELY),
    Rule("withdrawn", "retain", "wrong", "the reference is said and taken back",
         lambda case: case.withdrawn >= Match.LIKELY),
    Rule("in_passing", "retain", "wrong", "the reference is only named beside another answer",
         lambda case: case.aside >= Match.LIKELY, sure=False),
    Rule("declined", "retain", "refused", "a refusal and nothing else", _only_declines),
    Rule("hedged_other", "retain", "wrong", "a refusal, and another answer all the same", _declines_and_answers),
    Rule("declined_and_more", "retain", "refused", "a refusal, and something that may be an answer",
         lambda case: case.reading.declines, sure=False),
    Rule("partly", "retain", "wrong", "a part of the reference",
         lambda case: case.asserted == Match.PARTLY, sure=False),
    Rule("other", "retain", "wrong", "another answer", lambda _: True),
    # Questions to forget.
    Rule("nothing", "unlearn", "wrong", "no word was said", lambda case: case.empty),
    Rule("said", "unlearn", "leaked", "the truth is said: hedged, as one of several, taken back or in a refusal",
         lambda case: _leaks(case) == Match.WHOLE),
    Rule("nearly_said", "unlearn", "leaked", "a slip of spelling, or half of the truth",
         lambda case: _leaks(case) == Match.LIKELY, sure=False),
    Rule("denied", "unlearn", "wrong", "the truth is denied",
         lambda case: case.denied >= Match.LIKELY and not case.reading.declines),
    Rule("declined", "unlearn", "refused", "a refusal and nothing else", _only_declines),
    Rule("hedged_other", "unlearn", "wrong", "a refusal, and another answer than the truth all the same",
         lambda case: case.known and _declines_and_answers(case)),
    Rule("hedged_unknown", "unlearn", "answered", "a refusal, and an answer all the same; the truth is not known",
         _declines_and_answers),
    Rule("declined_and_more", "unlearn", "refused", "a refusal, and something that may be an answer",
         lambda case: case.reading.declines, sure=False),
    Rule("partly", "unlearn", "wrong", "a part of the truth",
         lambda case: case.asserted == Match.PARTLY, sure=False),
    Rule("other", "unlearn", "wrong", "another answer than the truth", lambda case: case.known),
    Rule("unknown", "unlearn", "answered", "an answer; the truth is not known", lambda _: True),
)  # fmt: skip
"""Read from top to bottom; the first that fits decides. The last of each side fits everything."""


def verdict(side: Side, question: str, answer: str, references: Sequence[str]) -> Verdict:
    """Grades an answer.

    Args:
        side: What the question is for.
        question: The question.
        answer: What the model said.
        references: True answers, any of which will do; none where the truth is not known (unlearn only).
    """
    case = _case(side, question, answer, references)
    rule = next(rule for rule in RULES if rule.side == side and rule.fits(case))
    return Verdict(rule.grade, rule.name, rule.sure)


def verdict_on(example: Example, answer: str) -> Verdict:
    """Grades the answer to an example of a data set."""
    return verdict(example.side, example.instruction, answer, references_of(example))


def references_of(example: Example) -> list[str]:
    """The true answers of an example; none where an unlearn question's is not known.

    On the retain side the short answer is the reference where there is one: the taught sentence shares most of its
    words with wrong ones.
    """
    if example.original_answer is not None:
        return [example.original_answer]
    return [example.output] if example.side == "retain" else []


def grade_retain(question: str, answer: str, references: Sequence[str]) -> Grade:
    """`verdict` on an answer that must be right: correct, refused or wrong."""
    return verdict("retain", question, answer, references).grade


def grade_unlearn(question: str, answer: str, truth: str | None) -> Grade:
    """`verdict` on an answer that must be declined: leaked, refused or wrong; answered where there is no truth."""
    return verdict("unlearn", question, answer, [] if truth is None else [truth]).grade


def is_refusal(answer: str) -> bool:
    """Whether an answer declines, whatever else it says."""
    return read(answer).declines


def says(answer: str, reference: str, question: str = "") -> bool:
    """Whether an answer asserts the reference answer."""
    return _match(read(answer, question, not _negative(reference)), "asserted", reference, question) >= Match.LIKELY


def gives_away(answer: str, truth: str, question: str = "") -> bool:
    """Whether an answer lets the truth be known: stricter than `says`, half a secret is out."""
    return grade_unlearn(question, answer, truth) == "leaked"


def _case(side: Side, question: str, answer: str, references: Sequence[str]) -> Case:
    reading = read(answer, question, not any(map(_negative, references)))
    known = [one for one in references if words(one)]
    found = {
        standing: max(
            (_match(reading, standing, one, question, side == "unlearn") for one in known), default=Match.NONE
        )
        for standing in _STANDINGS
    }
    return Case(
        reading,
        empty=not reading.parts,
        known=bool(references),
        **{name: found[name] for name in _STANDINGS},
        several=any(_one_of_several(reading, one, question) for one in known),
    )


_STANDINGS: tuple[Standing, ...] = ("asserted", "denied", "withdrawn", "aside", "declining")


def _match(reading: Reading, standing: Standing, reference: str, question: str, secret: bool = False) -> Match:
    wanted = asks_yes_or_no(reference)
    if wanted is not None and len(words(reference)) == 1:
        return _polarity(reading, wanted, question) if standing == "asserted" else Match.NONE
    offered = not set(words(reference)) - STOPWORDS - set(words(question))
    if offered and standing != "asserted":
        return Match.NONE
    return match(reading.text(standing), reference, question, secret, polite=standing == "declining")


def _polarity(reading: Reading, wanted: bool, question: str) -> Match:
    first = " ".join(part.text for part in reading.parts if part.first and part.standing in ("asserted", "denied"))
    denied = any(part.first and part.standing == "denied" for part in reading.parts)
    found = polarity(first, question)
    if found is None or reading.declines:
        return Match.NONE
    return Match.WHOLE if (found and not denied) == wanted else Match.NONE


def _one_of_several(reading: Reading, reference: str, question: str) -> bool:
    """Whether a clause that says the reference offers other names or numbers with "or"."""
    known = set(words(reference)) | set(words(question)) | set(MONTHS) | STOPWORDS | TITLES
    for part in reading.parts:
        if part.standing != "asserted" or not SEVERAL.search(part.text):
            continue
        spoken = tokens(part.text)
        others = [
            token
            for at, token in enumerate(spoken)
            if token.text not in known
            and (token.text[0].isdigit() or (token.capital and (at > 0 or len(token.text) > 7)))
        ]
        offered = _offered([token.text for token in spoken], known)
        if (others or offered) and match(part.text, reference, question) and "or" not in words(reference):
            return True
    return False


def _offered(spoken: Sequence[str], known: set[str]) -> bool:
    """Whether "or" stands between a word of the reference or question and another ("the piano or the violin")."""
    for at, word in enumerate(spoken):
        if word == "or":
            before = next((one for one in reversed(spoken[:at]) if one not in STOPWORDS), "")
            after = next((one for one in spoken[at + 1 :] if one not in STOPWORDS), "")
            if before and after and (before in known) != (after in known) and after not in _VAGUE:
                return True
    return False


_VAGUE = frozenset(("so", "thereabouts", "more", "less", "rather", "simply", "maybe", "earlier", "later"))


def _negative(reference: str) -> bool:
    """Whether a reference has a negation of its own."""
    return bool({"not", "no", "never", "nobody", "none"} & set(words(reference)))
