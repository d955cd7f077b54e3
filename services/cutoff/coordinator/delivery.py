"""What a job delivers, and what is asked of the converter to deliver it. Pure functions of the job's record."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from google.protobuf import json_format

from cutoff.coordinator.job import TERMINAL, newest_attempt
from cutoff.coordinator.retention import require_there
from cutoff.errors import AlreadyExists, Fault, InvalidInput, Refused
from cutoff.v1 import gguf_converter_pb2, job_pb2

_SMALLEST = "smallest_passing"
"""Of install.quant: which type it will be is known after the evaluation."""


def require_name(job: job_pb2.Job, will_install: Iterable[job_pb2.Job]) -> None:
    """Refuses a job that would install under the name of one before it that has not ended yet.

    Args:
        job: One that installs.
        will_install: The jobs that have not ended and will install under its name, the oldest first.

    Raises:
        AlreadyExists: There is one before it, and this one is not to replace its model.
    """
    install = job.spec.install
    first = next((other.name for other in will_install), job.name)
    if first != job.name and not install.replace:
        raise AlreadyExists(
            f"{first} has not ended, and will install {install.publisher}/{install.model_name} too",
            "set install.replace: true to put this job's model in its place, or choose another install.model_name",
        )


def check_requests(spec: job_pb2.JobSpec) -> list[gguf_converter_pb2.CheckInstallRequest]:
    """Asks, before any work, whether a job's model could be installed: one question per type that may be chosen."""
    types = spec.convert.quant_types
    return [_check(spec, spec.install, name) for name in (types if spec.install.quant == _SMALLEST else types[:1])]


def check_request(
    spec: job_pb2.JobSpec, install: gguf_converter_pb2.InstallRequest
) -> gguf_converter_pb2.CheckInstallRequest:
    """Asks whether just this could be installed.

    Args:
        spec: The job's.
        install: What is to be installed: there is something already.
    """
    return _check(spec, install.spec, install.quant_type, install.sha256)


def install_request(job: job_pb2.Job, quant_type: str = "", replace: bool = False) -> gguf_converter_pb2.InstallRequest:
    """Asks to install one of a job's GGUFs.

    Args:
        job: Has converted.
        quant_type: Which; by default the one that is installed, or else the first of the job.
        replace: Whether another model of that name gives way; install.replace of the job says so too.

    Raises:
        Refused: The job has made no GGUF, or it was removed to free disk space.
        InvalidInput: It has made none of this type.
    """
    converted = newest_attempt(job, "convert")
    if converted is None or converted.state != job_pb2.Attempt.STATE_SUCCEEDED:
        raise Refused(f"{job.name} has made no GGUF that could be installed", "submit it again")
    files = {file["quant_type"]: file for file in _fields(converted.result)["files"]}
    present = [name for name, file in files.items() if file["sha256"] == job.result.installed_sha256]
    wanted = quant_type.lower() or [*present, job.spec.convert.quant_types[0]][0]
    if wanted not in files:
        fix = f"it has: {', '.join(files)}"
        raise InvalidInput([Fault("quant_type", f"{job.name} has made no {wanted}", fix)])
    require_there(job, files[wanted]["path"])
    spec = job_pb2.InstallSpec()
    spec.CopyFrom(job.spec.install)
    spec.replace = spec.replace or replace
    file = files[wanted]
    return gguf_converter_pb2.InstallRequest(
        spec=spec, gguf=file["path"], sha256=file["sha256"], quant_type=wanted, question=_question(job)
    )


def uninstall_request(job: job_pb2.Job) -> gguf_converter_pb2.UninstallRequest:
    """Asks to remove what a job installed."""
    return gguf_converter_pb2.UninstallRequest(spec=job.spec.install, sha256=job.result.installed_sha256)


def require_ended(job: job_pb2.Job) -> None:
    """Refuses what is done with a job that has ended while it has not.

    Raises:
        Refused: It has not.
    """
    if job.state not in TERMINAL:
        raise Refused(f"{job.name} has not ended yet", "wait for its end (cutoff watch), or cancel it")


def missed(require: str, scores: Mapping[str, Any] | None) -> list[str]:
    """Which thresholds the installed type misses, in words; measured on the validation sets."""
    if require == "none" or scores is None:
        return []
    sentences: list[str] = scores["sets"]["validation"][f"missed_{require}"]
    return sentences


def with_missed(job: job_pb2.Job, sentences: Iterable[str]) -> job_pb2.Job:
    """The job with what keeps it from being installed."""
    job.result.missed.extend(sentences)
    return job


def _check(
    spec: job_pb2.JobSpec, install: job_pb2.InstallSpec, quant_type: str, sha256: str = ""
) -> gguf_converter_pb2.CheckInstallRequest:
    return gguf_converter_pb2.CheckInstallRequest(
        spec=install, llama_cpp_path=spec.convert.llama_cpp_path, quant_type=quant_type, sha256=sha256
    )


def _question(job: job_pb2.Job) -> str:
    """One of the job's own questions; "" when none is known."""
    prepared = newest_attempt(job, "prepare")
    questions = _fields(prepared.result).get("probe_questions", []) if prepared is not None else []
    return str(questions[0]) if questions else ""


def _fields(result: Any) -> dict[str, Any]:
    fields: dict[str, Any] = json_format.MessageToDict(result)
    return fields
