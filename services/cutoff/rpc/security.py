"""Who may talk to whom: TLS with a token or with certificates on both sides; plaintext only where no network is.

Clients show the coordinator a token. Services know each other by certificates of one authority, and a stage
service answers the coordinator only.

Environment: CUTOFF_TOKEN_FILE (what a client shows; a server keeps its hash only), CUTOFF_TOKEN_SHA256_FILE (for a
server in its place: the hash, so that the token itself is not there), CUTOFF_CERT_FILE and CUTOFF_KEY_FILE (a server's
own, and what it shows as a client), CUTOFF_CA_FILE (whom a client trusts), CUTOFF_CLIENT_CA_FILE (callers must show a
certificate of this authority), CUTOFF_CALLERS (the names that such a certificate may carry; default "coordinator").
Further tokens are in the coordinator's state folder; see `tokens`.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import grpc

from cutoff.errors import NotFound, Refused
from cutoff.rpc.tokens import OneToken, TokenFile, Tokens, hash_of

_SHORTEST_TOKEN = 16

TOKENS = "tokens.json"
"""In a coordinator's state folder."""

TOKEN_HEADER = "authorization"  # noqa: S105 - a header's name

LOCAL = "local"
"""Who calls where nothing is asked for: anybody on this machine."""


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
class _ServerFiles:
    """The files of what a server shows, and of whose certificates it accepts, in PEM."""

    certificate: Path
    key: Path
    authority: Path | None

    @classmethod
    def from_environment(cls) -> Self | None:
        """The files that the variables name; None where they name no certificate."""
        certificate, key, authority = (os.environ.get(f"CUTOFF_{name}_FILE") for name in ("CERT", "KEY", "CLIENT_CA"))
        if certificate and key:
            return cls(Path(certificate), Path(key), Path(authority) if authority else None)
        return None

    def credentials(self) -> grpc.ServerCredentials:
        """Credentials that follow the files: renewed certificates serve the next connection, without a restart.

        Raises:
            NotFound: A file is not there.
        """
        shown = self._read()

        def renewed() -> grpc.ServerCertificateConfiguration | None:
            nonlocal shown
            try:
                found = self._read()
            except NotFound:  # it is being replaced
                return None
            if found == shown:
                return None
            shown = found
            return _configuration(*found)

        return grpc.dynamic_ssl_server_credentials(
            _configuration(*shown),
            renewed,  # type: ignore[arg-type]  # None means no change; the stubs do not know
            require_client_authentication=self.authority is not None,
        )

    def _read(self) -> tuple[bytes, bytes, bytes | None]:
        authority = _content(self.authority, "CUTOFF_CLIENT_CA_FILE") if self.authority else None
        return _content(self.key, "CUTOFF_KEY_FILE"), _content(self.certificate, "CUTOFF_CERT_FILE"), authority


def _configuration(key: bytes, certificate: bytes, authority: bytes | None) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(key, certificate)], authority)


@dataclass(frozen=True, slots=True)
class ServerSecurity:
    """What a server asks of its callers."""

    tokens: Tokens | None
    """Those that callers may show; None where no token is asked for."""
    credentials: grpc.ServerCredentials | None
    callers: frozenset[str] | None = None
    """The names a caller's certificate may carry; None where callers need no certificate."""

    @classmethod
    def from_environment(cls, state: Path | None = None) -> Self:
        """Reads token and certificates, where the variables name them.

        Args:
            state: The folder with the tokens that `cutoff token` makes; None for a server without users.

        Raises:
            NotFound: A variable names a file that is not there.
            Refused: The token file holds no token, or there is nothing to show to callers who show a certificate.
        """
        files = _ServerFiles.from_environment()
        if files is None:
            if os.environ.get("CUTOFF_CLIENT_CA_FILE"):
                raise Refused(
                    "CUTOFF_CLIENT_CA_FILE is set, and there is no certificate of this server's own",
                    "set CUTOFF_CERT_FILE and CUTOFF_KEY_FILE",
                )
            return cls(_tokens(state), None)
        if not files.authority:
            return cls(_tokens(state), files.credentials())
        callers = frozenset(name.strip() for name in os.environ.get("CUTOFF_CALLERS", "coordinator").split(","))
        return cls(_tokens(state), files.credentials(), callers)

    def check_address(self, address: str) -> None:
        """Refuses to listen where a stranger could call.

        Raises:
            Refused: The address can be reached from other machines, but there is no TLS, or neither a token nor
                certificates are asked for.
        """
        if is_local(address):
            return
        closed = self.callers is not None or (self.tokens is not None and self.tokens.required)
        if self.credentials is None or not closed:
            raise Refused(
                f"{address} can be reached from other machines, and there is no TLS certificate or no token",
                "listen on 127.0.0.1, or set CUTOFF_TOKEN_FILE, CUTOFF_CERT_FILE and CUTOFF_KEY_FILE",
            )

    def caller(self, header: str, names: Iterable[str] = ()) -> str | None:
        """Who calls; None when the call may not go on.

        Args:
            header: Its authorization header.
            names: Those that the caller's certificate carries. Where certificates are asked for, one takes the
                place of the token.

        Returns:
            "certificate:NAME", "token:NAME", or "local" where nothing is asked for.
        """
        if self.callers is not None:
            known = self.callers.intersection(names)
            return f"certificate:{min(known)}" if known else None
        if self.tokens is None or not self.tokens.required:
            return LOCAL
        scheme, _, token = header.partition(" ")
        holder = self.tokens.holder(token if scheme == "Bearer" else "")
        return f"token:{holder}" if holder else None


@dataclass(frozen=True, slots=True)
class ClientSecurity:
    """What a client shows, and whom it trusts."""

    token: str | None = field(repr=False)
    ca: bytes | None
    certificate: tuple[bytes, bytes] | None = field(default=None, repr=False)
    """Key and certificate, in PEM."""

    @classmethod
    def from_environment(cls) -> Self:
        """What a user shows the coordinator: reads token and CA, where the variables name them.

        Raises:
            NotFound: A variable names a file that is not there.
            Refused: The token file holds no token.
        """
        return cls(_token(), _read("CUTOFF_CA_FILE"))

    @classmethod
    def between_services(cls) -> Self:
        """What one service shows another: its certificate. Users' tokens are not for them.

        Raises:
            NotFound: A variable names a file that is not there.
            Refused: The token file holds no token.
        """
        authority, certificate, key = _read("CUTOFF_CA_FILE"), _read("CUTOFF_CERT_FILE"), _read("CUTOFF_KEY_FILE")
        if authority and certificate and key:
            return cls(None, authority, (key, certificate))
        return cls(_token(), authority)

    @classmethod
    def from_texts(cls, token: str, ca: bytes) -> Self:
        """A token and a CA that were read already.

        Raises:
            Refused: The token is too short to be one.
        """
        return cls(_checked(token, "what was found"), ca)

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """The headers of each call."""
        return ((TOKEN_HEADER, f"Bearer {self.token}"),) if self.token else ()


def _tokens(state: Path | None) -> Tokens | None:
    """What callers of this server may show."""
    given = _read("CUTOFF_TOKEN_SHA256_FILE")
    token = None if given is not None else _token()
    first = given.decode("ascii", "replace").strip() if given is not None else hash_of(token) if token else None
    if state is None:
        return OneToken(first) if first else None
    tokens = TokenFile(state / TOKENS)
    if first:
        tokens.adopt(first)
    return tokens


def _token() -> str | None:
    content = _read("CUTOFF_TOKEN_FILE")
    if content is None:
        return None
    return _checked(content.decode("ascii", "replace"), "the file CUTOFF_TOKEN_FILE names")


def _checked(text: str, where: str) -> str:
    token = text.strip()
    if len(token) < _SHORTEST_TOKEN:
        raise Refused(
            f"{where} holds no token of at least {_SHORTEST_TOKEN} characters",
            "for a server of your own make one: cutoff init; for another's, ask whoever runs it",
        )
    return token


def _read(variable: str) -> bytes | None:
    name = os.environ.get(variable)
    return _content(Path(name), variable) if name else None


def _content(path: Path, variable: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise NotFound(f"{variable} names {path}, which cannot be read: {error.strerror}", f"set {variable}") from error
