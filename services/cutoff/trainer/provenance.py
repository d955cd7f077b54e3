"""Which data a model is made of, to be told with it: every file with its SHA-256."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cutoff.artifacts import inside, sha256_of
from cutoff.datasets import DataReport
from cutoff.spec import JobSpec


@dataclass(frozen=True, slots=True)
class DataFile:
    """A file of a job's data as it was when the job was prepared."""

    field: str
    """As in job.yaml: "dataset.retain_train", "evaluate.test_file"."""
    name: str
    examples: int
    """0 where they were not counted: of an answers file."""
    sha256: str


def data_files(
    spec: JobSpec, root: Path | None, report: DataReport, hashes: Sequence[tuple[str, str, str]]
) -> tuple[DataFile, ...]:
    """Every file a job reads.

    Args:
        spec: The job.
        root: What dataset paths are relative to; None takes them as they are.
        report: Counted their examples.
        hashes: Field, name and SHA-256 of each file of `dataset`, which were read already.

    Raises:
        OSError: A file of questions cannot be read.
    """
    counted = {file.field: file.examples for file in report.files}
    trained = [DataFile(f"dataset.{field}", name, counted.get(field, 0), sha256) for field, name, sha256 in hashes]
    return (*trained, *(_asked(f"evaluate.{field}", name, root) for field, name in spec.evaluate.files().items()))


def _asked(field: str, name: str, root: Path | None) -> DataFile:
    path = inside(root, name) if root else Path(name).expanduser()
    with path.open("rb") as lines:
        return DataFile(field, name, sum(1 for line in lines if line.strip()), sha256_of(path))
