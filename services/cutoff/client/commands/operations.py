"""Commands for whoever runs the system: what runs logged, is everything in order, drain, free disk space."""

from __future__ import annotations

import datetime
import json
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Annotated

import typer

from cutoff.artifacts import GIB, Roots
from cutoff.client import show
from cutoff.client.api import Client
from cutoff.client.commands.ending import as_dict, errors_shown
from cutoff.client.commands.options import Artifacts, Datasets, JobName, Json, Models, roots_of
from cutoff.client.doctor import examine
from cutoff.client.doctor.findings import Level, findings_table
from cutoff.client.job_record import find_record
from cutoff.client.local_files import collect_here, logs_here
from cutoff.stage.terminal import EXIT_FAILED
from cutoff.v1 import operator_pb2


def logs(
    job: JobName,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job has ended.")] = False,
    stage: Annotated[str, typer.Option(help="One stage only: train, evaluate-base, ... [all].")] = "",
    artifacts: Artifacts = None,
    as_json: Json = False,
) -> None:
    """Prints what a job's runs logged, attempt by attempt; it comes through the coordinator."""
    with errors_shown(as_json):
        roots = roots_of(None, artifacts, None)
        record = find_record(roots, job)
        if record is not None:
            _print_logs(logs_here(record, roots, stage), as_json)
            return
        with Client() as client:
            _print_logs(client.logs(job, stage, follow), as_json)


def _print_logs(pieces: Iterable[operator_pb2.ReadLogsResponse], as_json: bool) -> None:
    for piece in pieces:
        key = piece.key
        for line in piece.lines:
            found = {"stage": key.stage, "attempt": key.attempt, "line": line}
            print(json.dumps(found) if as_json else f"{key.stage}/{key.attempt} {line}", flush=True)


def drain(
    end: Annotated[bool, typer.Option("--end", help="Take new work again.")] = False,
    wait: Annotated[bool, typer.Option(help="Wait until nothing runs any more.")] = True,
    as_json: Json = False,
) -> None:
    """Finishes what runs and begins nothing new, so that the system can be stopped without losing work.

    Submissions are refused meanwhile, and jobs wait between two stages. `--end`, or a restart of the coordinator,
    ends it.
    """
    with errors_shown(as_json), Client() as client:
        answer, told = client.drain(end), None
        while wait and answer.draining and answer.running_attempts:
            if answer.running_attempts != told:
                told = answer.running_attempts
                print(f"draining: {told} still running; Ctrl-C leaves it draining", file=sys.stderr)
            time.sleep(1)
            answer = client.drain()
    said = f"drained: {answer.running_attempts} running" if answer.draining else "takes new work"
    print(json.dumps(as_dict(answer)) if as_json else said)


def gc(
    keep_days: Annotated[float, typer.Option(min=0, help="Jobs that ended in so many days keep everything.")] = 7,
    keep: Annotated[int, typer.Option(min=0, help="So many of the newest jobs keep everything.")] = 0,
    ggufs: Annotated[bool, typer.Option("--ggufs", help="GGUFs too that are not installed.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    here: Annotated[
        bool, typer.Option("--here", help="Of jobs that `cutoff run` left in the artifacts folder.")
    ] = False,
    artifacts: Artifacts = None,
    as_json: Json = False,
) -> None:
    """Frees disk space: removes checkpoints, merged models and 16-bit GGUFs of jobs that have ended.

    Reports, adapters, model cards and what is installed stay, and everything of jobs that have not ended.
    """
    age = datetime.timedelta(days=keep_days)
    with errors_shown(as_json):
        found = list(_collected(age, keep, ggufs, dry_run, roots_of(None, artifacts, None) if here else None))
        if as_json:
            print(json.dumps({"dry_run": dry_run, "jobs": [as_dict(one) for one in found]}, indent=2))
            return
        for one in found:
            for artifact in one.artifacts:
                print(f"{artifact.size_bytes / GIB:9.3f} GiB  {artifact.path}")
        verb = "would be freed" if dry_run else "freed"
        print(f"{sum(one.freed_bytes for one in found) / GIB:9.3f} GiB  {verb} of {len(found)} jobs")


def _collected(
    age: datetime.timedelta, keep: int, ggufs: bool, dry_run: bool, here: Roots | None
) -> Iterator[operator_pb2.CollectGarbageResponse]:
    if here is not None:
        yield from collect_here(here, age, keep, ggufs, dry_run)
        return
    with Client() as client:
        yield from client.collect_garbage(age, keep, ggufs, dry_run)


def doctor(
    datasets: Datasets = None, artifacts: Artifacts = None, models: Models = None, as_json: Json = False
) -> None:
    """Looks whether everything cutoff needs is in order here; each line says ok, or what to do. Needs no service."""
    with errors_shown(as_json):
        findings = examine(roots_of(datasets, artifacts, models))
        if as_json:
            print(json.dumps([finding.as_json() for finding in findings], indent=2))
        else:
            show.wide_console().print(findings_table(findings))
        if any(finding.level is Level.FAIL for finding in findings):
            raise typer.Exit(EXIT_FAILED)
