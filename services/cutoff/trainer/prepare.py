"""Everything that can be known about a job before a GPU is held: its data, its model, its template."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from cutoff.artifacts import inside
from cutoff.datasets import (
    EncodedSet,
    JobData,
    check_learnable,
    encode_examples,
    load_examples,
    load_job_data,
    load_template,
    select,
    show_mask,
)
from cutoff.datasets.examples import Faults
from cutoff.errors import Fault, InvalidInput
from cutoff.hub import BaseModel, check_model_folder, resolve_base_model
from cutoff.hub.base_model import Progress
from cutoff.spec import JobSpec
from cutoff.stage.report import Counter, Reporter

PROBES_PER_SIDE = 16
"""Questions of the job's own that later stages compare models with."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a job's other stages build on."""

    model: BaseModel
    data: JobData
    counts: dict[str, int]
    """Examples by set and side, and tokens by set."""
    probe_questions: tuple[str, ...]
    warnings: tuple[str, ...]
    example: str
    """One training example as the model sees it, the learnt part marked."""


def prepare(spec: JobSpec, datasets_root: Path | None, report: Reporter) -> Prepared:
    """Checks a job's data and model; fetches the model when it is not there.

    Args:
        spec: The job.
        datasets_root: What dataset paths are relative to; None takes them as they are.
        report: Hears of the progress and of warnings.

    Raises:
        InvalidInput: With every fault of data and model.
        NotFound: There is no such model.
        Refused: The model is gated, or cannot be trained with this prompt format.
        DiskFull: The cache has no room for the model.
        Unavailable: The hub does not answer.
    """
    report.log("checking data")
    data = _check_input(spec, datasets_root)
    report.log(f"looking for {spec.base_model}")
    with _fetching(report) as on_bytes:
        model = resolve_base_model(spec.base_model, on_bytes)
    template = load_template(model.path, spec.train.prompt_format)
    limit = spec.train.max_seq_length
    encoded = {
        "training": encode_examples(template, data.train, limit),
        "validation": encode_examples(template, data.validation, limit),
    }
    for name, rows in encoded.items():
        check_learnable(rows, template, limit, name)
    warnings = (
        *overlap_warnings(data),
        *(line for name, rows in encoded.items() for line in length_warnings(rows, limit, name)),
    )
    for line in warnings:
        report.warn(line)
    return Prepared(
        model=model,
        data=data,
        counts={**data.counts(), **{f"{name}_tokens": rows.tokens() for name, rows in encoded.items()}},
        probe_questions=probe_questions(data, spec.train.seed),
        warnings=warnings,
        example=show_mask(template, encoded["training"].rows[0]),
    )


def _check_input(spec: JobSpec, datasets_root: Path | None) -> JobData:
    """Reads everything that is here; the faults of all of it come in one answer.

    The test files are read for their faults only: they are needed after hours of training.
    """
    faults = Faults()
    with faults.collected():
        check_trackers(spec.train.report_to)
    for name in filter(None, (spec.evaluate.test_file, spec.evaluate.heldout_file)):
        with faults.collected():
            load_examples(inside(datasets_root, name) if datasets_root else Path(name), name)
    if spec.base_model_is_folder:
        with faults.collected():
            check_model_folder(Path(spec.base_model).expanduser())
    with faults.collected():
        data = load_job_data(spec.dataset, datasets_root, spec.train.seed)
    faults.raise_if_any()
    return data


def probe_questions(data: JobData, seed: int) -> tuple[str, ...]:
    """A few questions of both sides, from the validation set; the same for the same data and seed."""
    return tuple(example.instruction for example in select(data.validation, PROBES_PER_SIDE, seed))


def overlap_warnings(data: JobData) -> list[str]:
    """Validation questions that training also reads measure memory, not knowledge: says how many there are."""
    trained = {_normalised(example.instruction) for example in data.train}
    seen = sum(_normalised(example.instruction) in trained for example in data.validation)
    if not seen:
        return []
    return [f"{seen} of {len(data.validation)} validation questions also stand in training: the scores will flatter"]


def _normalised(question: str) -> str:
    return " ".join(question.lower().split())


def length_warnings(rows: EncodedSet, limit: int, name: str) -> list[str]:
    """What max_seq_length does to a set, in words; empty when it does nothing."""
    lines = []
    if rows.truncated:
        lines.append(f"{rows.truncated} {name} examples are cut to {limit} tokens and lose the end of their answer")
    if rows.dropped:
        lines.append(f"{rows.dropped} {name} examples are left out: {limit} tokens do not reach their answer")
    return lines


def check_trackers(names: tuple[str, ...]) -> None:
    """Refuses a tracker whose package is not installed.

    Raises:
        InvalidInput: Naming each.
    """
    faults = [
        Fault("train.report_to", f"{name} is not installed", f"pip install {name}, or leave {name} out")
        for name in names
        if importlib.util.find_spec(name) is None
    ]
    if faults:
        raise InvalidInput(faults)


@contextmanager
def _fetching(report: Reporter) -> Iterator[Progress]:
    """Counts fetched bytes; a phase begins with the first of them, since most models are there already."""
    with ExitStack() as stack:
        counters: list[Counter] = []

        def on_bytes(done: int, total: int) -> None:
            if not counters:
                counters.append(stack.enter_context(report.phase("fetching", "byte", total)))
            counters[0].at(done)

        yield on_bytes
