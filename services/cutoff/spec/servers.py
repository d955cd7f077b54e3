"""Which servers a job may have asked: the operator's list, so that nobody reaches into a network through a job.

CUTOFF_ALLOWED_SERVERS holds host:port, separated by spaces or commas; a host alone means each of its ports, * any
server. Where it is not set any server will do: a service sets it to LM Studio's port on this host (`close_servers`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from cutoff.errors import Fault, InvalidInput

ALLOWED_SERVERS = "CUTOFF_ALLOWED_SERVERS"

_LMSTUDIO = "localhost:1234 127.0.0.1:1234"
_URL = re.compile(
    r"(?P<scheme>https?)://(?P<host>[A-Za-z0-9]([A-Za-z0-9.-]{0,252}[A-Za-z0-9])?|\[[0-9A-Fa-f:.]{2,45}\])"
    r"(:(?P<port>[0-9]{1,5}))?(?P<path>(/[A-Za-z0-9._~-]{0,100}){0,16})\Z"
)
"""No user, password, query, escape or backslash: programs differ in what host they then see, and a job's record is no
place for a password."""


def server_of(url: str) -> tuple[str, int]:
    """Host, in lower case, and port.

    Raises:
        ValueError: It is not http(s)://HOST[:PORT][/PATH].
    """
    found = _URL.match(url)
    if found is None or ".." in found["path"].split("/"):
        raise ValueError("write it as http://HOST:PORT/PATH, without user, password or query")
    return found["host"].lower(), int(found["port"] or (443 if found["scheme"] == "https" else 80))


def server_faults(urls: Mapping[str, str | None]) -> list[Fault]:
    """What is wrong with servers' URLs, by the fields they are in; an empty one is none.

    Args:
        urls: By field.
    """
    return [fault for field, url in urls.items() if url for fault in _faults(field, url)]


def require_servers(urls: Mapping[str, str | None]) -> None:
    """Refuses servers that may not be asked.

    Raises:
        InvalidInput: With every fault.
    """
    faults = server_faults(urls)
    if faults:
        raise InvalidInput(faults)


def close_servers() -> None:
    """For a process that works for others: only what its operator names is asked, or LM Studio on this host."""
    os.environ.setdefault(ALLOWED_SERVERS, _LMSTUDIO)


def _faults(field: str, url: str) -> list[Fault]:
    try:
        host, port = server_of(url)
    except ValueError as error:
        return [Fault(field, f"{ascii(url)[:80]} is no server's URL", str(error))]
    named = os.environ.get(ALLOWED_SERVERS)
    allowed = {"*"} if named is None else set(named.replace(",", " ").lower().split())
    if allowed & {"*", host, f"{host}:{port}"}:
        return []
    fix = f"name another, or have the operator start coordinator and evaluator with it in {ALLOWED_SERVERS}"
    return [Fault(field, f"{host}:{port} is no server that jobs may have asked here ({named or 'none is'})", fix)]
