"""A name for the artifacts folder, kept in it: hosts that see the same name share the folder."""

from __future__ import annotations

import contextlib
import secrets
from pathlib import Path

from cutoff.artifacts.publish import publishing
from cutoff.errors import AlreadyExists

_FILE = ".cutoff-artifacts-id"
_LONGEST = 64


def name_artifacts(artifacts: Path) -> str:
    """The folder's name, which it is given if it has none: 32 random hexadecimal digits."""
    present = artifacts_id(artifacts)
    if present:
        return present
    with contextlib.suppress(AlreadyExists), publishing(artifacts / _FILE, replace=False) as partial:
        partial.write_text(secrets.token_hex(16), "ascii")
    return artifacts_id(artifacts)


def artifacts_id(artifacts: Path) -> str:
    """The folder's name; "" when it has none, or is not there."""
    try:
        with (artifacts / _FILE).open("rb") as file:
            return file.read(_LONGEST).decode("ascii", "replace").strip()
    except (FileNotFoundError, NotADirectoryError):
        return ""
