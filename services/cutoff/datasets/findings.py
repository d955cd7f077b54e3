"""What there is to say about the examples of a job once all of them are in the index."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cutoff.datasets.answer_text import contradict
from cutoff.datasets.examples import SIDES, Faults, Side
from cutoff.datasets.job_files import SETS, SetName
from cutoff.datasets.report import PLACES, Finding, Kind, Refusals, SetCount, Tally
from cutoff.datasets.row_index import Mark, RowIndex, Rows

MOSTLY_ONE_REFUSAL = 0.5
"""Above this share of one wording, refusals are called uniform."""

_FEW_REFUSALS = 20
"""With fewer unlearn examples nothing is said about their wordings."""

_FEW_ANSWERS = 5
"""With fewer training examples on a side nothing is said about whether the sides are swapped."""

_LOPSIDED = 3.0
"""How many times the larger side may have the examples of the smaller one."""

_SHOWN_TEXT = 200
Chosen = npt.NDArray[np.bool_]
"""Some of all examples."""


@dataclass(frozen=True, slots=True)
class Data:
    """What was read, and who validates."""

    index: RowIndex
    side: npt.NDArray[np.uint8]
    file: npt.NDArray[np.uint8]
    validates: Chosen
    copies: Mapping[int, str]
    """The files that validate and are training files once more, by their number: in words."""

    def chosen(self, of_set: SetName, side: Side) -> Chosen:
        """The examples of one side of one set."""
        chosen: Chosen = (self.side == SIDES.index(side)) & (self.validates == (of_set == "validation"))
        return chosen

    def places(self, chosen: Chosen) -> tuple[str, ...]:
        """Where the first of some examples stand."""
        return tuple(self.index.source(row) for row in np.flatnonzero(chosen)[:PLACES].tolist())


def findings(data: Data, faults: Faults) -> list[Finding]:
    """What was found, the worst first; what refuses the job also goes to `faults`."""
    found = [*_same_questions(data, faults), *_copies(data), *_answer_texts(data), *_swapped(data), *_make_up(data)]
    return sorted(found, key=lambda each: ("error", "warning", "note").index(each.severity))


_REPEATED: dict[Kind, tuple[str, str]] = {
    "taught_both_ways": (
        "{n} questions stand in both training sets: one line teaches the answer, another to refuse it",
        "keep each on one side",
    ),
    "contradiction": (
        "{n} questions have two true answers that differ in lines of one file",
        "keep the right one",
    ),
    "expected_otherwise": (
        "{n} questions are on the retain side in one set and on the unlearn side in the other",
        "keep each on one side, or its score is wrong whatever the model says",
    ),
    "two_answers": (
        "{n} retain lines answer a question of their file in other words than a line above",
        "see that both are right",
    ),
    "duplicate": ("{n} lines ask what a line above them in the same file asks", "remove them, unless they are meant"),
}
_REFUSING: frozenset[Kind] = frozenset({"taught_both_ways", "contradiction"})


def _same_questions(data: Data, faults: Faults) -> Iterator[Finding]:
    """What is wrong with questions that are asked more than once."""
    tallies: dict[Kind, Tally] = {kind: Tally() for kind in _REPEATED}
    answer = data.index.answer
    flattering = Tally()
    for rows in data.index.same_questions():
        _across_sides(data, rows, tallies, faults)
        validating = rows[data.validates[rows] & ~np.isin(data.file[rows], list(data.copies))]
        if len(validating) and not data.validates[rows].all():
            flattering.add(data.index.source(validating[0]), len(validating))
        for number in np.unique(data.file[rows]):
            for side in range(len(SIDES)):
                same = rows[(data.file[rows] == number) & (data.side[rows] == side)]
                if len(same) > 1:
                    _within_file(data, same, answer, tallies, faults)
    for kind, tally in tallies.items():
        if tally.count:
            what, fix = _REPEATED[kind]
            yield Finding(
                kind=kind,
                severity="error" if kind in _REFUSING else "warning",
                count=tally.count,
                what=what.format(n=tally.count),
                fix=fix,
                places=tuple(tally.places),
            )
    if flattering.count:
        total = int(data.validates.sum())
        yield Finding(
            kind="validation_in_training",
            severity="warning",
            count=flattering.count,
            what=f"{flattering.count} of {total} validation questions also stand in training: the scores will flatter",
            fix="word validation questions differently, or remove them from training",
            places=tuple(flattering.places),
        )


def _copies(data: Data) -> Iterator[Finding]:
    """Training files that are validated with."""
    for number, same in data.copies.items():
        yield Finding(
            kind="validation_in_training",
            severity="warning",
            count=int((data.file == number).sum()),
            what=f"{same}: the scores would measure memory",
            fix="give other questions to validate with, or the same worded differently",
        )


def _across_sides(data: Data, rows: Rows, tallies: dict[Kind, Tally], faults: Faults) -> None:
    """Notes a question that is to be answered here and refused there."""
    retain, unlearn = (rows[data.side[rows] == side] for side in range(len(SIDES)))
    if not (len(retain) and len(unlearn)):
        return
    taught, refused = (side[~data.validates[side]] for side in (retain, unlearn))
    if len(taught) and len(refused):
        one, other = data.index.source(taught[0]), data.index.source(refused[0])
        tallies["taught_both_ways"].add(f"{one} and {other}")
        what = f"refuses the question that {one} answers: the model would be taught both"
        faults.add(other, what, "keep the question on one side")
    else:
        tallies["expected_otherwise"].add(f"{data.index.source(retain[0])} and {data.index.source(unlearn[0])}")


def _within_file(
    data: Data, rows: Rows, answer: npt.NDArray[np.uint64], tallies: dict[Kind, Tally], faults: Faults
) -> None:
    """Notes lines of one file and side that ask the same. Refusals may differ; answers should not."""
    first, index = int(rows[0]), data.index
    others = rows[1:]
    differing = others[answer[others] != answer[first]] if data.side[first] == SIDES.index("retain") else others[:0]
    same = len(others) - len(differing)
    if same:
        again = int(np.setdiff1d(others, differing)[0])
        tallies["duplicate"].add(f"{index.source(first)} and {index.source(again)}", same)
    true = index.example(first).original_answer if len(differing) else None
    for row in differing.tolist():
        place = f"{index.source(first)} and {index.source(row)}"
        other = index.example(row).original_answer
        if true is not None and other is not None and contradict(true, other):
            tallies["contradiction"].add(place)
            what = f"has another true answer ({other[:40]!r}) than the same question at {index.source(first)}"
            faults.add(index.source(row), what, f"keep the right one; there it is {true[:40]!r}")
        else:
            tallies["two_answers"].add(place)


def _answer_texts(data: Data) -> Iterator[Finding]:
    """Answers that lost their end, or never had anything in them."""
    kinds: tuple[tuple[Kind, Mark, str, str], ...] = (
        ("looks_cut", Mark.LOOKS_CUT, "look cut off: they end where no sentence ends", "complete them"),
        ("says_nothing", Mark.SAYS_NOTHING, "hold no letter or digit", "write an answer, or remove the line"),
        ("echo", Mark.ECHOES, "only repeat their question", "write an answer, or remove the line"),
    )
    for kind, mark, what, fix in kinds:
        chosen = data.index.marked(mark)
        count = int(chosen.sum())
        if count:
            yield Finding(
                kind=kind,
                severity="warning",
                count=count,
                what=f"{count} of {len(data.index)} answers {what}",
                fix=fix,
                places=data.places(chosen),
            )


def _swapped(data: Data) -> Iterator[Finding]:
    """Whether the retain side declines and the unlearn side answers, which cannot be meant."""
    refusing = data.index.marked(Mark.REFUSES)
    counts = [
        (int((rows & refusing).sum()), int(rows.sum())) for rows in (data.chosen("train", each) for each in SIDES)
    ]
    (retain, retain_all), (unlearn, unlearn_all) = counts
    if min(retain_all, unlearn_all) >= _FEW_ANSWERS and 2 * retain > retain_all and 2 * unlearn < unlearn_all:
        yield Finding(
            kind="sides_swapped",
            severity="warning",
            count=retain,
            what=f"the sides seem to be swapped: {retain} of {retain_all} retain training answers look like refusals, "
            f"and {unlearn} of {unlearn_all} unlearn ones do",
            fix="retain holds what is still to be answered, unlearn what is to be declined",
        )


def _make_up(data: Data) -> Iterator[Finding]:
    """How the two sides compare, and what optional fields lack."""
    retain, unlearn = (int(data.chosen("train", side).sum()) for side in SIDES)
    if min(retain, unlearn) and max(retain, unlearn) > _LOPSIDED * min(retain, unlearn):
        what = f"the training sides differ in size: {retain} retain and {unlearn} unlearn examples"
        fix = "keep them about equally large, or one side's lesson drowns the other's"
        yield Finding(kind="balance", severity="warning", count=abs(retain - unlearn), what=what, fix=fix)
    refusals = refusals_of(data)
    if (
        refusals
        and refusals.examples >= _FEW_REFUSALS
        and refusals.commonest_count > MOSTLY_ONE_REFUSAL * refusals.examples
    ):
        what = f"{refusals.commonest_count} of {refusals.examples} refusals are the same: {refusals.commonest!r}"
        fix = "vary them, or the model learns one sentence by heart"
        yield Finding(kind="refusals", severity="warning", count=refusals.commonest_count, what=what, fix=fix)
    side = data.side == SIDES.index("unlearn")
    optional: tuple[tuple[Kind, Mark, str], ...] = (
        ("true_answers", Mark.TRUE_ANSWER, "no true answer: a leak cannot be told from a wrong answer"),
        ("years", Mark.YEAR, "no metadata.year: what looks at years leaves them out"),
    )
    for kind, mark, what in optional:
        lacking = side & ~data.index.marked(mark)
        count, total = int(lacking.sum()), int(side.sum())
        if count:
            text = f"{count} of {total} unlearn examples have {what}"
            yield Finding(kind=kind, severity="note", count=count, what=text, places=data.places(lacking))


def set_counts(data: Data) -> Iterator[SetCount]:
    """How many examples there are, and how many of them have what is optional."""
    years, truths = data.index.marked(Mark.YEAR), data.index.marked(Mark.TRUE_ANSWER)
    for side in SIDES:
        for of_set in SETS:
            chosen = data.chosen(of_set, side)
            yield SetCount(
                set=of_set,
                side=side,
                examples=int(chosen.sum()),
                years=int((chosen & years).sum()),
                true_answers=int((chosen & truths).sum()),
            )


def refusals_of(data: Data) -> Refusals | None:
    """How the unlearn side declines; None where it is empty."""
    rows = np.flatnonzero(data.chosen("train", "unlearn"))
    if not len(rows):
        return None
    _, first, counts = np.unique(data.index.answer[rows], return_index=True, return_counts=True)
    top = int(counts.argmax())
    return Refusals(
        examples=len(rows),
        distinct=len(counts),
        commonest=data.index.example(int(rows[first[top]])).output[:_SHOWN_TEXT],
        commonest_count=int(counts[top]),
    )
