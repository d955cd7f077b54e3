"""Makes what the services need to trust each other: an authority, certificates, the users' token, Ray's token.

    DIR/ca/            the authority's certificate and key; no service reads them
    DIR/<service>/     tls.crt, tls.key, ca.crt; for the coordinator also token and ray-token
    DIR/client/        token and ca.crt: what a user's machine needs
    DIR/grafana/       password: that of Grafana's user admin

What is there and good stays as it is. A certificate that ends within a month, belongs to another authority or
lacks a name is made anew, so that starting the system renews its certificates. No file is ever seen half-written.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cutoff.artifacts import publishing
from cutoff.client.certificates import Certificate, issue, make_authority, still_good
from cutoff.errors import Refused

COORDINATOR = "coordinator"
STAGE_SERVICES = ("trainer", "merger", "gguf-converter", "evaluator")


@dataclass(frozen=True, slots=True)
class Made:
    """What `init` found and did."""

    folder: Path
    written: tuple[str, ...]
    """Relative to the folder; empty when everything was there."""


def init(folder: Path, hosts: Sequence[str] = (), owner: tuple[int, int] | None = None) -> Made:
    """Makes what lacks below a folder.

    Args:
        folder: Where; each service mounts only its own part.
        hosts: Further names and IP addresses under which the services are reached, beside their own names and
            this machine's loopback.
        owner: User and group that the files are to belong to; only root may give files away.

    Raises:
        Refused: The folder may not be written to, or the files not given away.
    """
    writing = _Writing(folder, owner)
    authority = _authority(writing)
    for service in (COORDINATOR, *STAGE_SERVICES):
        _certificate(writing, service, authority, hosts)
    token = writing.keep_or_write(f"{COORDINATOR}/token", _new_token)
    writing.keep_or_write(f"{COORDINATOR}/ray-token", _new_token)
    writing.keep_or_write("grafana/password", _new_token)
    writing.write_if_other("client/token", token, secret=True)
    writing.write_if_other("client/ca.crt", authority.certificate, secret=False)
    return Made(folder, tuple(writing.written))


def _authority(writing: _Writing) -> Certificate:
    found = writing.pair("ca")
    if found is not None:
        return found
    made = make_authority()
    writing.write_pair("ca", made)
    return made


def _certificate(writing: _Writing, service: str, authority: Certificate, hosts: Sequence[str]) -> None:
    names = (service, "localhost", "127.0.0.1", "::1", *hosts)
    found = writing.pair(service)
    if found is None or not still_good(found, authority, names):
        writing.write_pair(service, issue(authority, names))
    writing.write_if_other(f"{service}/ca.crt", authority.certificate, secret=False)


def _new_token() -> bytes:
    return secrets.token_hex(32).encode() + b"\n"


class _Writing:
    """Writes below one folder, with the modes and the owner that the services need."""

    def __init__(self, folder: Path, owner: tuple[int, int] | None) -> None:
        self._folder = folder
        self._owner = owner
        self.written: list[str] = []

    def read(self, name: str) -> bytes | None:
        path = self._folder / name
        try:
            return path.read_bytes() or None
        except FileNotFoundError:
            return None
        except PermissionError as error:
            raise self._refused(path) from error

    def pair(self, name: str) -> Certificate | None:
        certificate, key = self.read(f"{name}/tls.crt"), self.read(f"{name}/tls.key")
        return Certificate(certificate, key) if certificate and key else None

    def write_pair(self, name: str, pair: Certificate) -> None:
        self.write_if_other(f"{name}/tls.key", pair.key, secret=True)
        self.write_if_other(f"{name}/tls.crt", pair.certificate, secret=False)

    def keep_or_write(self, name: str, make: Callable[[], bytes]) -> bytes:
        found = self.read(name)
        if found is not None:
            return found
        made = make()
        self.write_if_other(name, made, secret=True)
        return made

    def write_if_other(self, name: str, content: bytes, *, secret: bool) -> None:
        if self.read(name) == content:
            return
        path = self._folder / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with publishing(path) as partial:
                descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600 if secret else 0o644)
                with os.fdopen(descriptor, "wb") as file:
                    file.write(content)
                    os.fchmod(descriptor, 0o600 if secret else 0o644)
                    if self._owner is not None:
                        os.fchown(descriptor, *self._owner)
            if self._owner is not None:
                os.chown(path.parent, *self._owner)
        except PermissionError as error:
            raise self._refused(path) from error
        self.written.append(name)

    def _refused(self, path: Path) -> Refused:
        there = next(folder for folder in (path.parent, *path.parents) if folder.exists())
        status = there.stat()
        return Refused(
            f"{path} cannot be written: {there} belongs to {status.st_uid}:{status.st_gid}, "
            f"and this is {os.geteuid()}:{os.getegid()}",
            f"sudo chown {os.geteuid()}:{os.getegid()} {there}, or set CUTOFF_UID and CUTOFF_GID in .env to its owner",
        )
