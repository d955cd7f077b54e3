"""The hosts of a cluster. Each has a Ray worker and the four stage services, under addresses that it knows itself.

Ray places an attempt on a host; the attempt reads there, from the environment, where that host's services are, and
the coordinator keeps that on the attempt before the run begins. So whoever comes back asks the right host.
"""

from __future__ import annotations

import os
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Self

from cutoff.coordinator.job import attempt_of
from cutoff.errors import Refused
from cutoff.rpc import ClientSecurity, Peer
from cutoff.v1 import job_pb2, run_pb2, types_pb2

FIRST_HOST = "head"
"""The name of the coordinator's host, unless CUTOFF_HOST gives it another."""

HOST_LABEL = "cutoff-host"
"""The label of a Ray node that carries its host's name."""

ANY_HOST = "any"
"""As CUTOFF_MODELS_HOST: every host has the same models folder."""

_MOST_SLOTS = 8
"""Attempts without a GPU that run side by side on one host; Ray keeps an idle process of 60 MB ready for each."""

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
"""What Ray takes as a label's value."""


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the stage services of one host listen."""

    trainer: str
    merger: str
    gguf_converter: str
    evaluator: str

    @classmethod
    def from_environment(cls) -> Self:
        """Those of this host: CUTOFF_TRAINER_ADDRESS and its like, by default the usual ports of loopback."""

        def of(service: str, port: int) -> str:
            return os.environ.get(f"CUTOFF_{service}_ADDRESS") or f"127.0.0.1:{port}"

        return cls(
            trainer=of("TRAINER", 50052),
            merger=of("MERGER", 50053),
            gguf_converter=of("GGUF_CONVERTER", 50054),
            evaluator=of("EVALUATOR", 50055),
        )

    def of(self, service: str) -> str:
        """A service's, by its name as in compose.yaml ("gguf-converter")."""
        return str(getattr(self, service.replace("-", "_")))


@dataclass(frozen=True, slots=True)
class Place:
    """Where an attempt was placed."""

    host: str
    """The host's name in the cluster."""
    address: str
    """Its stage service's."""


async def _always(_host: str) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Hosts:
    """What the coordinator knows of the hosts."""

    own: str = FIRST_HOST
    """The coordinator's, whose services are those of its own environment."""
    models: str = FIRST_HOST
    """The one that installs, since it has the models folder; or ANY_HOST."""
    present: Callable[[str], Awaitable[bool]] = _always
    """Whether a host is in the cluster now."""
    returns: Callable[[str], Awaitable[bool]] = _always
    """The same; a host that is not there is waited for first, for as long as a restarted one takes to come back."""

    def for_stage(self, stage: str) -> str:
        """The host that a new attempt must go to; "" where any will do."""
        return self.models if stage == "install" and self.models != ANY_HOST else ""

    def is_far(self, attempt: job_pb2.Attempt) -> bool:
        """Whether an attempt was placed on another host than the coordinator's."""
        return attempt.host not in ("", self.own)


def host_name() -> str:
    """This host's, as CUTOFF_HOST gives it.

    Raises:
        Refused: It is none.
    """
    name = os.environ.get("CUTOFF_HOST") or FIRST_HOST
    if not _NAME.fullmatch(name):
        raise Refused(
            f"CUTOFF_HOST={name!r} is no name for a host", "use letters, digits, '-', '_' and '.', at most 63 of them"
        )
    return name


def cpu_slots() -> int:
    """How many attempts without a GPU this host takes: CUTOFF_CPUS, or one per core within limits.

    At least two, so that a conversion runs beside an evaluation on one core too.

    Raises:
        Refused: CUTOFF_CPUS is not a number.
    """
    given = os.environ.get("CUTOFF_CPUS")
    if not given:
        return min(max(2, os.cpu_count() or 1), _MOST_SLOTS)
    if not given.isdigit():
        raise Refused(f"CUTOFF_CPUS={given} is not a number of attempts", "set it to 1, 2, ..., or to none")
    return int(given)


def with_place(job: job_pb2.Job, key: types_pb2.RunKey, place: Place) -> job_pb2.Job:
    """The job after one of its attempts was placed."""
    after = job_pb2.Job()
    after.CopyFrom(job)
    attempt = attempt_of(after, key)
    attempt.host, attempt.address = place.host, place.address
    return after


def ask(address: str, service: str) -> run_pb2.ListRunsResponse:
    """What a stage service of any host says of itself: its runs, and what its artifacts folder calls itself.

    Raises:
        Unavailable: It does not answer.
    """
    with Peer(address, ClientSecurity.between_services(), service) as peer:
        return peer.unary("RunService/ListRuns", run_pb2.ListRunsRequest(), run_pb2.ListRunsResponse)


def check_shared(address: str, service: str, artifacts_id: str) -> None:
    """Refuses a host whose artifacts folder is not the coordinator's: what it made there, no other host would find.

    Args:
        address: Of a stage service of the host.
        service: The service's name.
        artifacts_id: What the folder calls itself where the coordinator is; "" asks nothing.

    Raises:
        Refused: It is another folder.
        Unavailable: The service does not answer.
    """
    if artifacts_id and (seen := ask(address, service).artifacts_id) != artifacts_id:
        raise Refused(
            f"the {service} at {address} sees another artifacts folder than the coordinator "
            f"({seen or 'one without a name'} in place of {artifacts_id})",
            "mount the same file system as CUTOFF_ARTIFACTS on all hosts",
        )
