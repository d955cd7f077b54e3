"""Asks targets of a job what a person wants to know, without grading."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cutoff.artifacts import Roots
from cutoff.evaluator.open_target import open_target
from cutoff.evaluator.targets import Reply
from cutoff.spec import JobSpec
from cutoff.stage.report import Reporter
from cutoff.v1 import evaluator_pb2


def ask(
    targets: Sequence[evaluator_pb2.EvaluateRequest],
    spec: JobSpec,
    questions: Sequence[str],
    roots: Roots,
    devices: Sequence[str],
    report: Reporter,
) -> Iterator[tuple[str, list[Reply]]]:
    """Opens one target after the other; yields its name and its replies in the order of the questions.

    Args:
        targets: As the pipeline would have them evaluated.
        spec: The job's.
        questions: What to ask.
        roots: Paths of a job are relative to its artifacts.
        devices: As torch names them; empty means the CPU.
        report: Hears what is loaded.

    Raises:
        CutoffError: A target cannot be opened.
    """
    for target in targets:
        opened, _ = open_target(target, spec, questions, roots, devices, report)
        with opened as answering:
            replies = dict(answering.answers(questions, spec.evaluate.max_tokens))
        yield target.target, [replies[index] for index in range(len(questions))]
