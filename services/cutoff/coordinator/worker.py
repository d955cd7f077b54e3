"""A further host joins the cluster: its stage services are asked first, then its Ray worker takes this process' place.

    cutoff-worker

A host whose services do not answer, or that sees no artifacts folder a coordinator has named, would take jobs and
fail them; it does not join. It is started again by whoever started it, until it may.

Environment:
    CUTOFF_HOST: this host's name in the cluster, which no other host has.
    CUTOFF_RAY_HEAD: where the first host's Ray is; default ray-head:6379. RAY_AUTH_TOKEN_PATH: its token.
    CUTOFF_GPUS: how many GPUs this host lends to jobs; default 0. CUTOFF_CPUS: how many attempts without a GPU.
    CUTOFF_TRAINER_ADDRESS, CUTOFF_MERGER_ADDRESS, CUTOFF_GGUF_CONVERTER_ADDRESS, CUTOFF_EVALUATOR_ADDRESS: this
        host's services, as this process and the coordinator both reach them.
    The security variables (`rpc/security.py`): the certificate is shown to this host's services.
"""

from __future__ import annotations

import argparse
import os
import sys

from cutoff.coordinator.hosts import FIRST_HOST, HOST_LABEL, Addresses, ask, cpu_slots, host_name
from cutoff.errors import CutoffError, Fault, InvalidInput, Refused
from cutoff.telemetry import configure_logs, logger

_LOG = logger("cutoff.coordinator.worker")
_SERVICES = ("trainer", "merger", "gguf-converter", "evaluator")
_OBJECT_STORE_BYTES = 100 << 20
"""Nothing but events goes through Ray."""


def main() -> None:
    """The console script cutoff-worker."""
    argparse.ArgumentParser(prog="cutoff-worker", description="A further host's Ray worker.").parse_args()
    configure_logs("worker")
    try:
        command = join_command()
        check_services(Addresses.from_environment())
    except CutoffError as error:
        sys.exit(f"error: {error}")
    _LOG.info("joining", host=host_name(), command=" ".join(command))
    os.execvp(command[0], command)


def join_command() -> list[str]:
    """The Ray command that joins the cluster and stays.

    Raises:
        Refused: A variable is wrong, or this host has no name of its own.
    """
    name, gpus = host_name(), os.environ.get("CUTOFF_GPUS") or "0"
    if name == FIRST_HOST:
        raise Refused(f"{FIRST_HOST} is the first host's name", "set CUTOFF_HOST to this host's own")
    if not gpus.isdigit():
        raise Refused(f"CUTOFF_GPUS={gpus} is not a number of GPUs", "set it to 0, 1, 2, ...")
    head = os.environ.get("CUTOFF_RAY_HEAD") or "ray-head:6379"
    return [
        *("ray", "start", "--block", "--disable-usage-stats", f"--address={head}"),
        *(f"--labels={HOST_LABEL}={name}", f"--num-cpus={cpu_slots()}", f"--num-gpus={gpus}"),
        f"--object-store-memory={_OBJECT_STORE_BYTES}",
    ]


def check_services(addresses: Addresses) -> None:
    """Asks each stage service of this host whether it answers, and what it calls its artifacts folder.

    Raises:
        InvalidInput: What is wrong with each of them, in one answer.
    """
    faults, seen = [], {}
    for service in _SERVICES:
        address = addresses.of(service)
        try:
            seen[service] = ask(address, service).artifacts_id
        except CutoffError as error:
            faults.append(Fault(service, f"does not answer at {address}: {error.message}", "see its log"))
            continue
        if not seen[service]:
            fix = "mount the first host's file system as CUTOFF_ARTIFACTS; its coordinator must have run once"
            faults.append(Fault(service, "sees an artifacts folder that no coordinator has named", fix))
    if len(set(seen.values()) - {""}) > 1:
        folders = ", ".join(f"{service} {name}" for service, name in seen.items())
        faults.append(Fault("CUTOFF_ARTIFACTS", f"is not the same folder for all: {folders}", "mount the same one"))
    if faults:
        raise InvalidInput(faults)
