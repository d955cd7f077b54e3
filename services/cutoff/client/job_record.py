"""The record of a job that `cutoff run` leaves beside its files: the system that ran it, and its store, are gone."""

from __future__ import annotations

import json
from pathlib import Path

from google.protobuf import json_format

from cutoff.artifacts import Roots, inside, publishing
from cutoff.errors import Refused
from cutoff.v1 import job_pb2

_AGAIN = "run the job again"


def record_path(artifacts: Path, job: str) -> Path:
    """Where the record of a job is, by its name ("jobs/x") or id ("x").

    Raises:
        InvalidInput: The name leaves the artifacts folder.
    """
    return inside(artifacts, f"jobs/{job.removeprefix('jobs/')}/job.json")


def find_record(roots: Roots, job: str) -> Path | None:
    """The record of a job that was run by `cutoff run` into this artifacts folder; None for any other job."""
    path = record_path(roots.artifacts, job)
    return path if path.is_file() else None


def read_record(path: Path) -> job_pb2.Job:
    """The job a record tells of.

    Raises:
        Refused: It is none.
    """
    try:
        job = json_format.Parse(path.read_text(encoding="utf-8"), job_pb2.Job())
    except (json_format.ParseError, UnicodeDecodeError) as error:
        raise Refused(f"{path} is not the record of a job: {error}", _AGAIN) from error
    if not job.name:
        raise Refused(f"{path} is not the record of a job: it has no name", _AGAIN)
    return job


def write_record(path: Path, job: job_pb2.Job) -> None:
    """Publishes the record."""
    fields = json_format.MessageToDict(job, preserving_proto_field_name=True)
    with publishing(path) as partial:
        partial.write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")
