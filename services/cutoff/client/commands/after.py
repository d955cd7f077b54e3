"""Commands after a job: what came of it, asking its models, installing and removing them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Annotated

import typer

from cutoff.client import ask as asking
from cutoff.client import compare as comparing
from cutoff.client import reports, show
from cutoff.client.api import Client, require_installed
from cutoff.client.commands.ending import errors_shown, print_message, watch_to_the_end
from cutoff.client.commands.options import Artifacts, JobName, Json, Models, roots_of
from cutoff.client.job_record import find_record
from cutoff.errors import Fault, InvalidInput, Refused
from cutoff.spec import spec_from_proto
from cutoff.stage.report import Reporter
from cutoff.stage.terminal import Display, sigterm_interrupts
from cutoff.telemetry import before_import


def report(
    job: JobName,
    open_it: Annotated[bool, typer.Option("--open", help="Show the page in a browser.")] = False,
    html: Annotated[Path | None, typer.Option(help="Write the page to a file.")] = None,
    artifacts: Artifacts = None,
    as_json: Json = False,
) -> None:
    """Shows what came of a job: whether it forgot, still knows and was installed; and if not, what to try."""
    with errors_shown(as_json):
        roots = roots_of(None, artifacts, None)
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


def compare(
    jobs: Annotated[list[str], typer.Argument(help="Jobs, as `cutoff list` shows them.", metavar="JOB JOB...")],
    target: Annotated[str | None, typer.Option(help="base, merged, q4_k_m, ... [the file each would install].")] = None,
    question_set: Annotated[str, typer.Option("--set", help="validation, test or heldout.")] = comparing.VALIDATION,
    artifacts: Artifacts = None,
    as_json: Json = False,
) -> None:
    """Puts jobs side by side: in what they differ, and how they score."""
    with errors_shown(as_json):
        if len(set(jobs)) < 2:
            raise InvalidInput([Fault("JOB", "one job has nothing to be compared with", "name two or more")])
        found = comparing.compared(reports.find_jobs(jobs, roots_of(None, artifacts, None)), target, question_set)
        if as_json:
            print(json.dumps(found, indent=2))
        else:
            show.wide_console().print(comparing.compare_table(found))


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
    with errors_shown(as_json), sigterm_interrupts(), Display() as display:
        roots = roots_of(None, artifacts, None)
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
    with errors_shown(as_json), sigterm_interrupts():
        roots = roots_of(None, artifacts, models)
        record = find_record(roots, job)
        if record is not None:
            with _local_install() as local, Display() as display:
                installed = local.install_here(record, roots, quant, replace, display.event)
        else:
            with Client() as client:
                begun = client.install(job, quant, replace)
                installed = watch_to_the_end(client, begun.name, begun.last_sequence)
            require_installed(installed)
        print_message(installed, as_json, f"installed: {installed.result.installed_path}")


def uninstall(job: JobName, artifacts: Artifacts = None, models: Models = None, as_json: Json = False) -> None:
    """Removes what a job installed from LM Studio's models folder; the job keeps its files."""
    with errors_shown(as_json):
        roots = roots_of(None, artifacts, models)
        record = find_record(roots, job)
        if record is not None:
            with _local_install() as local:
                left = local.uninstall_here(record, roots)
        else:
            with Client() as client:
                left = client.uninstall(job)
        print_message(left, as_json, f"nothing of {left.name} is installed")


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
