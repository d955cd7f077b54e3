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
from cutoff.evaluator.questions import Sets, job_questions
from cutoff.evaluator.report import EVALUATION, EXAMPLES, write_evaluation, write_examples
from cutoff.evaluator.targets import Target
from cutoff.llama_cpp import LlamaCpp
from cutoff.spec import JobSpec, spec_from_proto
from cutoff.stage.context import RunContext
from cutoff.v1 import evaluator_pb2


def evaluate(request: evaluator_pb2.EvaluateRequest, run: RunContext) -> Mapping[str, Any]:
    """Evaluates one target on the job's questions; publishes evaluation.json and examples.jsonl.

    Returns:
        target, sets (scores by name, missed_minimum, missed_target), seconds, questions_per_second, and path
        (evaluation.json, relative to the artifacts root).

    Raises:
        CutoffError: As `job_questions` and `evaluate_target`.
    """
    spec = spec_from_proto(request.spec)
    sets = job_questions(spec, run.roots.datasets)
    options = spec.evaluate
    opened = _open(request, spec, sets, run)
    evaluated = evaluate_target(request.target, opened, sets, options.max_tokens, run.report, options.verbose)
    path, examples = run.folder / EVALUATION, run.folder / EXAMPLES
    relative = path.resolve().relative_to(run.roots.artifacts.resolve())
    result = {**evaluated.as_dict(), "path": str(relative)}
    write_examples(examples, request.target, evaluated.sets)
    write_evaluation(path, result)
    run.report.artifact("examples", describe(examples), target=request.target)
    run.report.artifact("evaluation", describe(path), target=request.target)
    return result


def _open(
    request: evaluator_pb2.EvaluateRequest, spec: JobSpec, sets: Sets, run: RunContext
) -> AbstractContextManager[Target]:
    """The target a request names, not opened yet."""
    match request.WhichOneof("model"):
        case "model_path":
            from cutoff.evaluator.hf_target import open_hf  # imports torch, which a GGUF or a server can do without

            path = Path(request.model_path)
            return open_hf(
                path if path.is_absolute() else inside(run.roots.artifacts, str(path)), run.devices, run.report
            )
        case "gguf":
            llama = LlamaCpp.of_job(run.roots.cache, spec.convert.llama_cpp_path)
            questions = [example.instruction for examples in sets.values() for example in examples]
            gguf = inside(run.roots.artifacts, request.gguf)
            return open_gguf(llama, gguf, questions, spec.evaluate.max_tokens, run.devices)
        case "server":
            return open_server(request.server.url, request.server.model or None)
    raise InvalidInput([Fault("model", "is missing", "give model_path, gguf or server")])
