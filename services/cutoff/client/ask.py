"""What of a job can be asked: found in its record, on the machine that holds its artifacts."""

from __future__ import annotations

from typing import Any

from google.protobuf import json_format

from cutoff.artifacts import Roots
from cutoff.client.api import Client
from cutoff.client.job_record import find_record, read_record
from cutoff.coordinator.job import newest_attempt
from cutoff.coordinator.retention import require_there
from cutoff.errors import NotFound, Refused
from cutoff.v1 import evaluator_pb2, job_pb2


def known_job(name: str, roots: Roots) -> job_pb2.Job:
    """A job as `cutoff run` left it below the artifacts root, or as the coordinator knows it.

    Raises:
        NotFound: There is no such job.
        Refused: The record cannot be read.
        Unavailable: There is no record, and no coordinator either.
    """
    record = find_record(roots, name)
    if record is not None:
        return read_record(record)
    with Client() as client:
        return client.get(name)


def targets_of(job: job_pb2.Job) -> list[evaluator_pb2.EvaluateRequest]:
    """All of a job that can be asked, in the order of making: base, control, adapter, merged, relearned, each GGUF."""
    prepared, trained, merged, converted = (_result(job, stage) for stage in ("prepare", "train", "merge", "convert"))
    found = []
    if prepared:
        found.append(evaluator_pb2.EvaluateRequest(target="base", model_path=prepared["model_path"]))
        if prepared.get("control_path"):
            found.append(evaluator_pb2.EvaluateRequest(target="control", model_path=prepared["control_path"]))
    if prepared and trained:
        both = evaluator_pb2.AdapterModel(model_path=prepared["model_path"], adapter=trained["adapter"])
        found.append(evaluator_pb2.EvaluateRequest(target="adapter", adapter=both))
    if merged:
        found.append(evaluator_pb2.EvaluateRequest(target="merged", model_path=merged["path"]))
    relearnt = _result(job, "relearn")
    if merged and relearnt:
        both = evaluator_pb2.AdapterModel(model_path=merged["path"], adapter=relearnt["adapter"])
        found.append(evaluator_pb2.EvaluateRequest(target="relearned", adapter=both))
    files = converted.get("files", ())
    return [*found, *(evaluator_pb2.EvaluateRequest(target=each["quant_type"], gguf=each["path"]) for each in files)]


def chosen(job: job_pb2.Job, target: str | None) -> list[evaluator_pb2.EvaluateRequest]:
    """The target of that name, or all.

    Raises:
        Refused: The job has made nothing yet, or this was removed to free disk space.
        NotFound: It has no such target; those it has are listed.
    """
    found = targets_of(job)
    if not found:
        raise Refused(f"{job.name} has made nothing that can be asked yet", "wait for its training to end")
    if target is None:
        return [each for each in found if _is_there(job, each)]
    named = [each for each in found if each.target == target.lower()]
    if not named:
        there = ", ".join(each.target for each in found)
        raise NotFound(f"{job.name} has no target {target!r}; it has: {there}", "name one of these")
    require_there(job, _path_of(named[0]))
    return named


def _is_there(job: job_pb2.Job, target: evaluator_pb2.EvaluateRequest) -> bool:
    try:
        require_there(job, _path_of(target))
    except Refused:
        return False
    return True


def _path_of(target: evaluator_pb2.EvaluateRequest) -> str:
    return target.gguf or target.adapter.adapter or target.model_path


def _result(job: job_pb2.Job, stage: str) -> dict[str, Any]:
    """What a stage gave, if it has succeeded."""
    attempt = newest_attempt(job, stage)
    if attempt is None or attempt.state != job_pb2.Attempt.STATE_SUCCEEDED:
        return {}
    result: dict[str, Any] = json_format.MessageToDict(attempt.result)
    return result
