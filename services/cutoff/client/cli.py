"""The `cutoff` command. `cutoff --help` lists what it can do; docs/exit-codes.md what its exit codes mean.

Data goes to stdout (JSON with --json), progress and errors to stderr.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import typer
from google.protobuf import json_format
from google.protobuf.message import Message

import cutoff
from cutoff.artifacts import Roots, publishing
from cutoff.client import ask as asking
from cutoff.client import compare as comparing
from cutoff.client import reports, show, token_command
from cutoff.client.api import Client, Outcome, outcome_of, require_installed
from cutoff.client.job_record import find_record, record_path, write_record
from cutoff.client.local import LocalSystem
from cutoff.client.plan import as_json as plan_as_json
from cutoff.client.plan import make_plan
from cutoff.client.plan_table import print_plan
from cutoff.demo import DEFAULT_FACTS, create
from cutoff.errors import (
    CutoffError,
    Fault,
    InvalidInput,
    NotFound,
    Refused,
    Unauthenticated,
    Unavailable,
    as_cutoff_error,
)
from cutoff.rpc import failure_of
from cutoff.spec import load_job_yaml, spec_from_proto
from cutoff.stage.report import Counter, Reporter
from cutoff.stage.terminal import (
    EXIT_BELOW_BAR,
    EXIT_DONE,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_UNREACHABLE,
    EXIT_USAGE,
    Display,
    show_error,
    sigterm_interrupts,
)
from cutoff.telemetry import before_import
from cutoff.v1 import job_pb2

app = typer.Typer(
    no_args_is_help=True, pretty_exceptions_enable=False, help="Gives a language model a knowledge cutoff."
)

_EXIT_OF = {
    Outcome.INSTALLED: EXIT_DONE,
    Outcome.RUNNING: EXIT_DONE,
    Outcome.FAILED: EXIT_FAILED,
    Outcome.CANCELLED: EXIT_FAILED,
    Outcome.BELOW_BAR: EXIT_BELOW_BAR,
}

Json = Annotated[bool, typer.Option("--json", help="Data as JSON on stdout.")]
JobFile = Annotated[Path, typer.Argument(help="The job.yaml.", metavar="JOB.YAML")]
JobName = Annotated[str, typer.Argument(help="A job, as `cutoff list` shows it.", metavar="JOB")]
Datasets = Annotated[Path | None, typer.Option(help="What dataset paths are relative to [CUTOFF_DATASETS].")]
Artifacts = Annotated[Path | None, typer.Option(help="Where the jobs' folders are [CUTOFF_ARTIFACTS].")]
Models = Annotated[Path | None, typer.Option(help="LM Studio's models folder [LMSTUDIO_MODELS].")]


@app.command()
def run(
    job_file: JobFile,
    datasets: Datasets = None,
    artifacts: Artifacts = None,
    models: Models = None,
    as_json: Json = False,
) -> None:
    """Runs one job on this machine: starts everything it needs, and stops it afterwards."""
    with _errors_shown(as_json), sigterm_interrupts():
        spec = load_job_yaml(job_file)
        roots = _roots(datasets, artifacts, models)
        with LocalSystem(roots) as system, Client(system.address) as client:
            job = _follow_to_the_end(client, client.submit(spec).name)
        write_record(record_path(roots.artifacts, job.name), job)  # the system's own store is gone by now
        given = {"--artifacts": artifacts, "--models": models}
        _finish(job, as_json, "".join(f" {flag} {path}" for flag, path in given.items() if path is not None))


@app.command()
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
    with _errors_shown(as_json):
        made = make_plan(load_job_yaml(job_file), _roots(datasets, artifacts, models), gpu, gpu_memory_gib)
        if as_json:
            print(json.dumps(plan_as_json(made), indent=2))
        else:
            print_plan(made, show.wide_console())


@app.command()
def submit(
    job_file: JobFile,
    request_id: Annotated[str | None, typer.Option(help="The same id returns the same job.")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Follow the job to its end.")] = False,
    as_json: Json = False,
) -> None:
    """Hands a job to the coordinator."""
    with _errors_shown(as_json), Client() as client:
        job = client.submit(load_job_yaml(job_file), request_id)
        if watch:
            _finish(_watch_to_the_end(client, job.name), as_json)
        _print(job, as_json, job.name.removeprefix("jobs/"))


@app.command()
def get(job: JobName, as_json: Json = False) -> None:
    """Shows one job."""
    with _errors_shown(as_json), Client() as client:
        found = client.get(job)
        if as_json:
            _print(found, as_json)
            return
        show.wide_console().print(show.jobs_table([found]))
        show.print_result(found)


@app.command("list")
def list_jobs(
    limit: Annotated[int, typer.Option(min=1, help="At most this many.")] = 50, as_json: Json = False
) -> None:
    """Lists jobs, the newest first."""
    with _errors_shown(as_json), Client() as client:
        jobs = list(client.jobs(limit))
        if as_json:
            print(json.dumps([_dict(job) for job in jobs], indent=2))
        else:
            show.wide_console().print(show.jobs_table(jobs))


@app.command()
def watch(job: JobName, as_json: Json = False) -> None:
    """Follows a job to its end; with --json, one event a line. Interrupting it leaves the job alone."""
    with _errors_shown(as_json), Client() as client:
        if not as_json:
            _finish(_watch_to_the_end(client, client.get(job).name), as_json)
        for event in client.watch(job):
            print(json.dumps(_dict(event)), flush=True)
        raise typer.Exit(_EXIT_OF[outcome_of(client.get(job))])


@app.command()
def logs(
    job: JobName,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job has ended.")] = False,
    as_json: Json = False,
) -> None:
    """Prints what a job's runs logged."""
    with _errors_shown(as_json), Client() as client:
        last = client.get(job).last_sequence
        for happened in client.watch(job):
            event = happened.run.event
            if event.WhichOneof("kind") == "log_line":
                key, line = happened.run.key, event.log_line
                stamp = event.time.ToDatetime().isoformat(timespec="seconds")
                human = f"{stamp} {key.stage}/{key.attempt} {line.level} {line.text}"
                print(json.dumps(_dict(happened)) if as_json else human, flush=True)
            if not follow and happened.sequence >= last:
                return


@app.command()
def cancel(
    job: JobName,
    wait: Annotated[bool, typer.Option(help="Wait until nothing of it runs.")] = True,
    as_json: Json = False,
) -> None:
    """Stops a job."""
    with _errors_shown(as_json), Client() as client:
        cancelled = client.cancel(job)
        if wait:
            for _ in client.watch(job, cancelled.last_sequence):
                pass
            cancelled = client.get(job)
        _print(cancelled, as_json, show.state_of(cancelled))


@app.command()
def install(
    job: JobName,
    quant: Annotated[str, typer.Option(help="One of its quantization types [the installed one, or the first].")] = "",
    replace: Annotated[bool, typer.Option("--replace", help="Put it in the place of another model.")] = False,
    artifacts: Artifacts = None,
    models: Models = None,
    as_json: Json = False,
) -> None:
    """Installs a GGUF of a job that has ended, whatever its scores were.

    A job that `cutoff run` left in the artifacts folder is installed from there; any other by its coordinator.
    """
    with _errors_shown(as_json), sigterm_interrupts():
        roots = _roots(None, artifacts, models)
        record = find_record(roots, job)
        if record is not None:
            with _local_install() as local, Display() as display:
                installed = local.install_here(record, roots, quant, replace, display.event)
        else:
            with Client() as client:
                begun = client.install(job, quant, replace)
                installed = _watch_to_the_end(client, begun.name, begun.last_sequence)
            require_installed(installed)
        _print(installed, as_json, f"installed: {installed.result.installed_path}")


@app.command()
def uninstall(job: JobName, artifacts: Artifacts = None, models: Models = None, as_json: Json = False) -> None:
    """Removes what a job installed from LM Studio's models folder; the job keeps its files."""
    with _errors_shown(as_json):
        roots = _roots(None, artifacts, models)
        record = find_record(roots, job)
        if record is not None:
            with _local_install() as local:
                left = local.uninstall_here(record, roots)
        else:
            with Client() as client:
                left = client.uninstall(job)
        _print(left, as_json, f"nothing of {left.name} is installed")


@app.command()
def check(
    job_file: JobFile,
    datasets: Datasets = None,
    html: Annotated[Path | None, typer.Option(help="Also write the report as one HTML page.")] = None,
    as_json: Json = False,
) -> None:
    """Checks a job's data as prepare does, on this machine and without a server."""
    with _errors_shown(as_json), sigterm_interrupts(), Display() as display:
        spec, roots = load_job_yaml(job_file), _roots(datasets, None, None)
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
    with _faults_shown():
        report.raise_if_faulty()


@app.command()
def ask(
    job: JobName,
    question: Annotated[str, typer.Argument(help="What to ask.")],
    target: Annotated[
        str | None, typer.Option(help="base, adapter, merged or a quantization type [all, side by side].")
    ] = None,
    artifacts: Artifacts = None,
    as_json: Json = False,
) -> None:
    """Asks what a job has made, on the machine that holds its artifacts: one target, or all side by side."""
    with _errors_shown(as_json), sigterm_interrupts(), Display() as display:
        roots = _roots(None, artifacts, None)
        record = asking.known_job(job, roots)
        targets = asking.chosen(record, target)
        before_import()
        try:
            import torch

            from cutoff.evaluator.ask import ask as ask_targets
        except ModuleNotFoundError as error:
            raise Refused(f"asking needs {error.name}", "pip install .[evaluator], or ask where a stage is") from error
        devices = ("cuda:0",) if torch.cuda.is_available() else ()
        report, spec = Reporter(display.event), spec_from_proto(record.spec)
        replies = {name: found[0] for name, found in ask_targets(targets, spec, [question], roots, devices, report)}
    if as_json:
        print(json.dumps({name: dataclasses.asdict(reply) for name, reply in replies.items()}, indent=2))
    else:
        show.wide_console().print(
            show.replies_table({name: reply.error or reply.text for name, reply in replies.items()})
        )


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="The folder to write.")],
    facts: Annotated[
        int, typer.Option(min=8, max=5000, help="How many made-up facts, half of them before the cutoff.")
    ] = DEFAULT_FACTS,
    seed: Annotated[int, typer.Option(help="Another seed, another world.")] = 1,
    base_model: Annotated[
        str | None, typer.Option(help="What job.yaml calls the base model, where services see it elsewhere [OUT/base].")
    ] = None,
    control: Annotated[
        bool, typer.Option("--control", help="Also make OUT/control, which never saw the later facts.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Writes a made-up world: a base model that knows its facts, question sets, and a job.yaml."""
    with _errors_shown(as_json), Display() as display:
        report, phases = Reporter(display.event, interval=0.2), dict[str, Counter]()

        def progressed(phase: str, step: int, total: int) -> None:
            if phase not in phases:
                phases[phase] = report.counter(phase, "step", total)
            phases[phase].at(step)

        cache = Roots.from_environment().cache
        try:
            job_file = create(
                out, facts=facts, seed=seed, cache=cache, on_progress=progressed, base_model=base_model, control=control
            )
        except ModuleNotFoundError as error:
            raise Refused(f"the demo's base model needs {error.name}", "make setup, or pip install .[demo]") from error
        print(json.dumps({"job": str(job_file)}) if as_json else job_file)
    print(f"next: {_after_demo(job_file, elsewhere=base_model is not None)}", file=sys.stderr)


def _after_demo(job_file: Path, elsewhere: bool) -> str:
    """The command that runs the demo; a base model that services see elsewhere is theirs to find."""
    job, world = shlex.quote(str(job_file)), job_file.parent
    if elsewhere:
        return f"cutoff submit {job} --watch"
    folders = {"datasets": "datasets", "artifacts": "output", "models": "models"}
    return " ".join(
        [f"cutoff run {job}", *(f"--{flag} {shlex.quote(str(world / name))}" for flag, name in folders.items())]
    )


@app.command()
def init(
    out: Annotated[Path, typer.Option(help="The folder to write; what is there and good stays.")] = Path("secrets"),
    host: Annotated[
        list[str] | None, typer.Option(help="A further name or IP address of the coordinator; may be repeated.")
    ] = None,
    owner: Annotated[str, typer.Option(help="UID:GID that is to own the files (as root only).")] = "",
    as_json: Json = False,
) -> None:
    """Makes the token and the certificates with which services and users know each other."""
    from cutoff.client.init import init as make  # cryptography is slow to import, and only this command needs it

    with _errors_shown(as_json):
        made = make(out, host or os.environ.get("CUTOFF_HOSTS", "").split(), _ids(owner))
        summary = f"{out}: {len(made.written)} files written" if made.written else f"{out}: all there, nothing to do"
        print(json.dumps({"folder": str(out), "written": made.written}) if as_json else summary)


tokens = typer.Typer(no_args_is_help=True, help="The users' tokens of the coordinator whose state folder is here.")
app.add_typer(tokens, name="token")


@tokens.command("create")
def create_token(
    name: Annotated[str, typer.Argument(help="Whose it is; the audit calls its calls by it.", metavar="NAME")],
    days: Annotated[float | None, typer.Option(help="How many days it is good [until it is revoked].")] = None,
    artifacts: Artifacts = None,
    as_json: Json = False,
) -> None:
    """Makes a token and prints it, this once: only its hash is kept. It counts at once."""
    with _errors_shown(as_json):
        token = token_command.create(name, days, _roots(None, artifacts, None))
        print(json.dumps({"name": name, "token": token}) if as_json else token)


@tokens.command("list")
def list_tokens(artifacts: Artifacts = None, as_json: Json = False) -> None:
    """Lists the tokens: their state, when they were made, and when they were last shown."""
    with _errors_shown(as_json):
        found = token_command.listed(_roots(None, artifacts, None))
        if as_json:
            print(json.dumps([dataclasses.asdict(each) for each in found], indent=2))
        else:
            show.wide_console().print(token_command.table(found))


@tokens.command("revoke")
def revoke_token(
    name: Annotated[str, typer.Argument(help="As `cutoff token list` shows it.", metavar="NAME")],
    artifacts: Artifacts = None,
    as_json: Json = False,
) -> None:
    """Ends a token: its next call is refused, and what it watches ends within seconds."""
    with _errors_shown(as_json):
        revoked = token_command.revoke(name, _roots(None, artifacts, None))
        print(json.dumps({"name": name, "revoked": revoked.revoked}) if as_json else f"{name} is revoked")


@app.command()
def serve(datasets: Datasets = None, artifacts: Artifacts = None, models: Models = None) -> None:
    """Runs coordinator and stage services on this machine's loopback ports until it is interrupted."""
    roots = _roots(datasets, artifacts, models)
    with _errors_shown(as_json=False), sigterm_interrupts(), LocalSystem(roots, ports=True) as system:
        print(f"serving on {system.address}; stop with Ctrl-C", file=sys.stderr, flush=True)
        try:
            system.watch()
        except KeyboardInterrupt:
            print("stopping", file=sys.stderr)


@app.command()
def report(
    job: JobName,
    open_it: Annotated[bool, typer.Option("--open", help="Show the page in a browser.")] = False,
    html: Annotated[Path | None, typer.Option(help="Write the page to a file.")] = None,
    artifacts: Artifacts = None,
    as_json: Json = False,
) -> None:
    """Shows what came of a job: whether it forgot, still knows and was installed; and if not, what to try."""
    with _errors_shown(as_json):
        roots = _roots(None, artifacts, None)
        found = reports.find_report(job, roots)
        if html is not None:
            reports.save_page(found, html)
        opened = reports.open_page(found, roots) if open_it else None
        if as_json:
            print(found.content.decode(), end="")
        elif opened or html:
            print(opened or html)
        else:
            reports.print_report(found, show.wide_console())


@app.command()
def compare(
    jobs: Annotated[list[str], typer.Argument(help="Jobs, as `cutoff list` shows them.", metavar="JOB JOB...")],
    target: Annotated[str | None, typer.Option(help="base, merged, q4_k_m, ... [the file each would install].")] = None,
    question_set: Annotated[str, typer.Option("--set", help="validation, test or heldout.")] = comparing.VALIDATION,
    artifacts: Artifacts = None,
    as_json: Json = False,
) -> None:
    """Puts jobs side by side: in what they differ, and how they score."""
    with _errors_shown(as_json):
        if len(set(jobs)) < 2:
            raise InvalidInput([Fault("JOB", "one job has nothing to be compared with", "name two or more")])
        found = comparing.compared(reports.find_jobs(jobs, _roots(None, artifacts, None)), target, question_set)
        if as_json:
            print(json.dumps(found, indent=2))
        else:
            show.wide_console().print(comparing.compare_table(found))


@app.command()
def version() -> None:
    """Prints the version."""
    print(cutoff.__version__)


def main() -> None:
    """The console script."""
    app()


def _follow_to_the_end(client: Client, name: str) -> job_pb2.Job:
    """Watches a job that is this command's own: interrupting the command cancels the job."""
    try:
        return _watch_to_the_end(client, name)
    except KeyboardInterrupt:
        print("cancelling; once more to stop at once", file=sys.stderr)
        _watch_to_the_end(client, name, client.cancel(name).last_sequence)
        raise


def _watch_to_the_end(client: Client, name: str, after_sequence: int = 0) -> job_pb2.Job:
    with Display() as display:
        show.follow(client.watch(name, after_sequence), display)
    return client.get(name)


def _finish(job: job_pb2.Job, as_json: bool, folders: str = "") -> None:
    """Prints a job that has ended, and ends the command with the code that tells how."""
    if as_json:
        _print(job, as_json)
    else:
        show.print_result(job, folders)
    raise typer.Exit(_EXIT_OF[outcome_of(job)])


def _print(message: Message, as_json: bool, human: str = "") -> None:
    print(json.dumps(_dict(message), indent=2) if as_json else human)


def _dict(message: Message) -> dict[str, Any]:
    found: dict[str, Any] = json_format.MessageToDict(message, preserving_proto_field_name=True)
    return found


def _ids(owner: str) -> tuple[int, int] | None:
    user, _, group = owner.partition(":")
    if not owner:
        return None
    if not (user.isdigit() and group.isdigit()):
        raise InvalidInput([Fault("--owner", f"{owner!r} is not UID:GID in numbers", "give for example 1000:1000")])
    return int(user), int(group)


def _roots(datasets: Path | None, artifacts: Path | None, models: Path | None) -> Roots:
    given = {"datasets": datasets, "artifacts": artifacts, "models": models}
    return dataclasses.replace(
        Roots.from_environment(), **{name: path.absolute() for name, path in given.items() if path is not None}
    )


@contextmanager
def _local_install() -> Iterator[ModuleType]:
    """What installs on this machine; a client alone cannot."""
    try:
        from cutoff.client import local_install
    except ModuleNotFoundError as error:
        raise Refused(
            f"installing needs {error.name}", "pip install .[gguf-converter], or do it where the job was run"
        ) from error
    yield local_install


@contextmanager
def _faults_shown() -> Iterator[None]:
    """Turns faults that the command's data already has into a message and the exit code."""
    try:
        yield
    except InvalidInput as error:
        show_error(error)
        raise typer.Exit(EXIT_USAGE) from error


@contextmanager
def _errors_shown(as_json: bool) -> Iterator[None]:
    """Turns what cutoff reports into a message and an exit code."""
    try:
        yield
    except KeyboardInterrupt:
        raise typer.Exit(EXIT_INTERRUPTED) from None
    except (CutoffError, OSError) as raised:
        error = as_cutoff_error(raised, "the working folder")
        if error is None:
            raise
        show_error(error)
        if as_json:
            print(json.dumps({"error": _dict(failure_of(error))}, indent=2))
        raise typer.Exit(_exit_code(error)) from raised


def _exit_code(error: CutoffError) -> int:
    if isinstance(error, Unavailable | Unauthenticated):
        return EXIT_UNREACHABLE
    return EXIT_USAGE if isinstance(error, InvalidInput | NotFound | Refused) else EXIT_FAILED
