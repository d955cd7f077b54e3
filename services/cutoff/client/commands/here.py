"""Commands that work on this machine: run a job, serve, make a demo world, make tokens and certificates."""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from cutoff.artifacts import Roots
from cutoff.client.api import Client
from cutoff.client.commands.ending import errors_shown, finish, follow_to_the_end
from cutoff.client.commands.options import Artifacts, Datasets, JobFile, Json, Models, roots_of
from cutoff.client.job_record import record_path, write_record
from cutoff.client.local import LocalSystem
from cutoff.demo import DEFAULT_FACTS, create
from cutoff.errors import Fault, InvalidInput, Refused
from cutoff.spec import load_job_yaml
from cutoff.stage.report import Counter, Reporter
from cutoff.stage.terminal import Display, sigterm_interrupts


def run(
    job_file: JobFile,
    datasets: Datasets = None,
    artifacts: Artifacts = None,
    models: Models = None,
    as_json: Json = False,
) -> None:
    """Runs one job on this machine: starts everything it needs, and stops it afterwards."""
    with errors_shown(as_json), sigterm_interrupts():
        spec = load_job_yaml(job_file)
        roots = roots_of(datasets, artifacts, models)
        with LocalSystem(roots) as system, Client(system.address) as client:
            job = follow_to_the_end(client, client.submit(spec).name)
        write_record(record_path(roots.artifacts, job.name), job)  # the system's own store is gone by now
        given = {"--artifacts": artifacts, "--models": models}
        finish(job, as_json, "".join(f" {flag} {path}" for flag, path in given.items() if path is not None))


def serve(datasets: Datasets = None, artifacts: Artifacts = None, models: Models = None) -> None:
    """Runs coordinator and stage services on this machine's loopback ports until it is interrupted."""
    roots = roots_of(datasets, artifacts, models)
    with errors_shown(as_json=False), sigterm_interrupts(), LocalSystem(roots, ports=True) as system:
        print(f"serving on {system.address}; stop with Ctrl-C", file=sys.stderr, flush=True)
        try:
            system.watch()
        except KeyboardInterrupt:
            print("stopping", file=sys.stderr)


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
    with errors_shown(as_json), Display() as display:
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

    with errors_shown(as_json):
        made = make(out, host or os.environ.get("CUTOFF_HOSTS", "").split(), _ids(owner))
        summary = f"{out}: {len(made.written)} files written" if made.written else f"{out}: all there, nothing to do"
        print(json.dumps({"folder": str(out), "written": made.written}) if as_json else summary)


def _ids(owner: str) -> tuple[int, int] | None:
    user, _, group = owner.partition(":")
    if not owner:
        return None
    if not (user.isdigit() and group.isdigit()):
        raise InvalidInput([Fault("--owner", f"{owner!r} is not UID:GID in numbers", "give for example 1000:1000")])
    return int(user), int(group)
