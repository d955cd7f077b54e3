"""The coordinator as a process: Ray, the store, the job service, from start to graceful stop.

    cutoff-coordinator [--listen 127.0.0.1:50051] [--metrics-port 9101]

Environment:
    CUTOFF_LISTEN, CUTOFF_METRICS_PORT, CUTOFF_METRICS_ADDRESS: as the flags, and where metrics are served.
    CUTOFF_STATE: the database and Ray's token; default $CUTOFF_ARTIFACTS/state. Or CUTOFF_DATABASE_URL.
    RAY_ADDRESS: a cluster to join; without one, Ray is started here.
    CUTOFF_GPUS: how many GPUs this host lends to jobs, where the coordinator itself sees none.
    CUTOFF_RETRY_SECONDS: the pauses before what failed for want of infrastructure is tried again; default "1 5 15".
    CUTOFF_RAY_HOST: the name by which other hosts reach this one's Ray.
    CUTOFF_TRAINER_ADDRESS, CUTOFF_MERGER_ADDRESS, CUTOFF_GGUF_CONVERTER_ADDRESS, CUTOFF_EVALUATOR_ADDRESS
    The roots (`artifacts.Roots`) and the security variables (`rpc/security.py`).
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import grpc.aio

from cutoff.artifacts import Roots
from cutoff.coordinator import admission, scheduler, stage_services
from cutoff.coordinator.attempts import Addresses, Services
from cutoff.coordinator.jobs import Jobs
from cutoff.coordinator.journal import Journal
from cutoff.coordinator.measures import watch_gpus
from cutoff.coordinator.service import JobServicer
from cutoff.coordinator.store import Store
from cutoff.errors import CutoffError, Refused
from cutoff.rpc import serve_until_stopped
from cutoff.spec import JobSpec
from cutoff.telemetry import configure_logs, logger, serve_metrics
from cutoff.v1 import job_pb2_grpc

_LOG = logger("cutoff.coordinator.main")  # as a program, its __name__ is __main__


def main() -> None:
    """The console script cutoff-coordinator."""
    parser = argparse.ArgumentParser(prog="cutoff-coordinator", description="The coordinator of cutoff.")
    listen = os.environ.get("CUTOFF_LISTEN", "127.0.0.1:50051")
    metrics = int(os.environ.get("CUTOFF_METRICS_PORT", "9101"))
    parser.add_argument("--listen", default=listen, help="host:port or unix:/path (default: %(default)s)")
    parser.add_argument("--metrics-port", type=int, default=metrics, help="0 takes a free one (default: %(default)s)")
    options = parser.parse_args()
    configure_logs("coordinator")
    roots = Roots.from_environment()
    address = os.environ.get("CUTOFF_METRICS_ADDRESS", "127.0.0.1")
    port = serve_metrics("coordinator", options.metrics_port, address, {"artifacts": roots.artifacts})
    _LOG.info("metrics", port=port)
    state = Path(os.environ.get("CUTOFF_STATE") or roots.artifacts / "state")
    state.mkdir(parents=True, exist_ok=True)
    try:
        lock = _only_one(state)
        environ = os.environ.get
        scheduler.start_ray(environ("RAY_ADDRESS"), state, environ("CUTOFF_GPUS"), environ("CUTOFF_RAY_HOST"))
        watch_gpus(scheduler.count_gpus)
        asyncio.run(_serve(options.listen, roots, state))
    except CutoffError as error:
        sys.exit(f"error: {error}")
    finally:
        scheduler.stop_ray()
    os.close(lock)


async def _serve(listen: str, roots: Roots, state: Path) -> None:
    store = Store(os.environ.get("CUTOFF_DATABASE_URL") or f"sqlite:///{state / 'jobs.db'}")
    journal = Journal(store)
    services = Services(
        _addresses(),
        scheduler.drive,
        stage_services.cancel_run,
        stage_services.list_runs,
        stage_services.check_install,
        stage_services.check_model,
        stage_services.uninstall,
    )
    jobs = Jobs(journal, services)

    def admit(spec: JobSpec) -> None:
        admission.check(spec, roots)
        scheduler.check_resources(spec.resources.gpus)

    def register(server: grpc.aio.Server) -> Sequence[str]:
        job_pb2_grpc.add_JobServiceServicer_to_server(JobServicer(journal, jobs, admit, roots.artifacts), server)
        return ["cutoff.v1.JobService"]

    jobs.take_up()
    await serve_until_stopped(listen, register, jobs.suspend)
    store.close()


def _only_one(state: Path) -> int:
    """Holds the state folder's lock: two coordinators would take up each other's jobs."""
    descriptor = os.open(state / "coordinator.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Refused(
            f"another coordinator runs on {state}", "stop it, or set CUTOFF_STATE to another folder"
        ) from None
    return descriptor


def _addresses() -> Addresses:
    def of(service: str, port: int) -> str:
        return os.environ.get(f"CUTOFF_{service}_ADDRESS") or f"127.0.0.1:{port}"

    return Addresses(
        trainer=of("TRAINER", 50052),
        merger=of("MERGER", 50053),
        gguf_converter=of("GGUF_CONVERTER", 50054),
        evaluator=of("EVALUATOR", 50055),
    )


if __name__ == "__main__":
    main()
