"""The texts that convert_to_gguf measures with, from the document's retain files. In a job, prepare writes them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cutoff.datasets import (
    CALIBRATION_TOKENS,
    VALIDATION_TOKENS,
    Example,
    PromptTemplate,
    load_examples,
    load_template,
    text_of_examples,
)
from cutoff.gguf_converter.weights import count_parameters
from cutoff.stage.report import Reporter

DEFAULT_TRAIN = Path("datasets/retain/retain_train.jsonl")
DEFAULT_VALIDATION = Path("datasets/retain/retain_val.jsonl")
"""Where the document has its retain data: read if they are there."""

_SEED = 42
_QUESTIONS = 32


@dataclass(frozen=True, slots=True)
class Texts:
    """Files that are there as long as the block that made them; None where there are no data."""

    calibration: Path | None
    validation: Path | None
    questions: tuple[str, ...]
    """Of the validation file, for the token comparison."""


@contextmanager
def rendered(model: Path, retain_train: Path | None, retain_val: Path | None, report: Reporter) -> Iterator[Texts]:
    """Renders retain data through a model's template.

    Args:
        model: The model's folder.
        retain_train: For the importance matrix; None means the document's file, if it is there.
        retain_val: For perplexity, likewise.
        report: Hears of a file that is not there.

    Raises:
        NotFound, InvalidInput, Refused: The model's folder is not complete, or a data file lacks or holds faults.
    """
    count_parameters(model)
    template = load_template(model)
    with tempfile.TemporaryDirectory(prefix="cutoff-") as folder:
        train = _examples(retain_train, DEFAULT_TRAIN, report)
        validation = _examples(retain_val, DEFAULT_VALIDATION, report)
        yield Texts(
            calibration=_write(Path(folder) / "calibration.txt", train, template, CALIBRATION_TOKENS),
            validation=_write(Path(folder) / "validation.txt", validation, template, VALIDATION_TOKENS),
            questions=tuple(example.instruction for example in validation[:_QUESTIONS]),
        )


def _examples(named: Path | None, default: Path, report: Reporter) -> list[Example]:
    if named is None and not default.is_file():
        report.log(f"{default} is not there: nothing is measured with it")
        return []
    return load_examples(named or default, side="retain")


def _write(path: Path, examples: list[Example], template: PromptTemplate, tokens: int) -> Path | None:
    text = text_of_examples(examples, template, tokens, _SEED)
    if not text:
        return None
    path.write_text(text, encoding="utf-8")
    return path
