"""Commands before a job: what it will take, and whether its data are sound. They ask no server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from cutoff.artifacts import publishing
from cutoff.client import show
from cutoff.client.commands.ending import errors_shown, faults_shown
from cutoff.client.commands.options import Artifacts, Datasets, JobFile, Json, Models, roots_of
from cutoff.client.plan import as_json as plan_as_json
from cutoff.client.plan import make_plan
from cutoff.client.plan_table import print_plan
from cutoff.errors import Refused
from cutoff.spec import load_job_yaml
from cutoff.stage.report import Reporter
from cutoff.stage.terminal import Display, sigterm_interrupts
from cutoff.telemetry import before_import


def plan(
    job_file: JobFile,
    datasets: Datasets = None,
    artifacts: Artifacts = None,
    models: Models = None,
    gpu: Annotated[str | None, typer.Option(help="A GPU to plan for, by its name [this machine's].")] = None,
    gpu_memory_gib: Annotated[float | None, typer.Option(min=0.1, help="Its memory.")] = None,
    as_json: Json = False,
) -> None:
    """Says what a job will take of memory, disks and time; starts nothing and asks no server."""
    with errors_shown(as_json):
        made = make_plan(load_job_yaml(job_file), roots_of(datasets, artifacts, models), gpu, gpu_memory_gib)
        if as_json:
            print(json.dumps(plan_as_json(made), indent=2))
        else:
            print_plan(made, show.wide_console())


def check(
    job_file: JobFile,
    datasets: Datasets = None,
    html: Annotated[Path | None, typer.Option(help="Also write the report as one HTML page.")] = None,
    as_json: Json = False,
) -> None:
    """Checks a job's data as prepare does, on this machine and without a server."""
    with errors_shown(as_json), sigterm_interrupts(), Display() as display:
        spec, roots = load_job_yaml(job_file), roots_of(datasets, None, None)
        try:
            from cutoff.client import check as checking  # numpy, which only this command needs
            from cutoff.client.check_page import check_page
            from cutoff.trainer.prepare import progress_of
        except ModuleNotFoundError as error:
            raise Refused(
                f"the check needs {error.name}", "pip install .[trainer], or check where a stage is"
            ) from error
        before_import()
        report = checking.check(spec, roots, progress_of(Reporter(display.event, interval=0.2)))
        if html is not None:
            with publishing(html) as partial:
                partial.write_text(check_page(report, spec.name), encoding="utf-8")
    if as_json:
        print(report.model_dump_json(indent=2))
    else:
        checking.print_report(report, show.wide_console())
    with faults_shown():
        report.raise_if_faulty()
