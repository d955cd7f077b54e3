"""What a person sees of a job: its events as they come, its results as a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cutoff.client.api import Outcome, outcome_of
from cutoff.stage.terminal import Display
from cutoff.v1 import job_pb2

_SETS = ("validation", "test", "heldout")
"""Question sets, the one that decides first."""

_SCORES = {
    "kept": "retain_correct",
    "false refusals": "retain_refused",
    "refused": "unlearn_refused",
    "leaked": "unlearn_leaked",
    "forgotten": "unlearn_forgotten",
}
"""Column headings, and the scores of `Evaluation` below them."""


def state_of(job: job_pb2.Job) -> str:
    """A job's state as a word."""
    return job_pb2.Job.State.Name(job.state).removeprefix("STATE_").lower()


def is_pausing(job: job_pb2.Job) -> bool:
    """Whether a job is being paused, and something of it may run yet."""
    return bool(job.state == job_pb2.Job.STATE_PAUSING)


def standing(job: job_pb2.Job) -> str:
    """Why a job does not go on; "" when it does."""
    if job.HasField("pause"):
        return f"paused by {job.pause.by}" + (f": {job.pause.reason}" if job.pause.reason else "")
    return _waits(job.waiting) if job.waiting.reason else ""


def _waits(waiting: job_pb2.Waiting) -> str:
    place = f" (place {waiting.position} of {waiting.length})" if waiting.length > 1 else ""
    return f"{waiting.stage} waits{place}: {waiting.message}"


def print_standing(job: job_pb2.Job) -> None:
    """Prints why a job does not go on, on stdout; nothing when it does."""
    if standing(job):
        wide_console().print(standing(job), markup=False, soft_wrap=True)


def follow(events: Iterable[job_pb2.JobEvent], display: Display) -> job_pb2.Job | None:
    """Shows events as they come; returns the job as the last of them left it."""
    job: job_pb2.Job | None = None
    stage, waits = "", ""
    for happened in events:
        if happened.HasField("waiting"):
            said = _waits(happened.waiting) if happened.waiting.reason else ""
            if said and said != waits:
                display.line(said)
            waits = said
            continue
        if happened.HasField("job"):
            if job is None or job.state != happened.job.state:
                why = f", {standing(happened.job)}" if happened.job.HasField("pause") else ""
                display.line(f"{happened.job.name}: {state_of(happened.job)}{why}")
            job = happened.job
            continue
        key = happened.run.key
        if happened.run.event.HasField("started") and key.stage != stage:
            stage = key.stage
            again = f" (attempt {key.attempt})" if key.attempt > 1 else ""
            display.line(f"{stage}{again}")
        display.event(happened.run.event, prefix=f"  {key.stage}: ")
    return job


def print_result(job: job_pb2.Job, folders: str = "") -> None:
    """Prints a job's scores and where its GGUF is, on stdout.

    Args:
        job: The job.
        folders: The options with which further commands find its folders.
    """
    console = wide_console()
    if job.result.evaluations:
        console.print(results_table(job))
    if job.HasField("failure"):
        console.print(f"{state_of(job)}: {job.failure.message}", markup=False, soft_wrap=True)
        if job.failure.remedy:
            console.print(f"  what to do: {job.failure.remedy}", markup=False, soft_wrap=True)
    for missed in job.result.missed:
        verdict = "installed although" if job.result.installed_path else "not installed"
        console.print(f"{verdict}: {missed}", markup=False, soft_wrap=True)
    if outcome_of(job) is Outcome.BELOW_BAR:
        command = f"cutoff install {job.name.removeprefix('jobs/')}{folders}"
        console.print(f"  to install it all the same: {command}", markup=False, soft_wrap=True)
    if job.result.installed_path:
        console.print(f"installed: {job.result.installed_path}", markup=False, soft_wrap=True)
    for path in (artifact.path for each in job.attempts for artifact in each.artifacts if artifact.kind == "card"):
        console.print(f"card: {path} (in the artifacts folder)", markup=False, soft_wrap=True)
    if any(artifact.kind == "report-page" for attempt in job.attempts for artifact in attempt.artifacts):
        console.print(f"report: cutoff report {job.name.removeprefix('jobs/')} --open", markup=False, soft_wrap=True)


def wide_console() -> Console:
    """Stdout; where it is no terminal, wide enough for every table."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 120
    return console


def results_table(job: job_pb2.Job) -> Table:
    """The scores of every target, with their 95 % intervals."""
    table = Table(
        title=f"{job.name}: scores in percent, and 95 % intervals",
        title_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    table.add_column("target")
    table.add_column("questions")
    for heading in _SCORES:
        table.add_column(heading, justify="right")
    # Convert and evaluate run side by side, so scores come in no fixed order; those of a set belong together.
    for evaluation in sorted(job.result.evaluations, key=lambda found: _SETS.index(found.question_set)):
        cells = [_score(evaluation, field) for field in _SCORES.values()]
        table.add_row(evaluation.target, evaluation.question_set, *cells)
    return table


def jobs_table(jobs: Iterable[job_pb2.Job]) -> Table:
    """Jobs, a line each."""
    table = Table()
    for heading in ("job", "state", "stage", "created", "base model"):
        table.add_column(heading)
    for job in jobs:
        stage = job.attempts[-1].key.stage if job.attempts else ""
        created = job.create_time.ToDatetime().strftime("%Y-%m-%d %H:%M:%S")
        below = outcome_of(job) is Outcome.BELOW_BAR
        outcome = f"{state_of(job)}, {Outcome.BELOW_BAR.value}" if below else state_of(job)
        if job.waiting.reason:
            outcome += f", waits: {job.waiting.position} of {job.waiting.length}"
        table.add_row(job.name.removeprefix("jobs/"), outcome, stage, created, job.spec.base_model)
    return table


def _score(evaluation: job_pb2.Evaluation, field: str) -> str:
    if not evaluation.HasField(field):
        return "-"
    score: job_pb2.Score = getattr(evaluation, field)
    share = f"{100 * score.count / score.total:.1f}".removesuffix(".0")
    return f"{share} {100 * score.low:.0f}-{100 * score.high:.0f}"


def replies_table(replies: Mapping[str, str]) -> Table:
    """What each target answered, side by side."""
    table = Table("target", "answer", box=SIMPLE_HEAD)
    for target, text in replies.items():
        table.add_row(target, Text(text))
    return table
