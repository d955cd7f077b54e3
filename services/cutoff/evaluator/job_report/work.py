"""What the service's run does. Runs in the run's own process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cutoff.artifacts import describe
from cutoff.evaluator.job_report.write import PAGE, REPORT, write_report
from cutoff.stage.context import RunContext
from cutoff.v1 import evaluator_pb2


def write(request: evaluator_pb2.WriteReportRequest, run: RunContext) -> Mapping[str, Any]:
    """Publishes a job's report.json and report.html in the attempt's folder.

    Returns:
        headline, tone, and path (report.json) and page (report.html), relative to the artifacts root.

    Raises:
        CheckFailed: A file is not what an evaluation wrote.
    """
    report = write_report(request.job, run.roots.artifacts, run.folder)
    files = {"path": run.folder / REPORT, "page": run.folder / PAGE}
    run.report.artifact("report", describe(files["path"]))
    run.report.artifact("report-page", describe(files["page"]))
    root = run.roots.artifacts.resolve()
    relative = {name: str(path.resolve().relative_to(root)) for name, path in files.items()}
    return {"headline": report.verdict.headline, "tone": report.verdict.tone, **relative}
