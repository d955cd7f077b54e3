"""What the service's runs do: requests become plain calls. Runs in the run's own process."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from cutoff.artifacts import describe, inside
from cutoff.errors import Fault, InvalidInput
from cutoff.evaluator.chat_targets import open_gguf, open_server
from cutoff.evaluator.evaluate import evaluate_target
from cutoff.evaluator.identity import adapter_identity, file_identity, folder_identity, server_identity
from cutoff.evaluator.journal import ANSWERS, Place
from cutoff.evaluator.judge import open_judge
from cutoff.evaluator.questions import Sets, job_questions
from cutoff.evaluator.report import EVALUATION, EXAMPLES, write_evaluation, write_examples
from cutoff.evaluator.targets import Target
from cutoff.llama_cpp import LlamaCpp
from cutoff.spec import JobSpec, spec_from_proto
from cutoff.stage.context import RunContext
from cutoff.v1 import evaluator_pb2


def evaluate(request: evaluator_pb2.EvaluateRequest, run: RunContext) -> Mapping[str, Any]:
    """Evaluates one target on the job's questions; publishes evaluation.json and examples.jsonl.

    What an earlier attempt answered before it was lost is taken over.

    Returns:
        target, sets (scores by name, missed_minimum, missed_target), seconds, questions_per_second, taken_over, and
        path (evaluation.json, relative to the artifacts root, which also has the scores by year).

    Raises:
        CutoffError: As `job_questions` and `evaluate_target`.
    """
    spec = spec_from_proto(request.spec)
    sets = job_questions(spec, run.roots.datasets)
    options = spec.evaluate
    opened, model = _target(request, spec, sets, run)
    place = Place(run.folder / ANSWERS, model, _of_earlier_attempts(run))
    judge = open_judge(options.judge_url, options.judge_model) if options.judge_url and options.judge_model else None
    evaluated = evaluate_target(
        request.target, opened, sets, options.max_tokens, run.report, options.verbose, place, judge
    )
    path, examples = run.folder / EVALUATION, run.folder / EXAMPLES
    relative = path.resolve().relative_to(run.roots.artifacts.resolve())
    result = {**evaluated.as_dict(), "path": str(relative)}
    write_examples(examples, request.target, evaluated.sets)
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


def _target(
    request: evaluator_pb2.EvaluateRequest, spec: JobSpec, sets: Sets, run: RunContext
) -> tuple[AbstractContextManager[Target], str]:
    """The target a request names, not opened yet, and what it is by content."""
    match request.WhichOneof("model"):
        case "model_path":
            from cutoff.evaluator.hf_model import open_hf  # imports torch, which a GGUF or a server can do without

            folder = _folder(request.model_path, run)
            return open_hf(folder, run.devices, run.report), folder_identity(folder, run.devices)
        case "adapter":
            from cutoff.evaluator.hf_model import open_adapter

            base, adapter = _folder(request.adapter.model_path, run), _folder(request.adapter.adapter, run)
            packed = spec.train.quantization
            opened = open_adapter(base, adapter, run.devices, run.report, packed)
            return opened, adapter_identity(base, adapter, packed, run.devices)
        case "gguf":
            llama = LlamaCpp.of_job(run.roots.cache, spec.convert.llama_cpp_path)
            questions = [example.instruction for examples in sets.values() for example in examples]
            gguf = inside(run.roots.artifacts, request.gguf)
            served = open_gguf(llama, gguf, questions, spec.evaluate.max_tokens, run.devices)
            return served, file_identity(gguf, run.devices)
        case "server":
            url, model = request.server.url, request.server.model or None
            return open_server(url, model), server_identity(url, model)
    raise InvalidInput([Fault("model", "is missing", "give model_path, adapter, gguf or server")])


def _folder(path: str, run: RunContext) -> Path:
    """The base model where prepare found it, or a folder below the artifacts root."""
    return Path(path) if Path(path).is_absolute() else inside(run.roots.artifacts, path)
