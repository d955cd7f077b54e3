"""Commands that talk to a coordinator about its jobs."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from cutoff.client import show
from cutoff.client.api import Client, outcome_of
from cutoff.client.commands.ending import EXIT_OF, as_dict, errors_shown, finish, print_message, watch_to_the_end
from cutoff.client.commands.options import JobFile, JobName, Json
from cutoff.spec import load_job_yaml


def submit(
    job_file: JobFile,
    request_id: Annotated[str | None, typer.Option(help="The same id returns the same job.")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Follow the job to its end.")] = False,
    as_json: Json = False,
) -> None:
    """Hands a job to the coordinator."""
    with errors_shown(as_json), Client() as client:
        job = client.submit(load_job_yaml(job_file), request_id)
        if watch:
            finish(watch_to_the_end(client, job.name), as_json)
        print_message(job, as_json, job.name.removeprefix("jobs/"))


def get(job: JobName, as_json: Json = False) -> None:
    """Shows one job."""
    with errors_shown(as_json), Client() as client:
        found = client.get(job)
        if as_json:
            print_message(found, as_json)
            return
        show.wide_console().print(show.jobs_table([found]))
        show.print_standing(found)
        show.print_result(found)


def list_jobs(
    limit: Annotated[int, typer.Option(min=1, help="At most this many.")] = 50, as_json: Json = False
) -> None:
    """Lists jobs, the newest first."""
    with errors_shown(as_json), Client() as client:
        jobs = list(client.jobs(limit))
        if as_json:
            print(json.dumps([as_dict(job) for job in jobs], indent=2))
        else:
            show.wide_console().print(show.jobs_table(jobs))


def watch(job: JobName, as_json: Json = False) -> None:
    """Follows a job to its end; with --json, one event a line. Interrupting it leaves the job alone."""
    with errors_shown(as_json), Client() as client:
        if not as_json:
            finish(watch_to_the_end(client, client.get(job).name), as_json)
        for event in client.watch(job):
            print(json.dumps(as_dict(event)), flush=True)
        raise typer.Exit(EXIT_OF[outcome_of(client.get(job))])


def cancel(
    job: JobName,
    wait: Annotated[bool, typer.Option(help="Wait until nothing of it runs.")] = True,
    as_json: Json = False,
) -> None:
    """Stops a job."""
    with errors_shown(as_json), Client() as client:
        cancelled = client.cancel(job)
        if wait:
            for _ in client.watch(job, cancelled.last_sequence):
                pass
            cancelled = client.get(job)
        print_message(cancelled, as_json, show.state_of(cancelled))


def pause(
    job: JobName,
    wait: Annotated[bool, typer.Option(help="Wait until nothing of it runs.")] = True,
    as_json: Json = False,
) -> None:
    """Stops a job for a while: a training writes a checkpoint, and its GPU is free."""
    with errors_shown(as_json), Client() as client:
        paused = client.pause(job)
        for event in client.watch(job, paused.last_sequence) if wait and show.is_pausing(paused) else ():
            paused = event.job if event.HasField("job") else paused
            if not show.is_pausing(paused):
                break
        print_message(paused, as_json, show.state_of(paused))


def resume(job: JobName, as_json: Json = False) -> None:
    """Goes on with a paused job: a training from its checkpoint, another stage from its beginning."""
    with errors_shown(as_json), Client() as client:
        resumed = client.resume(job)
        print_message(resumed, as_json, show.state_of(resumed))


def retry(
    job: JobName,
    watch: Annotated[bool, typer.Option("--watch", help="Follow the job to its end.")] = False,
    as_json: Json = False,
) -> None:
    """Goes on with a job that failed or was cancelled: from the stages that succeeded and its newest checkpoint."""
    with errors_shown(as_json), Client() as client:
        retried = client.retry(job)
        if watch:
            finish(watch_to_the_end(client, retried.name), as_json)
        print_message(retried, as_json, show.state_of(retried))
