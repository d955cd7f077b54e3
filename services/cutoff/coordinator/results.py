"""What a job draws from a stage that succeeded: scores, and what was installed. Pure functions of the job's record.

They are applied with the event that ends the stage, in one transaction; see `job.with_event`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf import json_format

from cutoff.v1 import job_pb2

_EVALUATE = "evaluate-"


def with_result(job: job_pb2.Job, stage: str, result: Mapping[str, Any]) -> job_pb2.Job:
    """The job with what one stage's result says of the whole; most say nothing.

    Args:
        job: Is changed, and returned.
        stage: As in RunKey.
        result: The stage's summary.
    """
    if stage.startswith(_EVALUATE):
        return with_scores(job, stage.removeprefix(_EVALUATE), result)
    return with_installed(job, result) if stage == "install" else job


def with_scores(job: job_pb2.Job, target: str, scores: Mapping[str, Any]) -> job_pb2.Job:
    """The job with one target's scores in its result, in place of earlier ones."""
    others = [evaluation for evaluation in job.result.evaluations if evaluation.target != target]
    del job.result.evaluations[:]
    job.result.evaluations.extend(others)
    for question_set, values in scores.get("sets", {}).items():
        known = {name: value for name, value in values.items() if name in job_pb2.Evaluation.DESCRIPTOR.fields_by_name}
        evaluation = job_pb2.Evaluation(target=target, question_set=question_set)
        json_format.ParseDict({name: value for name, value in known.items() if value is not None}, evaluation)
        job.result.evaluations.append(evaluation)
    return job


def with_installed(job: job_pb2.Job, installed: Mapping[str, Any]) -> job_pb2.Job:
    """The job with what its install stage delivered."""
    job.result.installed_path = installed["path"]
    job.result.installed_sha256 = installed["sha256"]
    return job


def without_installed(job: job_pb2.Job) -> job_pb2.Job:
    """The job with nothing installed."""
    job.result.ClearField("installed_path")
    job.result.ClearField("installed_sha256")
    return job
