"""Writes a job's report: report.json, and the page report.html."""

from __future__ import annotations

from pathlib import Path

from cutoff.artifacts import publishing
from cutoff.evaluator.job_report.build import build_report
from cutoff.evaluator.job_report.page import render
from cutoff.evaluator.job_report.schema import JobReport
from cutoff.v1 import job_pb2

REPORT, PAGE = "report.json", "report.html"


def write_report(job: job_pb2.Job, artifacts: Path, folder: Path) -> JobReport:
    """Publishes report.json and report.html in a folder.

    Args:
        job: The job as it stands.
        artifacts: The root that the paths of its artifacts are relative to.
        folder: Where the two files go.

    Raises:
        OSError: A file of an evaluation cannot be read, or the report not be written.
        CheckFailed: A file is not what an evaluation writes.
    """
    report, answers = build_report(job, artifacts)
    with publishing(folder / REPORT) as partial:
        partial.write_text(report.model_dump_json(indent=2) + "\n", encoding="utf-8")
    with publishing(folder / PAGE) as partial:
        partial.write_text(render(report, answers), encoding="utf-8")
    return report
