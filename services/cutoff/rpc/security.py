"""Who may talk to whom: TLS and a token, plaintext only where no network is involved.

Environment: CUTOFF_TOKEN_FILE (both sides), CUTOFF_CERT_FILE and CUTOFF_KEY_FILE (a server's own),
CUTOFF_CA_FILE (whom a client trusts).
"""

from __future__ import annotations

import hmac
import ipaddress
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import grpc

from cutoff.errors import NotFound, Refused

_SHORTEST_TOKEN = 16

TOKEN_HEADER = "authorization"  # noqa: S105 - a header's name


def is_local(address: str) -> bool:
    """Whether an address can only be reached from this machine: loopback or a Unix socket."""
    if address.startswith("unix:"):
        return True
    host = address.rpartition(":")[0].strip("[]")
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name, which may lead anywhere
        return False


@dataclass(frozen=True, slots=True)
class ServerSecurity:
    """What a server asks of its callers."""

    token: str | None = field(repr=False)
    credentials: grpc.ServerCredentials | None

    @classmethod
    def from_environment(cls) -> Self:
        """Reads token and certificate, where the variables name them.

        Raises:
            NotFound: A variable names a file that is not there.
            Refused: The token file holds no token.
        """
        certificate, key = _read("CUTOFF_CERT_FILE"), _read("CUTOFF_KEY_FILE")
        credentials = grpc.ssl_server_credentials([(key, certificate)]) if certificate and key else None
        return cls(_token(), credentials)

    def check_address(self, address: str) -> None:
        """Refuses to listen where a stranger could call.

        Raises:
            Refused: The address can be reached from other machines, but there is no TLS or no token.
        """
        if not is_local(address) and (self.token is None or self.credentials is None):
            raise Refused(
                f"{address} can be reached from other machines, and there is no TLS certificate or no token",
                "listen on 127.0.0.1, or set CUTOFF_TOKEN_FILE, CUTOFF_CERT_FILE and CUTOFF_KEY_FILE",
            )

    def accepts(self, header: str | None) -> bool:
        """Whether a call with this authorization header may go on (compared in constant time)."""
        if self.token is None:
            return True
        return hmac.compare_digest((header or "").encode(), f"Bearer {self.token}".encode())


@dataclass(frozen=True, slots=True)
class ClientSecurity:
    """What a client shows, and whom it trusts."""

    token: str | None = field(repr=False)
    ca: bytes | None

    @classmethod
    def from_environment(cls) -> Self:
        """Reads token and CA, where the variables name them.

        Raises:
            NotFound: A variable names a file that is not there.
            Refused: The token file holds no token.
        """
        return cls(_token(), _read("CUTOFF_CA_FILE"))

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """The headers of each call."""
        return ((TOKEN_HEADER, f"Bearer {self.token}"),) if self.token else ()


def _token() -> str | None:
    content = _read("CUTOFF_TOKEN_FILE")
    if content is None:
        return None
    token = content.decode("ascii", "replace").strip()
    if len(token) < _SHORTEST_TOKEN:
        raise Refused(
            f"the file CUTOFF_TOKEN_FILE names holds no token of at least {_SHORTEST_TOKEN} characters",
            "write one: openssl rand -hex 32",
        )
    return token


def _read(variable: str) -> bytes | None:
    name = os.environ.get(variable)
    if not name:
        return None
    try:
        return Path(name).read_bytes()
    except OSError as error:
        raise NotFound(f"{variable} names {name}, which cannot be read: {error.strerror}", f"set {variable}") from error
