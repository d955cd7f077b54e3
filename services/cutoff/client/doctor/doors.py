"""Tokens and certificates: there, for their owner only, and good for a while."""

from __future__ import annotations

import datetime
import os
import stat
from collections.abc import Mapping
from pathlib import Path

from cutoff.client.doctor.findings import Finding, fail, ok, warn

_SHORTEST_TOKEN = 16
_RENEW_DAYS = 30
_SECRETS = ("CUTOFF_TOKEN_FILE", "CUTOFF_KEY_FILE")
_CERTIFICATES = ("CUTOFF_CERT_FILE", "CUTOFF_CA_FILE", "CUTOFF_CLIENT_CA_FILE")


def doors(environment: Mapping[str, str] = os.environ) -> list[Finding]:
    """The files that the variables name; on one machine's loopback none are needed."""
    secrets = [secret(name, Path(environment[name])) for name in _SECRETS if environment.get(name)]
    certificates = [certificate(name, Path(environment[name])) for name in _CERTIFICATES if environment.get(name)]
    folder = environment.get("CUTOFF_SECRETS")
    if folder:
        client = Path(folder) / "client"
        secrets.append(secret("CUTOFF_SECRETS token", client / "token"))
        certificates.append(certificate("CUTOFF_SECRETS CA", client / "ca.crt"))
    if secrets or certificates:
        return [*secrets, *certificates]
    return [ok("tokens", "none named: calls go to this machine's loopback, or Docker is asked (docs/containers.md)")]


def secret(name: str, path: Path) -> Finding:
    """A token or key: whether it is there, long enough, and for its owner alone."""
    found = _read(name, path)
    if isinstance(found, Finding):
        return found
    if len(found.strip()) < _SHORTEST_TOKEN:
        return fail(name, f"{path} holds no token of {_SHORTEST_TOKEN} characters", "cutoff init makes one")
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        return warn(name, f"{path} can be read by others (mode {mode:04o})", f"chmod 600 {path}")
    return ok(name, str(path))


def certificate(name: str, path: Path, now: datetime.datetime | None = None) -> Finding:
    """A certificate: whether it is one, and how long it is good."""
    found = _read(name, path)
    if isinstance(found, Finding):
        return found
    try:
        from cryptography import x509
    except ImportError:
        return ok(name, f"{path}; when it ends is not known without cryptography")
    try:
        ends = x509.load_pem_x509_certificate(found).not_valid_after_utc
    except ValueError as error:
        return fail(name, f"{path} is no certificate: {error}", "cutoff init makes one")
    days = (ends - (now or datetime.datetime.now(datetime.UTC))).days
    if days < 0:
        return fail(name, f"{path} ended {-days} days ago", "cutoff init makes it anew (compose: docker compose up -d)")
    if days < _RENEW_DAYS:
        return warn(name, f"{path} ends in {days} days", "cutoff init makes it anew (compose: docker compose up -d)")
    return ok(name, f"{path}, good for {days} days")


def _read(name: str, path: Path) -> bytes | Finding:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return fail(name, f"{path} is not there", "cutoff init, or fetch it from whoever runs the server")
    except OSError as error:
        return fail(name, f"{path} cannot be read: {error.strerror}", f"chown $USER {path}")
