"""`cutoff token create | list | revoke`: the users' tokens of the coordinator whose state folder is here.

Whoever may write that folder may make tokens; no token opens this. In containers:
`docker compose exec coordinator cutoff token create NAME`.
"""

from __future__ import annotations

import datetime
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.table import Table

from cutoff.artifacts import Roots
from cutoff.errors import Refused
from cutoff.rpc.audit import AUDIT, Audit
from cutoff.rpc.security import TOKENS
from cutoff.rpc.tokens import Token, TokenFile


@dataclass(frozen=True, slots=True)
class Shown:
    """A token as it is listed."""

    name: str
    state: str
    """good, expired or revoked."""
    created: str
    expires: str | None
    last_used: str | None


def create(name: str, days: float | None, roots: Roots) -> str:
    """Makes a token; see `TokenFile.create`. Counts from the next call on.

    Args:
        name: Whose it is.
        days: How long it is good; None until it is revoked.
        roots: Say where the coordinator's state is; see `state_folder`.

    Raises:
        CutoffError: As `TokenFile.create`, or the folder may not be written.
    """
    folder = state_folder(roots)
    token = _file(folder).create(name, days)
    _noted(folder, "token create", name)
    return token


def revoke(name: str, roots: Roots) -> Token:
    """Ends a token, at the next call; streams it opened end within seconds.

    Raises:
        NotFound: There is none of this name.
    """
    folder = state_folder(roots)
    token = _file(folder).revoke(name)
    _noted(folder, "token revoke", name)
    return token


def listed(roots: Roots) -> list[Shown]:
    """Every token there is and was."""
    file, now = _file(state_folder(roots)), datetime.datetime.now(datetime.UTC)
    uses = file.uses()
    return [Shown(each.name, each.state(now), each.created, each.expires, uses.get(each.name)) for each in file.all()]


def table(tokens: list[Shown]) -> Table:
    """The list for people."""
    shown = Table("name", "state", "created", "expires", "last used", box=None)
    for each in tokens:
        shown.add_row(*(value or "never" for value in asdict(each).values()))
    return shown


def state_folder(roots: Roots) -> Path:
    """Where the coordinator of this machine keeps its state: CUTOFF_STATE, or `state` in the artifacts.

    Raises:
        Refused: There is no such folder: a token made there would open nothing.
    """
    folder = Path(os.environ.get("CUTOFF_STATE") or roots.artifacts / "state")
    if not folder.is_dir():
        raise Refused(
            f"{folder} is no coordinator's state folder",
            "set CUTOFF_STATE or --artifacts, or do it where the coordinator runs: docker compose exec coordinator "
            "cutoff token ...",
        )
    return folder


def _file(folder: Path) -> TokenFile:
    return TokenFile(folder / TOKENS)


def _noted(folder: Path, what: str, name: str) -> None:
    audit = Audit(folder / AUDIT, log=False)
    audit.note(f"user:{os.geteuid()}", what, name, "here", "OK")
    audit.close()
