"""Fetches one file over HTTP and goes on where an earlier attempt, of this process or another, broke off.

huggingface_hub throws away what it has of a file when its process ends, and tells of progress only through a
progress bar. A shard has gigabytes: here what has come stays in `<file>.part`, every megabyte counts as progress, and
the whole is compared with the hash the hub names it by before it gets its name. Why: docs/adr/0010.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable
from pathlib import Path

from cutoff.errors import CheckFailed, Unavailable

PART = ".part"
"""What a file that is still coming is called, after its name."""

_CHUNK = 1 << 20
_TIMEOUT = 20.0
"""Seconds without a single byte."""

_ATTEMPTS = 5
"""In a row that bring nothing new; a connection that breaks every gigabyte may break as often as it likes."""

_PAUSE = 1.0
_PASSING = (408, 429, 500, 502, 503, 504)
"""What a server says when it is worth asking again."""

_SHA256_DIGITS = 64
_HASH = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")

OnBytes = Callable[[int], None]
"""Told how many bytes of the file are there."""


def is_hash(name: str | None) -> bool:
    """Whether a name is one that a file's content can be compared with: its SHA-256, or its SHA-1 in git, in hex."""
    return bool(_HASH.fullmatch(name or ""))


def download(url: str, target: Path, size: int, on_bytes: OnBytes) -> None:
    """Fetches a file; returns when it is complete under its name.

    Args:
        url: Of the file; redirects are followed, and the token stays with the hub.
        target: Named by the file's content, as `is_hash` says.
        size: In bytes; 0 where nobody told it, and only the hash says that it is whole.
        on_bytes: Told of the progress.

    Raises:
        HfHubHTTPError: The server refuses.
        Unavailable: The connection broke again and again; what has come stays for the next attempt.
        CheckFailed: What came is not what the hub named; it is thrown away.
    """
    part = target.with_name(target.name + PART)
    if _size(part) > size:
        part.unlink()
    on_bytes(_size(part))
    fruitless = 0
    while not part.exists() or _size(part) < size:
        before = _size(part)
        broken = _append(url, part, on_bytes)
        fruitless = 0 if _size(part) > before else fruitless + 1
        if fruitless == _ATTEMPTS:
            raise Unavailable(
                f"{url} does not come any further than {_size(part)} of {size} bytes: {broken}",
                "try again later: what has come stays",
            )
        if broken:
            time.sleep(_PAUSE * 2**fruitless)
    _check(part, target.name, url)
    part.replace(target)


def _append(url: str, part: Path, on_bytes: OnBytes) -> str:
    """Asks for what lacks and writes it; returns what broke, in words, or nothing when the answer ended well."""
    from httpx2 import TransportError  # what huggingface_hub speaks through
    from huggingface_hub import get_session, get_token, hf_raise_for_status
    from huggingface_hub.errors import HfHubHTTPError

    start = _size(part)
    headers = {"Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    if token := get_token():
        headers["Authorization"] = f"Bearer {token}"  # httpx2 takes it off when a redirect leads to another host
    try:
        with get_session().stream("GET", url, headers=headers, timeout=_TIMEOUT) as response:
            if response.is_error:
                response.read()
            hf_raise_for_status(response)
            # A server that does not know ranges answers 200 with the whole.
            with part.open("ab" if response.status_code == 206 else "wb") as file:
                for chunk in response.iter_bytes(_CHUNK):
                    file.write(chunk)
                    on_bytes(file.tell())
    except TransportError as error:
        return f"{type(error).__name__} {error}".strip()
    except HfHubHTTPError as error:
        if error.response.status_code not in _PASSING:
            raise
        return f"the server answers {error.response.status_code}"
    return ""


def _check(part: Path, name: str, url: str) -> None:
    """Compares a file with the name the hub gives it: SHA-256 of a large file, git's SHA-1 of a small one.

    Raises:
        CheckFailed: They differ.
    """
    if _digest(part, len(name)) != name:
        part.unlink()
        raise CheckFailed(f"{url} came with other bytes than the hub announced", "try again; what came is thrown away")


def _digest(path: Path, digits: int) -> str:
    if digits == _SHA256_DIGITS:
        digest = hashlib.sha256()
    else:
        digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
