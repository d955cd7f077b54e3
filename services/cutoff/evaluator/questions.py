"""Which questions a target is asked: the sets of a job, or the files of the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from cutoff.artifacts import inside
from cutoff.datasets import SIDES, Example, fill_answers, load_examples, load_job_data, of_side, select
from cutoff.datasets.examples import Faults
from cutoff.datasets.read import read_answers, read_examples
from cutoff.errors import Fault, InvalidInput
from cutoff.spec import DatasetSpec, JobSpec

VALIDATION, TEST, HELDOUT = "validation", "test", "heldout"

Sets = Mapping[str, Sequence[Example]]
"""Questions by the name of their set."""


def job_questions(spec: JobSpec, datasets: Path) -> Sets:
    """The validation set of a job, and its test and held-out files' when it has them.

    At most `evaluate.limit` questions a side and set are drawn.

    Raises:
        InvalidInput: With every fault of the files.
    """
    seed, limit = spec.train.seed, spec.evaluate.limit
    sets = {VALIDATION: _validation(spec.dataset, datasets, seed)}
    for name, file in ((TEST, spec.evaluate.test_file), (HELDOUT, spec.evaluate.heldout_file)):
        if file:
            sets[name] = load_examples(inside(datasets, file), file)
    if spec.dataset.answers:
        answers = _answers(inside(datasets, spec.dataset.answers), spec.dataset.answers)
        sets = {name: list(fill_answers(examples, answers)) for name, examples in sets.items()}
    return {name: select(examples, limit, seed) for name, examples in sets.items()}


def file_questions(test_file: Path | None, datasets: Path, limit: int | None, seed: int) -> Sets:
    """The questions of the command line: a test file, or the validation files where the document has them.

    Args:
        test_file: A mixed file, whose lines say which side they are on.
        datasets: The datasets root, for the validation files.
        limit: At most so many questions in all, both sides alike as far as they go.
        seed: Draws them.

    Raises:
        InvalidInput: With every fault of the files.
    """
    if test_file is not None:
        name, examples = TEST, load_examples(test_file)
    else:
        name, examples = VALIDATION, _two_files(datasets, "retain/retain_val.jsonl", "unlearn/unlearn_val.jsonl")
    return {name: examples if limit is None else limited(examples, limit, seed)}


def limited(examples: Sequence[Example], limit: int, seed: int) -> list[Example]:
    """At most `limit` examples of both sides together; where one side has too few, the other fills up."""
    retain, unlearn = (of_side(examples, side) for side in SIDES)
    few = max(limit // 2, limit - len(retain))  # what the unlearn side may have
    share = min(len(unlearn), few)
    return [*select(retain, limit - share, seed), *select(unlearn, share, seed)]


def _validation(spec: DatasetSpec, datasets: Path, seed: int) -> list[Example]:
    if spec.retain_val is None or spec.unlearn_val is None:
        return list(load_job_data(spec, datasets, seed).validation)  # a mixed file is split as the trainer splits it
    return _two_files(datasets, spec.retain_val, spec.unlearn_val)


def _two_files(datasets: Path, retain: str, unlearn: str) -> list[Example]:
    """Reads both sides; the faults of both come in one answer."""
    faults = Faults()
    examples = [
        *read_examples(inside(datasets, retain), faults, retain, "retain"),
        *read_examples(inside(datasets, unlearn), faults, unlearn, "unlearn"),
    ]
    faults.raise_if_any()
    return examples


def _answers(path: Path, name: str) -> dict[str, str]:
    faults = Faults()
    answers = read_answers(path, faults, name)
    faults.raise_if_any()
    return answers


def require_questions(sets: Sets) -> None:
    """Refuses to evaluate nothing.

    Raises:
        InvalidInput: No set has a question.
    """
    if not any(sets.values()):
        raise InvalidInput(
            [Fault("questions", "there are none", "give a test file with questions, and a limit above 0")]
        )
