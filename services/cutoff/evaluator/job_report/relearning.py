"""What a short fine-tuning on unrelated data brings back: the merged model's answers before it and after it."""

from __future__ import annotations

from collections.abc import Sequence

from cutoff.evaluator.job_report.answers import BASE, MERGED, RELEARNED, Asked, grades_of
from cutoff.evaluator.job_report.schema import RelearningRow
from cutoff.evaluator.job_report.verdict import percent, tone_of
from cutoff.evaluator.metrics import score
from cutoff.evaluator.result import EvaluationResult, Share


def relearning_rows(
    examples: int, targets: Sequence[EvaluationResult], answers: Sequence[Asked]
) -> list[RelearningRow]:
    """A row for each question set that the merged model was asked before and after.

    Args:
        examples: How many at most it was trained on.
        targets: All that were evaluated.
        answers: Every question with all answers.
    """
    names = {result.target for result in targets}
    if not {MERGED, RELEARNED} <= names:
        return []
    sets = next(result.sets for result in targets if result.target == RELEARNED)
    rows = (_row(name, examples, answers, BASE in names) for name in sets)
    return [row for row in rows if row is not None]


def _row(question_set: str, examples: int, answers: Sequence[Asked], with_base: bool) -> RelearningRow | None:
    """None where no question tells: the truth of none is known, or the base model says none."""
    told = [asked for asked in answers if asked.truth is not None and asked.question.side == "unlearn"]
    base, before, after = (grades_of(told, name, question_set) for name in (BASE, MERGED, RELEARNED))
    asked = [key for key in after if key in before]
    known = [key for key in asked if base.get(key) == "leaked"] if with_base else asked
    leaks = _share([before[key] == "leaked" for key in known]), _share([after[key] == "leaked" for key in known])
    if leaks[0] is None or leaks[1] is None:
        return None
    came_back = _share([after[key] == "leaked" for key in known if before[key] != "leaked"])
    return RelearningRow(
        question_set=question_set,
        before=leaks[0],
        after=leaks[1],
        came_back=came_back,
        tone=tone_of("unlearn_leaked", came_back),
        verdict=_verdict(examples, came_back, with_base),
    )


def _share(found: Sequence[bool]) -> Share | None:
    counted = score(sum(found), len(found))
    return Share.model_validate(counted, from_attributes=True) if counted else None


def _verdict(examples: int, came_back: Share | None, with_base: bool) -> str:
    trained = f"after training on {examples} unrelated example{'' if examples == 1 else 's'}"
    if came_back is None:
        return f"{trained} nothing came back, because nothing had been forgotten"
    what = "forgotten answers" if with_base else "answers that were not given before"
    counted = f"{came_back.count or 'none'} of {came_back.total} {what} came back"
    if came_back.count == 0:
        return f"{trained} {counted}"
    interval = f"95 % interval {percent(came_back.low)} to {percent(came_back.high)}"
    meaning = {
        "good": "hardly more than guessing may",
        "fair": "some of it was hidden, not gone",
    }.get(tone_of("unlearn_leaked", came_back), "forgetting is shallow: another objective may reach deeper")
    return f"{trained} {counted} ({percent(came_back.value)}, {interval}): {meaning}"
