"""Installs what `cutoff run` has made and left in the artifacts folder: no coordinator knows of it any more."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from cutoff.artifacts import Roots, attempt_folder, let_count
from cutoff.client.job_record import read_record, write_record
from cutoff.coordinator.delivery import install_request
from cutoff.coordinator.job import newest_attempt, with_attempt, with_event
from cutoff.coordinator.results import without_installed
from cutoff.evaluator.job_report import work as reporting
from cutoff.gguf_converter import work as installation
from cutoff.gguf_converter.install import uninstall_gguf
from cutoff.gguf_converter.install_checks import requested_spec
from cutoff.gguf_converter.install_records import RECORDS
from cutoff.stage.context import RunContext
from cutoff.stage.report import Reporter
from cutoff.v1 import evaluator_pb2, job_pb2, types_pb2


def install_here(
    record: Path, roots: Roots, quant_type: str, replace: bool, sink: Callable[[types_pb2.Event], None]
) -> job_pb2.Job:
    """Installs a GGUF of a job, and writes that into its record.

    Args:
        record: The job's, as `find_record` found it.
        roots: Where its files and LM Studio's are.
        quant_type: One of the job's; "" for the one that is installed, or else the first.
        replace: Whether another model of that name gives way.
        sink: Hears of the progress.

    Raises:
        CutoffError: As `install_request` and `install_gguf`.
    """
    job = read_record(record)
    request = install_request(job, quant_type, replace)
    job = _run_here(job, "install", partial(installation.install, request), roots, sink)
    write_record(record, job)
    if newest_attempt(job, "report") is not None:  # it says that the model is not installed
        asked = evaluator_pb2.WriteReportRequest(job=job)
        job = _run_here(job, "report", partial(reporting.write, asked), roots, sink)
        write_record(record, job)
    return job


def _run_here(
    job: job_pb2.Job,
    stage: str,
    work: Callable[[RunContext], Mapping[str, Any]],
    roots: Roots,
    sink: Callable[[types_pb2.Event], None],
) -> job_pb2.Job:
    """Runs a stage in this process; returns the job with an attempt at it, and with what it draws from that."""
    job, key = with_attempt(job, stage)
    events: list[types_pb2.Event] = []

    def both(event: types_pb2.Event) -> None:
        events.append(event)
        sink(event)

    report = Reporter(both, interval=0.2)
    folder = attempt_folder(roots.artifacts, key.job, key.stage, key.attempt)
    folder.mkdir(parents=True, exist_ok=True)
    let_count(folder.parent, key.attempt)
    report.send(started=types_pb2.Started())
    report.finished(work(RunContext(key, folder, roots, (), report)))
    for event in events:
        if event.WhichOneof("kind") != "progress":
            job = with_event(job, key, event)
    return job


def uninstall_here(record: Path, roots: Roots) -> job_pb2.Job:
    """Removes what a job installed, and writes that into its record.

    Raises:
        Refused: The file was changed since, or cannot be removed.
    """
    job = read_record(record)
    if not job.result.installed_sha256:
        return job
    spec = requested_spec(job.spec.install)
    uninstall_gguf(roots.models, spec, roots.artifacts / RECORDS, job.result.installed_sha256)
    job = without_installed(job)
    write_record(record, job)
    return job
