"""What the model card says, taken from a job's record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf import json_format

from cutoff.errors import Refused
from cutoff.hub.candidates import candidate
from cutoff.spec import JobSpec, spec_from_proto
from cutoff.v1 import job_pb2


@dataclass(frozen=True, slots=True)
class DataFile:
    """A file the model was made or measured with."""

    field: str
    """As in job.yaml."""
    name: str
    examples: int
    """0 where they were not counted."""
    sha256: str


@dataclass(frozen=True, slots=True)
class GgufFile:
    """A GGUF of the job."""

    quant_type: str
    path: str
    """Relative to the artifacts root."""
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class CardFacts:
    """Everything the card tells but the chat template, which is read from the GGUF."""

    job: str
    """The job's id."""
    created: str
    """YYYY-MM-DD."""
    spec: JobSpec
    commit: str
    """Of the base model; "" for a folder."""
    licence: str
    """Of the base model; "" when it is not known."""
    data: Sequence[DataFile]
    counts: Mapping[str, int]
    """Examples by set and side, tokens by set."""
    training: Mapping[str, float]
    """Numbers the training ended with, by name."""
    evaluations: Sequence[job_pb2.Evaluation]
    missed: Sequence[str]
    """What keeps it from install.require, in sentences."""
    files: Sequence[GgufFile]


def facts_of(job: job_pb2.Job) -> CardFacts:
    """The facts of a job that has come as far as its evaluations.

    Raises:
        Refused: It has made no GGUF.
    """
    results = _results(job)
    prepared, files = results.get("prepare", {}), results.get("convert", {}).get("files", [])
    if not files:
        raise Refused(f"{job.name} has made no GGUF, so there is nothing to write a card about")
    trained = results.get("train", {})
    return CardFacts(
        job=job.name.removeprefix("jobs/"),
        created=job.create_time.ToDatetime().date().isoformat(),
        spec=spec_from_proto(job.spec),
        commit=prepared.get("revision", ""),
        licence=prepared.get("license") or _licence_of_candidate(job.spec.base_model),
        data=[DataFile(f["field"], f["name"], int(f["examples"]), f["sha256"]) for f in prepared.get("data", [])],
        counts={name: int(count) for name, count in sorted(prepared.get("counts", {}).items())},
        training={name: value for name, value in sorted(trained.items()) if isinstance(value, float)},
        evaluations=list(job.result.evaluations),
        missed=list(job.result.missed),
        files=[GgufFile(f["quant_type"], f["path"], int(f["size_bytes"]), f["sha256"]) for f in files],
    )


def _results(job: job_pb2.Job) -> dict[str, dict[str, Any]]:
    """The summary of each stage, from the newest attempt that succeeded."""
    done = [attempt for attempt in job.attempts if attempt.state == job_pb2.Attempt.STATE_SUCCEEDED]
    return {attempt.key.stage: json_format.MessageToDict(attempt.result) for attempt in done}


def _licence_of_candidate(base_model: str) -> str:
    """What the document's models are published under, for those whose own card was not fetched."""
    known = candidate(base_model)
    return known.licence if known else ""
