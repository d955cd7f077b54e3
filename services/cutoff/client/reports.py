"""`cutoff report`: what came of a job, in the terminal, in a browser, as data."""

from __future__ import annotations

import json
import webbrowser
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from cutoff.artifacts import Roots, publishing
from cutoff.client import show
from cutoff.client.api import Client
from cutoff.client.job_record import find_record, read_record
from cutoff.coordinator.reports import report_file
from cutoff.errors import NotFound, Refused
from cutoff.v1 import job_pb2

SCHEMA_VERSION = 1
"""Of report.json, as this client reads it."""

_HTML = job_pb2.GetReportRequest.FORMAT_HTML
_STYLES = {"good": "green", "fair": "yellow", "bad": "red", "unknown": "dim"}
_ASKED = {"forgot": "did it forget?", "knows": "does it still know?", "installed": "is it installed?"}


@dataclass(frozen=True, slots=True)
class Found:
    """A job's report."""

    job: job_pb2.Job
    content: bytes
    """report.json."""
    page: Path | None
    """report.html, where it is on this machine; None when only the server has it."""

    @property
    def data(self) -> dict[str, Any]:
        """report.json, parsed.

        Raises:
            Refused: It is of a version that this client does not know.
        """
        found: dict[str, Any] = json.loads(self.content)
        if found.get("schema_version") != SCHEMA_VERSION:
            version = found.get("schema_version")
            raise Refused(f"the report is of version {version}, this client reads {SCHEMA_VERSION}", "update cutoff")
        return found


def find_report(job: str, roots: Roots) -> Found:
    """The report of a job that `cutoff run` left in the artifacts folder, or that a coordinator has.

    Raises:
        NotFound: There is no such job, or it has no report.
        Unavailable: It is not in the artifacts folder, and the coordinator does not answer.
    """
    record = find_record(roots, job)
    if record is not None:
        known = read_record(record)
        return Found(known, report_file(known, roots.artifacts).read_bytes(), page_here(known, roots))
    with Client() as client:
        known = client.get(job)
        return Found(known, client.report(job), page_here(known, roots))


def find_jobs(jobs: Iterable[str], roots: Roots) -> list[job_pb2.Job]:
    """Jobs of both kinds, in the order of their names.

    Raises:
        NotFound: One is not there.
        Unavailable: One is not in the artifacts folder, and the coordinator does not answer.
    """
    records = {job: find_record(roots, job) for job in jobs}
    here = {job: read_record(record) for job, record in records.items() if record is not None}
    if len(here) == len(records):
        return list(here.values())
    with Client() as client:
        return [here[job] if job in here else client.get(job) for job in records]


def page_here(job: job_pb2.Job, roots: Roots) -> Path | None:
    """report.html in this machine's artifacts folder; None when it is not there."""
    try:
        return report_file(job, roots.artifacts, _HTML)
    except NotFound:
        return None


def read_page(found: Found) -> bytes:
    """The page, from this machine or from the server.

    Raises:
        NotFound: Neither has it.
    """
    if found.page is not None:
        return found.page.read_bytes()
    with Client() as client:
        return client.report(found.job.name, page=True)


def save_page(found: Found, path: Path) -> None:
    """Writes the page to a file."""
    content = read_page(found)
    with publishing(path) as partial:
        partial.write_bytes(content)


def open_page(found: Found, roots: Roots) -> Path:
    """Shows the page in a browser; fetches it first where it is not on this machine.

    Raises:
        Refused: No browser could be started.
    """
    path = found.page
    if path is None:
        path = roots.cache / "reports" / f"{found.job.name.removeprefix('jobs/')}.html"
        save_page(found, path)
    if not webbrowser.open(path.as_uri()):
        raise Refused("no browser could be started on this machine", f"open {path} in one")
    return path


def print_report(found: Found, console: Console) -> None:
    """The report for a terminal: the verdict, the scores, what to try, and where the page is."""
    report = found.data
    verdict = report["verdict"]
    console.print(verdict["headline"], style=f"bold {_STYLES[verdict['tone']]}", markup=False)
    console.print(_answers(verdict))
    if found.job.result.evaluations:
        console.print(show.results_table(found.job))
    changes = [row for row in report["quantizations"] if row["question_set"] == verdict["question_set"]]
    _list(
        console, "what quantization changes", [row[side]["verdict"] for row in changes for side in _SIDES if row[side]]
    )
    attacks = [row for row in report["attacks"] if row["target"] == verdict["target"]]
    if attacks:
        console.print(_attacks(attacks))
    relearnt = [
        row["verdict"] for row in report.get("relearning", []) if row["question_set"] == verdict["question_set"]
    ]
    _list(console, "what a little training brings back", relearnt)
    _list(console, "what it misses", report["missed"] or report["missed_target"])
    _list(console, "what to try", [f"{each['what']} ({each['because']})" for each in report["advice"]])
    if found.job.result.installed_path and verdict["installed"]["tone"] != "good":
        console.print(f"installed since: {found.job.result.installed_path}", markup=False, soft_wrap=True)
    name = found.job.name.removeprefix("jobs/")
    where = found.page or f"on the server; `cutoff report {name} --html FILE` writes it here, --open shows it"
    console.print(f"page: {where}", markup=False, soft_wrap=True)


_SIDES = ("leaked", "correct")

_ATTACKS = {"leaks": "leaked", "base leaks": "base", "of what the base leaks": "leaked_of_base", "control": "control"}
"""Column headings, and the shares of a row of the report's `attacks` below them."""


def _answers(verdict: dict[str, Any]) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    for field, asked in _ASKED.items():
        finding = verdict[field]
        table.add_row(asked, f"[{_STYLES[finding['tone']]}]{finding['short']}[/]", finding["says"])
    return table


def _attacks(rows: list[dict[str, Any]]) -> Table:
    """What each attack brought out of the judged target; columns that no row fills are left out."""
    filled = {heading: field for heading, field in _ATTACKS.items() if any(row.get(field) for row in rows)}
    table = Table(title=f"attacks on {rows[0]['target']}: leaked in percent", title_justify="left", box=SIMPLE_HEAD)
    table.add_column("attack")
    for heading in filled:
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(row["attack"].replace("_", " "), *(_share(row.get(field)) for field in filled.values()))
    return table


def _share(share: dict[str, float] | None) -> str:
    if share is None:
        return "-"
    value = f"{100 * share['count'] / share['total']:.1f}".removesuffix(".0")
    return f"{value} {100 * share['low']:.0f}-{100 * share['high']:.0f} of {share['total']}"


def _list(console: Console, heading: str, lines: list[str]) -> None:
    if lines:
        console.print(f"{heading}:", style="bold", markup=False)
        for line in lines:
            console.print(f"  - {line}", markup=False, soft_wrap=True)
