"""Makes what the services need to trust each other: an authority, certificates, the users' token, Ray's token.

    DIR/ca/            the authority's certificate and key; no service reads them
    DIR/<service>/     tls.crt, tls.key, ca.crt; for the coordinator also token.sha256 and ray-token
    DIR/ray-worker/    tls.crt, tls.key, ca.crt and ray-token: what a further host's Ray worker shows
    DIR/client/        token and ca.crt: what a user's machine needs; the server keeps the token's hash only
    DIR/grafana/       password: that of Grafana's user admin

What is there and good stays as it is. A certificate that ends within a month, belongs to another authority or
has other names than it should is made anew, so that starting the system renews its certificates. No file is ever
seen half-written.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cutoff.artifacts import publishing
from cutoff.client.certificates import Certificate, issue, make_authority, still_good
from cutoff.errors import Fault, InvalidInput, Refused
from cutoff.rpc.tokens import hash_of

COORDINATOR = "coordinator"
RAY_WORKER = "ray-worker"
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
        hosts: Further names and IP addresses under which users reach the coordinator, beside its own name and this
            machine's loopback. Stage services are reached by their own names only.
        owner: User and group that the files are to belong to; only root may give files away.

    Raises:
        InvalidInput: A host has the name of a service, whose certificate would then pass for that service's.
        Refused: The folder may not be written to, or the files not given away.
    """
    _check_hosts(hosts)
    writing = _Writing(folder, owner)
    authority = _authority(writing)
    _certificate(writing, COORDINATOR, authority, hosts)
    for service in (*STAGE_SERVICES, RAY_WORKER):
        _certificate(writing, service, authority, ())
    _users_token(writing)
    ray_token = writing.keep_or_write(f"{COORDINATOR}/ray-token", _new_token)
    writing.write_if_other(f"{RAY_WORKER}/ray-token", ray_token, secret=True)
    writing.keep_or_write("grafana/password", _new_token)
    writing.write_if_other("client/ca.crt", authority.certificate, secret=False)
    return Made(folder, tuple(writing.written))


def _check_hosts(hosts: Sequence[str]) -> None:
    taken = {COORDINATOR, RAY_WORKER, *STAGE_SERVICES}
    faults = [Fault("host", f"{host} is the name of a service", "leave it out") for host in hosts if host in taken]
    if faults:
        raise InvalidInput(faults)


def _authority(writing: _Writing) -> Certificate:
    authority = writing.pair("ca") or make_authority()
    writing.write_pair("ca", authority)
    return authority


def _certificate(writing: _Writing, service: str, authority: Certificate, hosts: Sequence[str]) -> None:
    names = (service, "localhost", "127.0.0.1", "::1", *hosts)
    pair = writing.pair(service)
    if pair is None or not still_good(pair, authority, names):
        pair = issue(authority, names)
    writing.write_pair(service, pair)
    writing.write_if_other(f"{service}/ca.crt", authority.certificate, secret=False)


def _users_token(writing: _Writing) -> None:
    """The users' first token goes to them, and its hash to the coordinator.

    Earlier the coordinator was given the token itself: that one counts on.
    """
    earlier = f"{COORDINATOR}/token"
    token = writing.read(earlier) or writing.read("client/token") or _new_token()
    writing.write_if_other("client/token", token, secret=True)
    kept = hash_of(token.decode("ascii", "replace").strip()).encode() + b"\n"
    writing.write_if_other(f"{COORDINATOR}/token.sha256", kept, secret=True)
    writing.remove(earlier)


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
        except NotADirectoryError as error:
            raise Refused(f"{path.parent} is not a folder", "remove what is in the way") from error
        except PermissionError as error:
            raise self._refused(path, "read") from error

    def pair(self, name: str) -> Certificate | None:
        certificate, key = self.read(f"{name}/tls.crt"), self.read(f"{name}/tls.key")
        return Certificate(certificate, key) if certificate and key else None

    def write_pair(self, name: str, pair: Certificate) -> None:
        self.write_if_other(f"{name}/tls.key", pair.key, secret=True)
        self.write_if_other(f"{name}/tls.crt", pair.certificate, secret=False)

    def keep_or_write(self, name: str, make: Callable[[], bytes]) -> bytes:
        content = self.read(name) or make()
        self.write_if_other(name, content, secret=True)
        return content

    def remove(self, name: str) -> None:
        path = self._folder / name
        try:
            path.unlink(missing_ok=True)
        except PermissionError as error:
            raise self._refused(path, "removed") from error

    def write_if_other(self, name: str, content: bytes, *, secret: bool) -> None:
        path, mode = self._folder / name, 0o600 if secret else 0o644
        if self.read(name) == content and self._mended(path, mode):
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._check_own(path.parent)
            with publishing(path) as partial:
                partial.unlink(missing_ok=True)
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
                with os.fdopen(os.open(partial, flags, mode), "wb") as file:
                    os.fchmod(file.fileno(), mode)
                    file.write(content)
                    if self._owner is not None:
                        os.fchown(file.fileno(), *self._owner)
            if self._owner is not None:
                os.chown(path.parent, *self._owner, follow_symlinks=False)
        except PermissionError as error:
            raise self._refused(path, "written") from error
        self.written.append(name)

    def _mended(self, path: Path, mode: int) -> bool:
        """Whether a file has its mode and its owner; its mode is mended in place."""
        status = path.stat()
        if stat.S_IMODE(status.st_mode) != mode:
            try:
                path.chmod(mode)
            except PermissionError as error:
                raise self._refused(path, "given its mode") from error
        return self._owner in (None, (status.st_uid, status.st_gid))

    def _check_own(self, folder: Path) -> None:
        """Refuses a folder that leads elsewhere: root would write, and give away, what is there."""
        if folder.is_symlink():
            raise Refused(f"{folder} is a symbolic link", "give the folder itself")

    def _refused(self, path: Path, what: str) -> Refused:
        there = next(one for one in (path, path.parent, *path.parents) if one.exists())
        status, me = there.stat(), f"{os.geteuid()}:{os.getegid()}"
        return Refused(
            f"{path} cannot be {what}: {there} belongs to {status.st_uid}:{status.st_gid}, and this is {me}",
            f"for a folder of the host: sudo chown -R {me} {path.parent}, or set CUTOFF_UID and CUTOFF_GID in .env to "
            "its owner; for Docker's volumes, after a change of CUTOFF_UID: docker compose down -v (jobs and their "
            "artifacts go too)",
        )
