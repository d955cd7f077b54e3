"""What objectives that unlearn true answers need of the data, and what is lost of those answers on the way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from cutoff.datasets.encoded import EncodedSet
from cutoff.datasets.examples import SIDES
from cutoff.datasets.job_files import SetName
from cutoff.datasets.lengths import quantile
from cutoff.datasets.report import SET_NAMES, DataReport, Finding, Kind, Tally
from cutoff.errors import Fault, InvalidInput
from cutoff.spec.job import TrainSpec

_LOST: frozenset[Kind] = frozenset({"truths_cut", "truths_merged", "truths_bare"})
_BARE = 0.75
"""Below this share of the retain answers' median length, true answers are called bare. The demo's names have 3 tokens,
its sentences 5; with the names nothing is forgotten, with the sentences everything (docs/objectives.md)."""

_FEW_ANSWERS = 20
"""With fewer on a side nothing is said about their lengths."""

_UNMERGED = "begin the true answers with a letter or a digit"
_LONGER = "raise train.max_seq_length"


def require_truths(report: DataReport, train: TrainSpec) -> None:
    """Refuses objectives that unlearn true answers where examples lack them.

    Raises:
        InvalidInput: For each such objective of the job, with how many lack one, the first of them and the remedy.
    """
    counts = [each for each in report.sets if each.side == "unlearn"]
    total, known = sum(each.examples for each in counts), sum(each.true_answers for each in counts)
    if known == total:
        return
    more = ", ..." if total - known > len(report.lacking_true_answers) else ""
    what = (
        f"needs the true answer of every unlearn example, and {total - known} of {total} lack it "
        f"({', '.join(report.lacking_true_answers)}{more})"
    )
    fix = "write it as metadata.original_answer, give a file of answers as dataset.answers, or use method: sft"
    _refuse(train, {what: fix})


def require_usable_truths(report: DataReport, truths: Mapping[SetName, EncodedSet], train: TrainSpec) -> None:
    """Refuses objectives that unlearn true answers where the tokenizer left a set none: nothing would be unlearnt.

    Args:
        report: On the whole data, of which `require_truths` said that no true answer lacks.
        truths: The true answers' tokens; those of examples that were dropped are not in them.
        train: The job's objectives.

    Raises:
        InvalidInput: For each such objective and set, with how many there were and why they cannot be used.
    """
    _refuse(train, dict(_unusable(report, of_set, rows) for of_set, rows in truths.items() if not rows.tokens()))


def truth_findings(cut: Mapping[SetName, Tally], merged: Mapping[SetName, Tally], limit: int) -> tuple[Finding, ...]:
    """What is lost of true answers, as notes: it matters to jobs that unlearn them (`judged`).

    Args:
        cut: Those whose end was cut off.
        merged: Those the tokenizer merges with the prompt.
        limit: The most tokens of an example.
    """
    found = []
    for of_set, tally in cut.items():
        what = f"true answers of {SET_NAMES[of_set]} are cut to {limit} tokens: only their beginning can be unlearnt"
        found.append(_finding("truths_cut", tally, what, _LONGER))
    for of_set, tally in merged.items():
        what = f"true answers of {SET_NAMES[of_set]} cannot be unlearnt: the tokenizer merges them into the prompt"
        found.append(_finding("truths_merged", tally, what, _UNMERGED))
    return tuple(finding for finding in found if finding.count)


def bare_findings(retain: Counter[int], truths: Counter[int]) -> tuple[Finding, ...]:
    """Whether true answers seem to be names where the model says sentences: then they cannot be unlearnt.

    An objective lowers the probability of exactly the text it is given. What the model says is not known here; the
    retain answers stand for it, and their medians are compared: a few long answers move no median.

    Args:
        retain: How many retain answers of the training set have how many tokens.
        truths: The same of its unlearn examples' true answers.
    """
    if min(retain.total(), truths.total()) < _FEW_ANSWERS:
        return ()
    usual, bare = quantile(retain, 0.5), quantile(truths, 0.5)
    if bare >= _BARE * usual:
        return ()
    what = f"true answers are shorter than retain answers: {bare} tokens against {usual} (medians)"
    return (
        Finding(
            kind="truths_bare",
            severity="note",
            count=truths.total(),
            what=f"{what}; bare names where the model says sentences cannot be unlearnt",
            fix="write them as the model says them, as metadata.original_answer or, where that lacks, in "
            "dataset.answers; docs/objectives.md tells how to get them",
        ),
    )


def judged(report: DataReport, train: TrainSpec) -> DataReport:
    """The report as a job's objectives make it: what is lost of true answers is a warning if they are unlearnt.

    Bare ones are right for grading, and no matter to other jobs.
    """
    if not train.needs_true_answers:
        return report.model_copy(
            update={"findings": tuple(each for each in report.findings if each.kind != "truths_bare")}
        )
    findings = (
        each.model_copy(update={"severity": "warning"}) if each.kind in _LOST else each for each in report.findings
    )
    return report.model_copy(update={"findings": tuple(findings)})


def _finding(kind: Kind, tally: Tally, what: str, fix: str) -> Finding:
    return Finding(
        kind=kind,
        severity="note",
        count=tally.count,
        what=f"{tally.count} {what}",
        fix=fix,
        places=tuple(tally.places),
    )


def _unusable(report: DataReport, of_set: SetName, rows: EncodedSet) -> tuple[str, str]:
    """Why a set has no true answer to unlearn, and the remedy."""
    total = report.count(of_set, "unlearn")
    merged = int((rows.sides == SIDES.index("unlearn")).sum())
    reasons = {
        _UNMERGED: (merged, "are merged into the prompt by the tokenizer"),
        _LONGER: (total - merged, "belong to questions that fill max_seq_length"),
    }
    counted = {fix: f"{count} {reason}" for fix, (count, reason) in reasons.items() if count}
    what = f"unlearns true answers, and none of the {total} of {SET_NAMES[of_set]} can be used"
    return f"{what}: {', '.join(counted.values())}", "; ".join(counted)


def _refuse(train: TrainSpec, reasons: Mapping[str, str]) -> None:
    """Raises a fault per reason (with its remedy) and objective that unlearns true answers."""
    faults = [
        Fault(where, f"{method} {what}", fix) for where, method in _unlearning(train) for what, fix in reasons.items()
    ]
    if faults:
        raise InvalidInput(faults)


def _unlearning(train: TrainSpec) -> Iterator[tuple[str, str]]:
    """The fields and names of the methods that need true answers."""
    for number, stage in enumerate(train.stages):
        if stage.needs_true_answers:
            yield f"train.then.{number - 1}.method" if number else "train.method", stage.method
