"""How a command follows a job, prints what it found, and ends: data on stdout, errors on stderr, the exit code."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from google.protobuf import json_format
from google.protobuf.message import Message

from cutoff.client import show
from cutoff.client.api import Client, Outcome, outcome_of
from cutoff.errors import CutoffError, InvalidInput, NotFound, Refused, Unauthenticated, Unavailable, as_cutoff_error
from cutoff.rpc import failure_of
from cutoff.stage.terminal import (
    EXIT_BELOW_BAR,
    EXIT_DONE,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_UNREACHABLE,
    EXIT_USAGE,
    Display,
    show_error,
)
from cutoff.v1 import job_pb2

EXIT_OF = {
    Outcome.INSTALLED: EXIT_DONE,
    Outcome.RUNNING: EXIT_DONE,
    Outcome.FAILED: EXIT_FAILED,
    Outcome.CANCELLED: EXIT_FAILED,
    Outcome.BELOW_BAR: EXIT_BELOW_BAR,
}


def follow_to_the_end(client: Client, name: str) -> job_pb2.Job:
    """Watches a job that is this command's own: interrupting the command cancels the job."""
    try:
        return watch_to_the_end(client, name)
    except KeyboardInterrupt:
        print("cancelling; once more to stop at once", file=sys.stderr)
        watch_to_the_end(client, name, client.cancel(name).last_sequence)
        raise


def watch_to_the_end(client: Client, name: str, after_sequence: int = 0) -> job_pb2.Job:
    """Watches a job, drawing what happens; returns it as it is at its end."""
    with Display() as display:
        show.follow(client.watch(name, after_sequence), display)
    return client.get(name)


def finish(job: job_pb2.Job, as_json: bool, folders: str = "") -> None:
    """Prints a job that has ended, and ends the command with the code that tells how."""
    if as_json:
        print_message(job, as_json)
    else:
        show.print_result(job, folders)
    raise typer.Exit(EXIT_OF[outcome_of(job)])


def print_message(message: Message, as_json: bool, human: str = "") -> None:
    """Prints a message as JSON, or what says the same to a person."""
    print(json.dumps(as_dict(message), indent=2) if as_json else human)


def as_dict(message: Message) -> dict[str, Any]:
    """A message as `--json` prints it."""
    found: dict[str, Any] = json_format.MessageToDict(message, preserving_proto_field_name=True)
    return found


@contextmanager
def faults_shown() -> Iterator[None]:
    """Turns faults that the command's data already has into a message and the exit code."""
    try:
        yield
    except InvalidInput as error:
        show_error(error)
        raise typer.Exit(EXIT_USAGE) from error


@contextmanager
def errors_shown(as_json: bool) -> Iterator[None]:
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
            print(json.dumps({"error": as_dict(failure_of(error))}, indent=2))
        raise typer.Exit(_exit_code(error)) from raised


def _exit_code(error: CutoffError) -> int:
    if isinstance(error, Unavailable | Unauthenticated):
        return EXIT_UNREACHABLE
    return EXIT_USAGE if isinstance(error, InvalidInput | NotFound | Refused) else EXIT_FAILED
