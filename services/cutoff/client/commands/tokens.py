"""The commands that make, list and revoke the users' tokens."""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated

import typer

from cutoff.client import show, token_command
from cutoff.client.commands.ending import errors_shown
from cutoff.client.commands.options import Artifacts, Json, roots_of

tokens = typer.Typer(no_args_is_help=True, help="The users' tokens of the coordinator whose state folder is here.")


@tokens.command("create")
def create_token(
    name: Annotated[str, typer.Argument(help="Whose it is; the audit calls its calls by it.", metavar="NAME")],
    days: Annotated[float | None, typer.Option(help="How many days it is good [until it is revoked].")] = None,
    artifacts: Artifacts = None,
    as_json: Json = False,
) -> None:
    """Makes a token and prints it, this once: only its hash is kept. It counts at once."""
    with errors_shown(as_json):
        token = token_command.create(name, days, roots_of(None, artifacts, None))
        print(json.dumps({"name": name, "token": token}) if as_json else token)


@tokens.command("list")
def list_tokens(artifacts: Artifacts = None, as_json: Json = False) -> None:
    """Lists the tokens: their state, when they were made, and when they were last shown."""
    with errors_shown(as_json):
        found = token_command.listed(roots_of(None, artifacts, None))
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
    with errors_shown(as_json):
        revoked = token_command.revoke(name, roots_of(None, artifacts, None))
        print(json.dumps({"name": name, "revoked": revoked.revoked}) if as_json else f"{name} is revoked")
