"""Users' tokens: named, kept as hashes, revocable, with an end where one is wanted.

A token is 256 random bits, so its plain SHA-256 is safe to keep: slow password hashes make guessing dear, and here
there is nothing to guess. The file `tokens.json` in the coordinator's state folder holds name, hash and times;
`token-uses.json` beside it, written by the server alone, when each was last shown. The server looks at the file at
every call, so what `cutoff token` writes counts from the next call on, without a restart.
"""

from __future__ import annotations

import datetime
import fcntl
import hashlib
import hmac
import json
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from cutoff.artifacts import publishing
from cutoff.errors import AlreadyExists, Fault, InvalidInput, NotFound, Refused
from cutoff.telemetry import logger

_LOG = logger(__name__)

FIRST = "first"
"""The name of the token that `cutoff init` makes, and of one given by CUTOFF_TOKEN_FILE."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}\Z")
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_USES_SECONDS = 60.0
"""Between two writings of when tokens were last shown."""


def hash_of(token: str) -> str:
    """What is kept of a token: its SHA-256, in hex."""
    return hashlib.sha256(token.encode()).hexdigest()


class Tokens(Protocol):
    """Who may call a server."""

    @property
    def required(self) -> bool:
        """Whether callers must show a token at all."""
        ...

    def holder(self, presented: str) -> str | None:
        """The name of a token that is good now; None for any other text."""
        ...


@dataclass(frozen=True, slots=True)
class OneToken:
    """A single token that a server was started with, for as long as it runs."""

    sha256: str
    name: str = FIRST

    @property
    def required(self) -> bool:
        """Always."""
        return True

    def holder(self, presented: str) -> str | None:
        """See `Tokens`."""
        return self.name if hmac.compare_digest(hash_of(presented), self.sha256) else None


@dataclass(frozen=True, slots=True)
class Token:
    """What is known of one token; times are ISO 8601 in UTC."""

    name: str
    sha256: str
    created: str
    expires: str | None = None
    revoked: str | None = None

    def good(self, now: datetime.datetime) -> bool:
        """Whether it opens the door."""
        expired = self.expires is not None and datetime.datetime.fromisoformat(self.expires) <= now
        return self.revoked is None and not expired

    def state(self, now: datetime.datetime) -> str:
        """In a word: good, expired or revoked."""
        return "revoked" if self.revoked else "good" if self.good(now) else "expired"


class TokenFile:
    """The tokens of one coordinator.

    Args:
        path: tokens.json in its state folder; it need not be there yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._uses_path = path.with_name("token-uses.json")
        self._stamp: tuple[int, int, int] | None = None
        self._tokens: tuple[Token, ...] = ()
        self._uses = self.uses()
        self._uses_written: dict[str, datetime.datetime] = {}

    def create(self, name: str, days: float | None = None) -> str:
        """Makes a token and returns it; nobody can show it again.

        Args:
            name: Whose it is, for the audit.
            days: How long it is good; None for good until it is revoked.

        Raises:
            InvalidInput: The name is no plain name, or `days` is not above 0.
            AlreadyExists: A token has, or had, this name: the audit must not mix two up.
        """
        fix = "use letters, digits, '.', '_', '@' and '-', at most 64, and begin with a letter or digit"
        faults = [] if _NAME.match(name) else [Fault("NAME", f"{name[:80]!r} is not a plain name", fix)]
        if days is not None and not 0 < days <= 36500:
            faults.append(Fault("--days", f"{days} is not a number of days", "give for example 90"))
        if faults:
            raise InvalidInput(faults)
        token = secrets.token_hex(32)
        expires = _shown(_now() + datetime.timedelta(days=days)) if days is not None else None
        self._add(Token(name, hash_of(token), _shown(_now()), expires))
        return token

    def adopt(self, sha256: str) -> None:
        """Takes in the token the server was started with under the name "first", unless it is known, revoked or not.

        The one that had this name is revoked, for it was replaced.

        Raises:
            Refused: It is no SHA-256.
        """
        if not _SHA256.match(sha256):
            raise Refused("what is given as a token's SHA-256 is none", "run `cutoff init` again")
        with self._changing() as tokens:
            if any(each.sha256 == sha256 for each in tokens):
                return
            for place, each in enumerate(tokens):
                if each.name == FIRST:
                    tokens[place] = replace(
                        each, name=f"{FIRST}-until-{each.sha256[:8]}", revoked=each.revoked or _shown(_now())
                    )
            tokens.append(Token(FIRST, sha256, _shown(_now())))

    def revoke(self, name: str) -> Token:
        """Ends a token; it stays in the list.

        Raises:
            NotFound: There is none of this name.
        """
        with self._changing() as tokens:
            for place, each in enumerate(tokens):
                if each.name == name:
                    tokens[place] = replace(each, revoked=each.revoked or _shown(_now()))
                    return tokens[place]
        known = ", ".join(each.name for each in self.all()) or "none"
        raise NotFound(f"there is no token named {name!r}", f"there are: {known}")

    def all(self) -> tuple[Token, ...]:
        """Every token there is and was, in the order they were made.

        Raises:
            Refused: The file is damaged.
        """
        try:
            found = json.loads(self._path.read_bytes())
            return tuple(Token(**entry) for entry in found["tokens"])
        except FileNotFoundError:
            return ()
        except (ValueError, TypeError, KeyError) as error:
            raise Refused(f"{self._path} is damaged: {error}", "restore it from a backup, or move it away") from error

    def uses(self) -> dict[str, str]:
        """When each token was last shown, by name; exact to a minute."""
        try:
            found: dict[str, str] = json.loads(self._uses_path.read_bytes())
        except (OSError, ValueError):  # it is a convenience, and made anew
            return {}
        return found

    @property
    def required(self) -> bool:
        """Whether callers must show a token: from the first one on, and for ever."""
        return bool(self._current())

    def holder(self, presented: str) -> str | None:
        """See `Tokens`. Compares with every token in constant time, whichever matches."""
        shown, now, found = hash_of(presented), _now(), None
        for token in self._current():
            if hmac.compare_digest(shown, token.sha256) and token.good(now):
                found = token.name
        if found is not None:
            self._used(found, now)
        return found

    def _current(self) -> tuple[Token, ...]:
        """The tokens as the file says now; where it cannot be read, as it said last: that lets nobody in."""
        try:
            status = self._path.stat()
        except OSError:
            return self._tokens
        stamp = (status.st_ino, status.st_mtime_ns, status.st_size)
        if stamp != self._stamp:
            try:
                self._tokens, self._stamp = self.all(), stamp
            except (Refused, OSError) as error:
                _LOG.error("the tokens cannot be read; those known before count", error=str(error))
        return self._tokens

    def _used(self, name: str, now: datetime.datetime) -> None:
        written = self._uses_written.get(name)
        if written is not None and (now - written).total_seconds() < _USES_SECONDS:
            return
        self._uses_written[name] = now
        self._uses[name] = _shown(now)
        try:
            _write(self._uses_path, self._uses)
        except OSError as error:
            _LOG.warning("when a token was last used cannot be written", error=str(error))

    def _add(self, token: Token) -> None:
        with self._changing() as tokens:
            if any(each.name == token.name for each in tokens):
                raise AlreadyExists(f"there is, or was, a token named {token.name}", "choose another name")
            tokens.append(token)

    @contextmanager
    def _changing(self) -> Iterator[list[Token]]:
        """Yields the tokens to be changed; alone, and written in one step when the block ends well."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(self._path.with_name("tokens.lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            before = self.all()
            tokens = list(before)
            yield tokens
            if tuple(tokens) != before:
                _write(self._path, {"tokens": [asdict(each) for each in tokens]})
        finally:
            os.close(lock)


def _write(path: Path, content: Mapping[str, Any]) -> None:
    """Writes JSON that only this user can read."""
    with publishing(path) as partial:
        partial.unlink(missing_ok=True)
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump(content, file, indent=2)
            file.write("\n")


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def _shown(time: datetime.datetime) -> str:
    return time.isoformat(timespec="seconds")
