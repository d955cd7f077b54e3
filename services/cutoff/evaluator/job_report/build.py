"""Makes a job's report out of its record and what its evaluations left behind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from cutoff.artifacts import inside
from cutoff.errors import CheckFailed, NotFound
from cutoff.evaluator.compare import Drift, against_base, drift, of_side
from cutoff.evaluator.job_report.answers import (
    BASE,
    MERGED,
    REFERENCES,
    RELEARNED,
    UNJUDGED,
    Asked,
    grades_of,
    read_answers,
)
from cutoff.evaluator.job_report.attacks import attack_rows
from cutoff.evaluator.job_report.relearning import relearning_rows
from cutoff.evaluator.job_report.schema import (
    Bars,
    ControlRow,
    DriftRow,
    DriftShare,
    JobReport,
    StageTime,
)
from cutoff.evaluator.job_report.verdict import Installing, verdict
from cutoff.evaluator.result import EvaluationResult
from cutoff.spec.requirements import REQUIREMENTS
from cutoff.v1 import job_pb2

VALIDATION = "validation"

_OUTCOMES: Mapping[job_pb2.Attempt.State, str] = {
    job_pb2.Attempt.STATE_SUCCEEDED: "succeeded",
    job_pb2.Attempt.STATE_FAILED: "failed",
    job_pb2.Attempt.STATE_CANCELLED: "cancelled",
}


def build_report(job: job_pb2.Job, artifacts: Path) -> tuple[JobReport, list[Asked]]:
    """The report on a job as it stands, and every question with all answers.

    Args:
        job: Its evaluations that succeeded are reported; whether it is installed, its result says.
        artifacts: The root that the paths of its artifacts are relative to.

    Raises:
        NotFound: A file of an evaluation is not there.
        OSError: It cannot be read.
        CheckFailed: It is not what an evaluation writes.
    """
    files = {kind: _files(job, kind) for kind in ("evaluation", "examples", "attacks")}
    found = [_read(_present(artifacts, path)) for path in files["evaluation"].values()]
    targets = sorted(found, key=lambda result: _place(job, result.target))
    examples = {result.target: files["examples"][result.target] for result in targets}
    answers = read_answers({target: _present(artifacts, path) for target, path in examples.items()})
    attacked = {target: _present(artifacts, path) for target, path in files["attacks"].items()}
    judged = _judged(job, targets)
    question_set = _deciding_set(judged)
    shares = judged.sets[question_set] if judged and question_set else None
    return (
        JobReport(
            job=job.name.removeprefix("jobs/"),
            base_model=job.spec.base_model,
            cutoff=job.spec.cutoff or None,
            method=" then ".join([job.spec.train.method, *(stage.method for stage in job.spec.train.then)]),
            require=job.spec.install.require,
            created=_time(job.create_time.ToDatetime(UTC)),
            written=_time(datetime.now(UTC)),
            verdict=verdict(judged.target if judged else None, question_set, shares, _installing(job)),
            missed=list(job.result.missed),
            missed_target=shares.missed_target if shares else [],
            advice=shares.advice if shares else [],
            requirements=[
                Bars(
                    name=row.name,
                    score=row.score,
                    higher_is_better=row.higher_is_better,
                    minimum=row.minimum,
                    target=row.target,
                )
                for row in REQUIREMENTS
            ],
            targets=targets,
            control=_control(targets, answers),
            quantizations=_quantizations(job, targets, answers),
            attacks=attack_rows(targets, answers, attacked),
            relearning=relearning_rows(job.spec.evaluate.relearn.examples, targets, answers),
            stages=[_stage_time(attempt) for attempt in job.attempts if not attempt.key.stage.startswith("report")],
            examples=examples,
        ),
        answers,
    )


def _files(job: job_pb2.Job, kind: str) -> dict[str, str]:
    """By target, the newest file of a kind that an evaluation of the job published."""
    found = {}
    for attempt in job.attempts:
        if attempt.key.stage.startswith("evaluate-") and attempt.state == job_pb2.Attempt.STATE_SUCCEEDED:
            paths = [artifact.path for artifact in attempt.artifacts if artifact.kind == kind]
            found.update({attempt.key.stage.removeprefix("evaluate-"): path for path in paths})
    return found


def _present(artifacts: Path, path: str) -> Path:
    """A file below the artifacts root.

    Raises:
        NotFound: It is not there, or is no file.
    """
    found = inside(artifacts, path)
    if not found.is_file():
        raise NotFound(f"{found} is not there any more", "evaluate again")
    return found


def _read(path: Path) -> EvaluationResult:
    try:
        return EvaluationResult.model_validate_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckFailed(f"{path} is not what an evaluation writes: {error}", "evaluate again") from error


def _place(job: job_pb2.Job, target: str) -> tuple[int, str]:
    """Each model after the one it was made from."""
    order = [*REFERENCES, "adapter", MERGED, RELEARNED, *job.spec.convert.quant_types]
    return (order.index(target) if target in order else len(order)), target


def _judged(job: job_pb2.Job, targets: Sequence[EvaluationResult]) -> EvaluationResult | None:
    """The file that is installed, or what comes nearest to it; never one that is there to learn of."""
    by_name = {result.target: result for result in targets if result.target not in UNJUDGED}
    wanted = [*job.spec.convert.quant_types, MERGED, *by_name]
    return next((by_name[target] for target in wanted if target in by_name), None)


def _deciding_set(judged: EvaluationResult | None) -> str | None:
    """install.require is held against the validation set; without one, the first is shown."""
    if judged is None or not judged.sets:
        return None
    return VALIDATION if VALIDATION in judged.sets else next(iter(judged.sets))


def _control(targets: Sequence[EvaluationResult], answers: Sequence[Asked]) -> list[ControlRow]:
    if not any(result.target == BASE for result in targets):
        return []
    rows = []
    for result in targets:
        if result.target != BASE:
            for name in result.sets:
                held = against_base(grades_of(answers, BASE, name), grades_of(answers, result.target, name))
                rows.append(ControlRow(target=result.target, question_set=name, **held.as_dict()))
    return rows


def _quantizations(job: job_pb2.Job, targets: Sequence[EvaluationResult], answers: Sequence[Asked]) -> list[DriftRow]:
    if not any(result.target == MERGED for result in targets):
        return []
    rows = []
    for result in targets:
        if result.target in job.spec.convert.quant_types:
            for name in result.sets:
                before, after = grades_of(answers, MERGED, name), grades_of(answers, result.target, name)
                names = (MERGED, result.target)
                rows.append(
                    DriftRow(
                        target=result.target,
                        compared_with=MERGED,
                        question_set=name,
                        leaked=_share(drift(of_side(before, "unlearn"), of_side(after, "unlearn"), "leaked", names)),
                        correct=_share(drift(of_side(before, "retain"), of_side(after, "retain"), "correct", names)),
                    )
                )
    return rows


def _share(found: Drift | None) -> DriftShare | None:
    return DriftShare(**found.as_dict()) if found else None


def _installing(job: job_pb2.Job) -> Installing:
    failures = [attempt.failure.message for attempt in job.attempts if attempt.key.stage == "install"]
    return Installing(
        wanted=job.spec.install.enabled,
        path=job.result.installed_path,
        missed=list(job.result.missed),
        failure=failures[-1] if failures else "",
    )


def _stage_time(attempt: job_pb2.Attempt) -> StageTime:
    seconds = None
    if attempt.HasField("start_time") and attempt.HasField("end_time"):
        seconds = (attempt.end_time.ToDatetime() - attempt.start_time.ToDatetime()).total_seconds()
    outcome = _OUTCOMES.get(attempt.state, "running")
    return StageTime.model_validate(
        {"stage": attempt.key.stage, "attempt": attempt.key.attempt, "outcome": outcome, "seconds": seconds}
    )


def _time(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")
