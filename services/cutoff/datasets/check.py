"""Checks all the data of a job: what would refuse it, what the user should know, and how it is made up.

One pass over the files, one line in memory at a time; of each example the index keeps some 30 bytes. What needs the
tokenizer is added when the data is tokenized (`cutoff.datasets.encoded_job`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cutoff.artifacts import inside
from cutoff.datasets.answer_text import looks_cut, looks_like_refusal, says_nothing
from cutoff.datasets.answers import Answers
from cutoff.datasets.content_cache import ContentCache
from cutoff.datasets.examples import SIDES, Example, Faults, Side
from cutoff.datasets.findings import Chosen, Data, findings, refusals_of, set_counts
from cutoff.datasets.job_files import JobFiles, check_split, job_files, validation_picks
from cutoff.datasets.read import stream_examples
from cutoff.datasets.report import DataReport, FileCount, Finding
from cutoff.datasets.row_index import Mark, RowIndex, Rows, normalised
from cutoff.datasets.truths import require_truths
from cutoff.spec import DatasetSpec, JobSpec

OnProgress = Callable[[str, str, int, int], None]
"""Told phase, unit, how many are done and how many there are."""

_FORMAT = 2
"""Of what is cached; another number and everything is checked again."""


def unheard(_phase: str, _unit: str, _done: int, _total: int) -> None:
    """An OnProgress nobody listens to."""


def check_job(spec: JobSpec, root: Path | None, cache: Path, on_progress: OnProgress = unheard) -> DataReport:
    """Checks every file of a job: the data, the questions it is evaluated with, what its objective needs.

    Args:
        spec: The job.
        root: The folder its paths are relative to and must not leave; None takes them as they are.
        cache: The cache root; what was checked before is not read again.
        on_progress: Hears how far the reading is.

    Returns:
        The report; its faults are everything for which the job is refused.
    """
    faults = Faults()
    known = _read_asked(spec, root, faults)
    report = check_data(spec.dataset, root, spec.train.seed, cache, faults, on_progress)
    if not faults.count:
        with faults.collected():
            require_truths(report, spec.train)
        validating = (each.true_answers for each in report.sets if (each.set, each.side) == ("validation", "unlearn"))
        if spec.evaluate.attacks and not known + sum(validating):
            faults.add(
                "evaluate.attacks",
                "ask for answers that are not known: no unlearn question that is evaluated has its true answer",
                "write it as metadata.original_answer, give a file of answers as dataset.answers, or leave attacks out",
            )
    return report.with_faults(faults)


def _read_asked(spec: JobSpec, root: Path | None, faults: Faults) -> int:
    """Reads the files of `evaluate` for their faults; how many of their unlearn questions have a true answer."""
    known = 0
    file = job_files(spec.dataset, root, Faults()).answers if spec.evaluate.attacks else None
    with Answers(file, Faults()) as answers:  # their faults are told by `check_data`
        for field, name in spec.evaluate.files().items():
            side: Side | None = "retain" if field == "relearn.file" else None
            with faults.collected():
                for _, one in stream_examples(inside(root, name) if root else Path(name), faults, name, side):
                    told = one.original_answer is not None or answers.get(one.instruction) is not None
                    known += one.side == "unlearn" and told
    return known


def check_data(
    spec: DatasetSpec, root: Path | None, seed: int, cache: Path, faults: Faults, on_progress: OnProgress = unheard
) -> DataReport:
    """Checks the data files of a job.

    Args:
        spec: The files.
        root: The folder their paths are relative to; None takes them as they are.
        seed: Splits a mixed file.
        cache: The cache root; the report on data without faults is kept there.
        faults: Collects what is wrong.
        on_progress: Hears how far the reading is.
    """
    before = faults.count
    files = job_files(spec, root, faults)
    try:
        stamps, key = files.stamps(), ContentCache.key("check", _FORMAT, files.digests(), seed)
    except OSError:  # the reading says which file it is, and what is wrong
        return _check(files, seed, faults, on_progress)
    reports = ContentCache.below(cache)
    cached = reports.load(key) if faults.count == before else None
    if cached is not None:
        return DataReport.model_validate_json((cached / "report.json").read_bytes())
    report = _check(files, seed, faults, on_progress)
    files.require_unchanged(stamps)
    if faults.count == before:
        reports.publish(key, lambda folder: _write(report, folder / "report.json"))
    return report


def _write(report: DataReport, path: Path) -> None:
    path.write_text(json.dumps(report.model_dump(mode="json"), ensure_ascii=False) + "\n", encoding="utf-8")


def _check(files: JobFiles, seed: int, faults: Faults, on_progress: OnProgress) -> DataReport:
    before = faults.count
    with Answers(files.answers, faults) as answers, RowIndex(files.examples) as index:
        _read(files, answers, index, faults, on_progress)
        schema = _schema(faults.count - before)
        side, file = index.side, index.file
        data = Data(index, side, file, _validating(files, side, file, seed, faults), files.copies())
        lacking = (side == SIDES.index("unlearn")) & ~index.marked(Mark.TRUE_ANSWER)
        return DataReport(
            files=tuple(
                FileCount(
                    field=each.field,
                    name=each.name,
                    size_bytes=each.path.stat().st_size if each.path.is_file() else 0,
                    examples=int((file == number).sum()),
                )
                for number, each in enumerate(files.examples)
            ),
            sets=tuple(set_counts(data)),
            refusals=refusals_of(data),
            findings=(*schema, *findings(data, faults)),
            lacking_true_answers=data.places(lacking),
        )


def _read(files: JobFiles, answers: Answers, index: RowIndex, faults: Faults, on_progress: OnProgress) -> None:
    """Puts every example into the index."""
    sizes = [file.path.stat().st_size if file.path.is_file() else 0 for file in files.examples]
    total = sum(sizes)
    for number, file in enumerate(files.examples):
        begin = sum(sizes[:number])

        def on_line(offset: int, begin: int = begin) -> None:
            on_progress("checking data", "byte", begin + offset, total)

        for line, example in stream_examples(file.path, faults, file.name, file.side, on_line):
            index.add(number, line, example, _marks(example, answers))
    on_progress("checking data", "byte", total, total)


def _marks(example: Example, answers: Answers) -> Mark:
    marks = Mark(0)
    if example.year is not None:
        marks |= Mark.YEAR
    if example.original_answer is not None or answers.get(example.instruction) is not None:
        marks |= Mark.TRUE_ANSWER
    if looks_cut(example.output):
        marks |= Mark.LOOKS_CUT
    if says_nothing(example.output):
        marks |= Mark.SAYS_NOTHING
    if normalised(example.output) == normalised(example.instruction):
        marks |= Mark.ECHOES
    if looks_like_refusal(example.output):
        marks |= Mark.REFUSES
    return marks


def _validating(
    files: JobFiles, side: npt.NDArray[np.uint8], file: npt.NDArray[np.uint8], seed: int, faults: Faults
) -> Chosen:
    """Which examples validate; those of a mixed file are drawn."""
    if files.mixed is None:
        sets = np.array([each.set == "validation" for each in files.examples] or [False])
        return np.asarray(sets[file], np.bool_)
    rows: dict[Side, Rows] = {each: np.flatnonzero(side == number) for number, each in enumerate(SIDES)}
    if not faults.count:
        check_split({each: len(numbers) for each, numbers in rows.items()}, files.mixed.name, faults)
    validates = np.zeros(len(side), np.bool_)
    for each, numbers in rows.items():
        validates[numbers[sorted(validation_picks(len(numbers), each, seed))]] = True
    return validates


def _schema(count: int) -> Iterator[Finding]:
    if count:
        what = f"{count} fault{'s' if count > 1 else ''} in lines or files"
        yield Finding(kind="schema", severity="error", count=count, what=what)
