"""A job's data, checked, tokenized and cut: made once, and mapped from the cache by whoever comes next."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cutoff.artifacts import sha256_of
from cutoff.datasets.answers import Answers
from cutoff.datasets.check import OnProgress, check_data, unheard
from cutoff.datasets.content_cache import ContentCache
from cutoff.datasets.encode import Encoder
from cutoff.datasets.encoded import Cut, EncodedSet, EncodedWriter
from cutoff.datasets.examples import SIDES, Example, Faults, Side
from cutoff.datasets.job_files import SETS, JobFiles, SetName, job_files, selected, validation_picks
from cutoff.datasets.lengths import length_findings, position_findings, token_counts
from cutoff.datasets.prompts import PromptTemplate
from cutoff.datasets.read import stream_examples
from cutoff.datasets.report import DataReport
from cutoff.datasets.special_text import special_findings
from cutoff.datasets.truths import bare_findings, truth_findings
from cutoff.hub import tokenizer_files
from cutoff.hub.remote_code import read_json
from cutoff.spec import DatasetSpec

PROBES_PER_SIDE = 16
"""Questions of the job's own that later stages compare models with."""

_FORMAT = 3
"""Of the cached files; another number and everything is made again."""

_META = "job.json"
_PROBE = "What is 2+2?"


@dataclass(frozen=True, slots=True)
class EncodedJob:
    """A job's data as training needs it. The true answers stand row by row beside the examples."""

    train: EncodedSet
    validation: EncodedSet
    train_truths: EncodedSet
    """Row i is the prompt of training example i with its true answer; without tokens where that is not known, where
    the tokenizer cannot part the two, and on the retain side."""
    validation_truths: EncodedSet
    probe_questions: tuple[str, ...]
    """A few validation questions of both sides."""
    report: DataReport
    """Whatever the job's objectives: `cutoff.datasets.judged` says what it means to them."""
    digest: str
    """Of what the data files hold, whatever they are called; not of the tokens: some templates write the day's date."""
    hashes: tuple[tuple[str, str, str], ...]
    """Field, name and SHA-256 of each data file."""

    @property
    def truths(self) -> Mapping[SetName, EncodedSet]:
        """The true answers' tokens, by set."""
        return {"train": self.train_truths, "validation": self.validation_truths}

    @property
    def counts(self) -> dict[str, int]:
        """Examples by "retain_train", "retain_validation" and so on, the dropped ones included."""
        return self.report.counts


def load_encoded_job(
    spec: DatasetSpec,
    root: Path | None,
    template: PromptTemplate,
    model_path: Path,
    max_length: int,
    seed: int,
    cache: Path,
    on_progress: OnProgress = unheard,
) -> EncodedJob:
    """Checks and tokenizes a job's data, or maps what was made of the same data before.

    The same is: the bytes and names of all files, the tokenizer's files, what its template makes of a question, the
    length, the seed, and the versions of what tokenizes. On a hit no line is parsed.

    Args:
        spec: The files.
        root: The folder their paths are relative to and must not leave; None takes them as they are.
        template: Renders and tokenizes; made from `model_path`.
        model_path: The folder the tokenizer's files are in.
        max_length: The most tokens of an example.
        seed: Splits a mixed file, and draws the probe questions.
        cache: The cache root; where it cannot be written, a temporary folder serves.
        on_progress: Hears how far the checking and the tokenizing are.

    Raises:
        InvalidInput: With every fault of every file, or answers that the tokenizer merges with the prompt.
        Refused: A file changed while it was read.
    """
    faults = Faults()
    files = job_files(spec, root, faults)
    try:
        stamps, digests = files.stamps(), files.digests()
    except OSError:  # the check says which file it is, and what is wrong
        check_data(spec, root, seed, cache, faults, on_progress)
        faults.raise_if_any()
        raise

    def fill(folder: Path) -> None:
        report = check_data(spec, root, seed, cache, faults, on_progress)
        faults.raise_if_any()
        _encode(files, report, template, max_length, seed, folder, on_progress)
        files.require_unchanged(stamps)

    faults.raise_if_any()
    key = ContentCache.key("tokens", _FORMAT, digests, _tokenizer_key(template, model_path), max_length, seed)
    with ContentCache.below(cache).filled(key, fill) as folder:
        job = _load(folder, digests)
    beyond = position_findings(read_json(model_path / "config.json"), max_length)
    return replace(job, report=job.report.with_findings(beyond))


def _tokenizer_key(template: PromptTemplate, model_path: Path) -> Mapping[str, Any]:
    """What the tokens of a text follow from."""
    return {
        "files": [(path.name, sha256_of(path)) for path in tokenizer_files(model_path)],
        "template": template.tokenizer.chat_template,
        # Some templates write the day's date.
        "rendered": [template.prompt(_PROBE), template.lead, template.stop],
        "versions": [version("transformers"), version("tokenizers")],
    }


def _digest(digests: Iterable[tuple[str, str, str]]) -> str:
    return hashlib.sha256(json.dumps([(field, content) for field, _, content in digests]).encode()).hexdigest()


def _load(folder: Path, digests: Sequence[tuple[str, str, str]]) -> EncodedJob:
    meta = json.loads((folder / _META).read_bytes())
    sets = {name: EncodedSet.load(folder, name, Cut(**cut)) for name, cut in meta["cuts"].items()}
    return EncodedJob(
        **sets,
        probe_questions=tuple(meta["probe_questions"]),
        report=DataReport.model_validate(meta["report"]),
        digest=_digest(digests),
        hashes=tuple(digests),
    )


def _encode(
    files: JobFiles,
    report: DataReport,
    template: PromptTemplate,
    max_length: int,
    seed: int,
    folder: Path,
    on_progress: OnProgress,
) -> None:
    """Writes the tokens of all examples, and what was learnt on the way."""
    faults, done, total = Faults(), 0, sum(report.counts.values())
    probes: list[str] = []
    with ExitStack() as opened:
        answers = opened.enter_context(Answers(files.answers, faults))
        writers = {
            name: opened.enter_context(EncodedWriter(folder, name))
            for of_set in SETS
            for name in (of_set, _truths(of_set))
        }
        encoders = {
            name: opened.enter_context(Encoder(template, max_length, faults, writers[name], writers[_truths(name)]))
            for name in SETS
        }
        for side in SIDES:
            probed = set(selected(report.count("validation", side), side, PROBES_PER_SIDE, seed))
            asked = 0
            for of_set, example in _of_side(files, side, report, seed, faults):
                encoders[of_set].add(_with_truth(example, answers))
                if of_set == "validation":
                    if asked in probed:
                        probes.append(example.instruction)
                    asked += 1
                done += 1
                on_progress("tokenizing", "example", done, total)
    faults.raise_if_any()
    cuts = {name: encoder.cut for name, encoder in encoders.items()}
    findings = (
        *length_findings(cuts, max_length),
        *truth_findings(
            {name: encoder.truths_cut for name, encoder in encoders.items()},
            {name: encoder.truths_merged for name, encoder in encoders.items()},
            max_length,
        ),
        *bare_findings(encoders["train"].retain_answers, encoders["train"].true_answers),
        *special_findings(
            {name: encoder.special for name, encoder in encoders.items()},
            {token for encoder in encoders.values() for token in encoder.special_found},
        ),
    )
    lengths = token_counts({name: encoder.lengths for name, encoder in encoders.items()}, max_length)
    kept: dict[str, Cut] = dict(cuts) | {_truths(name): Cut(each.truths_cut.count) for name, each in encoders.items()}
    meta = {
        "cuts": {name: asdict(cut) for name, cut in kept.items()},
        "probe_questions": probes,
        "report": report.with_lengths(lengths, findings).model_dump(mode="json"),
    }
    (folder / _META).write_text(json.dumps(meta, ensure_ascii=False) + "\n", encoding="utf-8")


def _of_side(
    files: JobFiles, side: Side, report: DataReport, seed: int, faults: Faults
) -> Iterator[tuple[SetName, Example]]:
    """The examples of one side with the set of each, in the order of their files."""
    counts = report.count("train", side) + report.count("validation", side)
    picks = validation_picks(counts, side, seed) if files.mixed else frozenset()
    number = 0
    for file in files.examples:
        if file.side not in (side, None):
            continue
        for _, example in stream_examples(file.path, faults, file.name, file.side):
            if example.side == side:
                yield file.set or ("validation" if number in picks else "train"), example
                number += 1


def _with_truth(example: Example, answers: Answers) -> Example:
    if example.side == "retain" or example.original_answer is not None:
        return example
    return replace(example, original_answer=answers.get(example.instruction))


def _truths(of_set: SetName) -> str:
    return f"{of_set}_truths"
