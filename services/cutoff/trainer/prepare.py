"""Everything that can be known about a job before a GPU is held: its data, its model, its template."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from cutoff.artifacts import Roots
from cutoff.datasets import (
    CALIBRATION_TOKENS,
    VALIDATION_TOKENS,
    DataReport,
    EncodedJob,
    OnProgress,
    check_job,
    check_learnable,
    judged,
    load_encoded_job,
    load_template,
    require_usable_truths,
    retain_text,
    show_mask,
)
from cutoff.datasets.examples import Faults
from cutoff.errors import Fault, InvalidInput
from cutoff.hub import BaseModel, check_model_folder, resolve_base_model
from cutoff.hub.base_model import Progress
from cutoff.hub.fetch import BeforeWeights, allow
from cutoff.spec import JobSpec
from cutoff.spec.job import names_folder
from cutoff.stage.report import Counter, Reporter
from cutoff.trainer.needs import memory_needs
from cutoff.trainer.provenance import DataFile, data_files
from cutoff.trainer.room import JobRoom


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a job's other stages build on."""

    model: BaseModel
    control: BaseModel | None
    """What evaluate.control names."""
    data: tuple[DataFile, ...]
    """Every file of the job's, with its SHA-256."""
    counts: dict[str, int]
    """Examples by set and side, and tokens by set."""
    probe_questions: tuple[str, ...]
    warnings: tuple[str, ...]
    example: str
    """One training example as the model sees it, the learnt part marked."""
    report: DataReport
    """What the check of the data found."""
    calibration: str
    """A text of retain training examples, as training sees them: for importance matrices."""
    validation: str
    """A text of retain validation examples, then training ones where those are few: for perplexity."""
    memory: dict[str, int]
    """Bytes of a GPU that training and evaluating need; empty for a kind of model that has no estimate."""


def prepare(
    spec: JobSpec,
    datasets_root: Path | None,
    report: Reporter,
    cache: Path | None = None,
    room: JobRoom | None = None,
) -> Prepared:
    """Checks a job's data and model; fetches the model when it is not there, and tokenizes the data.

    Args:
        spec: The job.
        datasets_root: What dataset paths are relative to; None takes them as they are.
        report: Hears of the progress and of warnings.
        cache: The cache root, where the tokenized data is kept; CUTOFF_CACHE by default.
        room: Is asked for room for the whole job; without it only the fetching asks, for itself.

    Raises:
        InvalidInput: With every fault of data and model.
        NotFound: There is no such model.
        Refused: The model is gated, or cannot be trained with this prompt format.
        DiskFull: There is no room for the model, or for what the job makes.
        Unavailable: The hub does not answer.
    """
    cache = cache or Roots.from_environment().cache
    on_progress = progress_of(report)
    report.log("checking data")
    _check_input(spec, datasets_root, cache, on_progress)
    model = _found(spec.base_model, report, room.before_weights if room else allow)
    if room:
        room.with_model(model.path)
    control = _found(spec.evaluate.control, report, allow) if spec.evaluate.control else None
    template = load_template(model.path, spec.train.prompt_format)
    limit, seed = spec.train.max_seq_length, spec.train.seed
    job = load_encoded_job(spec.dataset, datasets_root, template, model.path, limit, seed, cache, on_progress)
    for name, rows in (("training", job.train), ("validation", job.validation)):
        check_learnable(rows, template, limit, name)
    require_usable_truths(job.report, job.truths, spec.train)
    found = judged(job.report, spec.train)
    warnings = tuple(found.warnings())
    for line in warnings:
        report.warn(line)
    return Prepared(
        model=model,
        control=control,
        data=data_files(spec, datasets_root, found, job.hashes),
        counts=counts_of(job),
        probe_questions=job.probe_questions,
        warnings=warnings,
        example=show_mask(template, job.train[0]),
        report=found,
        calibration=retain_text([job.train], template, CALIBRATION_TOKENS, seed),
        validation=retain_text([job.validation, job.train], template, VALIDATION_TOKENS, seed),
        memory=memory_needs(spec, model.path, job),
    )


def _check_input(spec: JobSpec, datasets_root: Path | None, cache: Path, on_progress: OnProgress) -> None:
    """Checks everything that is here; the faults of all of it come in one answer.

    The test files are read for their faults only: they are needed after hours of training.
    """
    faults = Faults()
    with faults.collected():
        check_trackers(spec.train.report_to)
    for model in filter(None, (spec.base_model, spec.evaluate.control)):
        with faults.collected():
            if names_folder(model):
                check_model_folder(Path(model).expanduser())
    with faults.collected():
        check_job(spec, datasets_root, cache, on_progress).raise_if_faulty()
    faults.raise_if_any()


def counts_of(job: EncodedJob) -> dict[str, int]:
    """Examples by set and side, and tokens by set."""
    return {**job.counts, "training_tokens": job.train.tokens(), "validation_tokens": job.validation.tokens()}


def progress_of(report: Reporter) -> OnProgress:
    """Tells the reporter how far the checking and tokenizing of data are; a phase begins when it is first told of."""
    counters: dict[str, Counter] = {}

    def on_progress(phase: str, unit: str, done: int, total: int) -> None:
        if phase not in counters:
            counters[phase] = report.counter(phase, unit, total)
        counters[phase].at(done)

    return on_progress


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


def _found(name: str, report: Reporter, before_weights: BeforeWeights) -> BaseModel:
    """A model's files, fetched when they are not here."""
    report.log(f"looking for {name}")
    with _fetching(report) as on_bytes:
        return resolve_base_model(name, on_bytes, before_weights)


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
