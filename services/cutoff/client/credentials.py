"""Finds what a user shows the coordinator, so that `cutoff submit` works beside `docker compose up` without settings.

In this order: CUTOFF_TOKEN_FILE and CUTOFF_CA_FILE; the folder $CUTOFF_SECRETS/client that `cutoff init` wrote; the
container that publishes the coordinator's port on this machine, for whoever may use Docker here.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from cutoff.rpc import ClientSecurity

_TITLE = "org.opencontainers.image.title=cutoff coordinator"
_SECONDS = 10.0
_SHOW = ["sh", "-c", 'cat "$CUTOFF_TOKEN_FILE" "$CUTOFF_CA_FILE"']


def find_security(address: str) -> ClientSecurity:
    """What to show the coordinator at an address.

    Raises:
        NotFound: A variable names a file that is not there.
        Refused: A token file holds no token.
    """
    if address.startswith("unix:") or os.environ.get("CUTOFF_TOKEN_FILE") or os.environ.get("CUTOFF_CA_FILE"):
        return ClientSecurity.from_environment()
    return _of_folder() or _of_container(address) or ClientSecurity(None, None)


def _of_folder() -> ClientSecurity | None:
    """What `cutoff init` wrote for users; None when it is not there, or not for this one to read."""
    folder = Path(os.environ.get("CUTOFF_SECRETS") or "/nowhere") / "client"
    try:
        return ClientSecurity.from_texts((folder / "token").read_text(), (folder / "ca.crt").read_bytes())
    except OSError:
        return None


def _of_container(address: str) -> ClientSecurity | None:
    """What the coordinator's container of this machine holds; None when there is none, or Docker is not ours."""
    host, _, port = address.rpartition(":")
    if host not in ("127.0.0.1", "localhost") or shutil.which("docker") is None:
        return None
    container = _docker("ps", "--quiet", "--filter", f"label={_TITLE}", "--filter", f"publish={port}")
    shown = _docker("exec", container.split()[0], *_SHOW) if container else ""
    token, separator, certificate = shown.partition("-----BEGIN")
    return ClientSecurity.from_texts(token, (separator + certificate).encode()) if separator else None


def _docker(*arguments: str) -> str:
    """What a docker command prints; "" when it fails."""
    try:
        ran = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return ran.stdout if ran.returncode == 0 else ""
