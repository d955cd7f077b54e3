"""What the service's runs do: requests become plain calls. Runs in the run's own process."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cutoff.artifacts import describe
from cutoff.evaluator.attacking import ATTACKS_FILE, write_attacks
from cutoff.evaluator.attacks import plan_attacks
from cutoff.evaluator.evaluate import evaluate_target
from cutoff.evaluator.journal import ANSWERS, Place
from cutoff.evaluator.judge import open_judge
from cutoff.evaluator.open_target import open_target
from cutoff.evaluator.questions import job_questions
from cutoff.evaluator.report import EVALUATION, EXAMPLES, write_evaluation, write_examples
from cutoff.spec import require_servers, spec_from_proto
from cutoff.stage.context import RunContext
from cutoff.v1 import evaluator_pb2


def evaluate(request: evaluator_pb2.EvaluateRequest, run: RunContext) -> Mapping[str, Any]:
    """Evaluates one target on the job's questions; publishes evaluation.json, examples.jsonl and maybe attacks.jsonl.

    What an earlier attempt answered before it was lost is taken over.

    Returns:
        target, sets (scores by name, missed_minimum, missed_target), seconds, questions_per_second, taken_over,
        attacks (leakage by attack), attacks_left_out, and path (evaluation.json, relative to the artifacts root, which
        also has the scores by year).

    Raises:
        CutoffError: As `job_questions` and `evaluate_target`.
    """
    spec = spec_from_proto(request.spec)
    options = spec.evaluate
    require_servers({"model.server.url": request.server.url, "evaluate.judge_url": options.judge_url})
    sets = job_questions(spec, run.roots.datasets)
    questions = [example.instruction for examples in sets.values() for example in examples]
    plan = plan_attacks(options.attacks, sets, spec.train.seed)
    texts = [*questions, *(each.chat.text for each in plan.questions)]
    opened, model = open_target(request, spec, texts, run.roots, run.devices, run.report, run.key.attempt)
    place = Place(run.folder / ANSWERS, model(), _of_earlier_attempts(run))
    judge = open_judge(options.judge_url, options.judge_model) if options.judge_url and options.judge_model else None
    evaluated = evaluate_target(
        request.target, opened, sets, options.max_tokens, run.report, options.verbose, place, judge, plan
    )
    path, examples = run.folder / EVALUATION, run.folder / EXAMPLES
    relative = path.resolve().relative_to(run.roots.artifacts.resolve())
    result = {**evaluated.as_dict(), "path": str(relative)}
    write_examples(examples, request.target, evaluated.sets)
    if options.attacks:
        attacks = run.folder / ATTACKS_FILE
        write_attacks(attacks, request.target, evaluated.attacked.answers)
        run.report.artifact("attacks", describe(attacks), target=request.target)
    write_evaluation(path, result)
    place.path.unlink()
    run.report.artifact("examples", describe(examples), target=request.target)
    run.report.artifact("evaluation", describe(path), target=request.target)
    return {**result, "sets": {name: _without_years(values) for name, values in result["sets"].items()}}


def _without_years(values: Mapping[str, Any]) -> dict[str, Any]:
    """A set's numbers as the job's record keeps them: a century of years would swell every event of the job."""
    return {name: value for name, value in values.items() if name != "by_year"}


def _of_earlier_attempts(run: RunContext) -> list[Path]:
    return [run.folder.parent / str(attempt) / ANSWERS for attempt in range(run.key.attempt - 1, 0, -1)]
