"""Coordinator and services: reachable and healthy, of this version, with a clock like this one; ports; this clock."""

from __future__ import annotations

import datetime
import socket
from collections.abc import Callable
from pathlib import Path

import cutoff
from cutoff.artifacts import GIB
from cutoff.client.doctor.findings import Finding, fail, ok, warn
from cutoff.errors import CutoffError, Unavailable
from cutoff.v1 import operator_pb2

_SKEW = 5.0
"""Seconds that two clocks may differ; a day's certificates and leases do not mind more, logs do."""
_LITTLE = 20 * GIB
_Service = operator_pb2.ServiceStatus


def system(ask: Callable[[], operator_pb2.GetStatusResponse], address: str, named: bool) -> list[Finding]:
    """What the coordinator says of itself and of its services.

    Args:
        ask: Asks it.
        address: Where it should be.
        named: Whether somebody said that it is there; otherwise none need run.
    """
    try:
        status = ask()
    except Unavailable as error:
        if named:
            return [fail("coordinator", error.message, error.remedy)]
        return [ok("coordinator", f"none at {address}; `cutoff serve` or `docker compose up -d` starts one")]
    except CutoffError as error:
        return [fail("coordinator", f"{address}: {error.message}", error.remedy)]
    return [
        _coordinator(status, address),
        clock_beside(status.time.ToDatetime(datetime.UTC), datetime.datetime.now(datetime.UTC)),
        *(service(each) for each in status.services),
        *(server_disk(each) for each in status.disks),
    ]


def _coordinator(status: operator_pb2.GetStatusResponse, address: str) -> Finding:
    check = "coordinator"
    if status.version != cutoff.__version__:
        said = f"{address} is version {status.version}, this is {cutoff.__version__}"
        return warn(check, said, "update the older one")
    if status.draining:
        return warn(check, f"{address} drains: it takes no new work", "cutoff drain --end, or restart it")
    said = f"{address}: {status.unfinished_jobs} jobs, {status.running_attempts} attempts run, "
    return ok(check, f"{said}{status.waiting_attempts} wait; {status.free_gpus:g} of {status.gpus:g} GPUs free")


def service(status: operator_pb2.ServiceStatus) -> Finding:
    """A stage service, as the coordinator sees it."""
    if status.state == _Service.STATE_SERVING:
        return ok(status.name, f"serves at {status.address}")
    logs = f"docker compose logs {status.name}, or output/logs/{status.name}.log of `cutoff serve`"
    if status.state == _Service.STATE_NOT_SERVING:
        return warn(status.name, f"{status.address} is being stopped", logs)
    return fail(status.name, f"the coordinator cannot reach {status.address}: {status.message}", logs)


def server_disk(disk: operator_pb2.Disk) -> Finding:
    """Room on a disk of the server."""
    said = f"{disk.path}: {disk.free_bytes / GIB:.1f} of {disk.size_bytes / GIB:.1f} GiB free"
    if disk.free_bytes < _LITTLE and disk.root != "datasets":
        return warn(f"server's {disk.root}", said, "cutoff gc --dry-run shows what may go")
    return ok(f"server's {disk.root}", said)


def clock_beside(theirs: datetime.datetime, ours: datetime.datetime) -> Finding:
    """Whether two machines agree on the time."""
    skew = (theirs - ours).total_seconds()
    if abs(skew) > _SKEW:
        said = f"the coordinator's clock is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} this one"
        return warn("clocks", said, "let both follow a time server: timedatectl set-ntp true")
    return ok("clocks", "the coordinator's clock is like this one")


def clock(now: float, newest: Path | None = None) -> Finding:
    """Whether this machine's clock can be right: it cannot be earlier than a file that is there.

    Args:
        now: In Unix time.
        newest: The file.
    """
    written = (newest or Path(cutoff.__file__)).stat().st_mtime
    if now < written - 60:
        return fail("clock", "it is earlier than the files of this installation", "timedatectl set-ntp true")
    return ok("clock", datetime.datetime.fromtimestamp(now, datetime.UTC).isoformat(timespec="seconds"))


def port(name: str, number: int, healthy: Callable[[str], bool]) -> Finding:
    """Whether a service's port is free, or the service listens there.

    Args:
        name: The service's.
        number: Its port, on loopback.
        healthy: Whether a cutoff service answers at an address.
    """
    address = f"127.0.0.1:{number}"
    with socket.socket() as probe:
        probe.settimeout(2)
        if probe.connect_ex(("127.0.0.1", number)) != 0:
            return ok(f"port {number}", f"free, for the {name}")
    if healthy(address):
        return ok(f"port {number}", f"the {name} answers")
    fix = f"ss -ltnp | grep {number} shows who; end it, or give the {name} another port (CUTOFF_LISTEN)"
    return warn(f"port {number}", f"somebody listens who is no cutoff service, where the {name} would", fix)
